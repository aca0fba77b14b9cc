"""Score one prefix at a time with the model's own forward: the oracle, and a fallback."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.vlm.images import fit_frame, resize, resolution
from lerobot_topreward.vlm.loading import Vlm
from lerobot_topreward.vlm.one_pass import is_out_of_memory
from lerobot_topreward.vlm.prompts import question

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


class PerPrefixScorer:
    """One forward per prefix and instruction, through the checkpoint's own processor."""

    def __init__(self, vlm: Vlm, *, max_pixels: int | None = None) -> None:
        """Wrap a checkpoint; ``max_pixels`` is per image."""
        self.vlm = vlm
        self.max_pixels = max_pixels

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which a clip is shown; see `SizedScorer.shown_size`."""
        return resolution(self.vlm.processor.video_processor, clip, max_pixels=self.max_pixels)

    def fit(
        self, frame: UInt8[np.ndarray, "height width 3"], images: int
    ) -> UInt8[np.ndarray, "new_height new_width 3"]:
        """What a clip of so many images needs of a frame; see `FittingScorer.fit`."""
        return fit_frame(
            self.vlm.processor.video_processor,
            frame,
            images,
            max_pixels=self.max_pixels,
            device=self.vlm.device,
        )

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip; see `Scorer.score`."""
        processor = self.vlm.processor.video_processor
        size = self.shown_size(clip)
        images = resize(processor, clip.frames, size=size, device=self.vlm.device)
        video = images[torch.from_numpy(clip.shown).to(images.device)]
        answers = np.empty((2, len(instructions), len(prefixes)), dtype=np.float32)
        for row, instruction in enumerate(instructions):
            for column, shown in enumerate(prefixes):
                try:
                    answers[:, row, column] = self._answer(video, clip, shown, instruction)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    raise EpisodeError(
                        f"out of memory with {shown} images; try `engine=one-pass`, `max_pixels`, "
                        "`sample_fps` or a smaller `vlm`"
                    ) from None
        if not np.isfinite(answers).all():
            raise EpisodeError("the model's log-probabilities are not finite; try `dtype=float32`")
        return LogProbs(true=answers[0], false=answers[1])

    def _answer(self, video: torch.Tensor, clip: Clip, shown: int, instruction: str) -> np.ndarray:
        metadata = {
            "total_num_frames": shown,
            "fps": float(clip.fps),
            "frames_indices": [int(i) for i in clip.frame_indices[:shown]],
        }
        inputs = self.vlm.processor(
            text=[self.vlm.prologue + VIDEO + question(instruction)],
            videos=[video[:shown]],
            video_metadata=[metadata],
            do_sample_frames=False,
            do_resize=False,
            return_mm_token_type_ids=True,
            return_tensors="pt",
        ).to(self.vlm.device)
        with torch.inference_mode():
            hidden = self.vlm.model.model(**inputs).last_hidden_state[0, -1:]
            return self.vlm.read_answers(hidden)[0].cpu().numpy()
