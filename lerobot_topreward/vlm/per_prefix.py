"""Score one prefix at a time with the model's own forward: the oracle, and a fallback."""

from collections.abc import Sequence

import numpy as np
import torch

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.vlm.images import resize
from lerobot_topreward.vlm.one_pass import Display, is_out_of_memory
from lerobot_topreward.vlm.prompts import question

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


class PerPrefixScorer(Display):
    """One forward per prefix and instruction, through the checkpoint's own processor."""

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
