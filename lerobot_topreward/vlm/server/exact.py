"""Exact mode: vLLM computes what the built-in scorer would, on the same images and tokens.

The images travel as PNG, which loses nothing, at the size at which the built-in scorer shows them,
as the frames of one video with their own times. vLLM reads such a video from a data URL of the type
video/jpeg, a comma between its frames, whatever these are; ``media_io_kwargs`` give their times. It
wants at least two frames, so where the number is odd the last one stands there twice, with its
time twice: that is what Qwen3-VL makes of an odd number anyway.

The template that lerobot-topreward serve-args prints ends with the question, so that the model
continues the user's own sentence. Every answer brings the token ids of its prompt, which must be
those that the built-in scorer reads.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip
from lerobot_topreward.vlm.images import resize, resolution
from lerobot_topreward.vlm.layout import BlockShape
from lerobot_topreward.vlm.loading import Prompting
from lerobot_topreward.vlm.prompts import question
from lerobot_topreward.vlm.server.answers import Question, Reading, first_token
from lerobot_topreward.vlm.server.images import encode_png

_SHOWN = 8  # tokens of a difference
START = "start the server with what lerobot-topreward serve-args prints"


class ExactMode:
    """Requests whose answers are the built-in scorer's."""

    def __init__(self, prompting: Prompting, *, model: str, max_pixels: int | None) -> None:
        """Prepare to ask.

        Args:
            prompting: the checkpoint's processor and the text before the video.
            model: its name on the server.
            max_pixels: per image; the checkpoint's own budget if None.

        Raises:
            UserError: vLLM would show this checkpoint other colors.
        """
        self._prompting = prompting
        self._model = model
        self._max_pixels = max_pixels
        self._lock = threading.Lock()  # tokenizers are not made for several threads
        ours, theirs = prompting.processor.video_processor, prompting.processor.image_processor
        for name in ("image_mean", "image_std"):
            if list(getattr(ours, name)) != list(getattr(theirs, name)):
                raise UserError(
                    f"`server_video=exact`: vLLM normalizes videos by {name} of the image processor, "
                    f"{getattr(theirs, name)}, and this checkpoint's video processor has "
                    f"{getattr(ours, name)}; make them equal in preprocessor_config.json or "
                    "processor_config.json here and on the server"
                )

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which a clip is shown; see `SizedScorer.shown_size`."""
        processor = self._prompting.processor.video_processor
        return resolution(processor, clip, max_pixels=self._max_pixels)

    def questions(
        self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]
    ) -> list[Question]:
        """One request per prefix and instruction, prefix by prefix.

        Raises:
            EpisodeError: the images cannot be shown.
        """
        size = self.shown_size(clip)
        shape = BlockShape.of(size, self._prompting.processor)
        used = sorted(set(clip.shown[: max(prefixes)].tolist()))
        images = resize(
            self._prompting.processor.video_processor,
            clip.frames[used],
            size=size,
            device=torch.device("cpu"),
        )
        pngs = {
            index: encode_png(image.permute(1, 2, 0).numpy())
            for index, image in zip(used, images, strict=True)
        }
        frames = [pngs[index] for index in clip.shown[: max(prefixes)].tolist()]
        texts = [question(instruction) for instruction in instructions]
        asked = self._ids(texts)
        return [
            self._question(clip, frames, shown, text, self._blocks(clip, shown, shape) + ids)
            for shown in prefixes
            for text, ids in zip(texts, asked, strict=True)
        ]

    def _question(
        self, clip: Clip, frames: Sequence[str], shown: int, text: str, expected: list[int]
    ) -> Question:
        order = [*range(shown), *([shown - 1] if shown % 2 else [])]

        def make() -> bytes:
            video = ",".join(frames[i] for i in order)
            url = f"data:video/jpeg;base64,{video}"
            content = [
                {"type": "video_url", "video_url": {"url": url}},
                {"type": "text", "text": text},
            ]
            body = {
                "model": self._model,
                "messages": [{"role": "user", "content": content}],
                "media_io_kwargs": {
                    "video": {
                        "num_frames": -1,
                        "fps": float(clip.fps),
                        "frames_indices": [int(clip.frame_indices[i]) for i in order],
                        # vLLM refuses fewer than are sent, and the last one may be sent twice.
                        "total_num_frames": max(int(clip.segment.length), len(order)),
                    }
                },
                "mm_processor_kwargs": {"do_resize": False},  # they have their size
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "logprob_token_ids": list(self._prompting.answers),
                "return_tokens_as_token_ids": True,
                "return_token_ids": True,
                "add_generation_prompt": False,
            }
            return json.dumps(body).encode()

        def read(answer: Mapping[str, Any]) -> Reading:
            self._check_prompt(answer, expected)
            values = dict(first_token(answer))
            found = [values.get(f"token_id:{token}") for token in self._prompting.answers]
            if found[0] is None or found[1] is None:
                raise EpisodeError(
                    "the server's answer lacks the log-probabilities of True and False, which "
                    "logprob_token_ids asks for; vLLM has it since 0.26"
                )
            return Reading(found[0], found[1])

        return Question(make, read)

    def _blocks(self, clip: Clip, shown: int, shape: BlockShape) -> list[int]:
        """Token ids of a prefix's video and what precedes it."""
        times = clip.frame_indices[:shown] / clip.fps
        pairs = [(times[i] + times[min(i + 1, shown - 1)]) / 2 for i in range(0, shown, 2)]
        texts = [f"<{time:.1f} seconds>" for time in pairs]
        image = [shape.vision_start, *[shape.video] * (shape.rows * shape.columns)]
        image.append(shape.vision_end)
        headers = self._ids([self._prompting.prologue + texts[0], *texts[1:]])
        return [token for header in headers for token in (*header, *image)]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            tokenizer = self._prompting.processor.tokenizer
            return tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _check_prompt(self, answer: Mapping[str, Any], expected: list[int]) -> None:
        """Refuse an answer to another prompt than the built-in scorer's."""
        got = answer.get("prompt_token_ids")
        if got == expected:
            return
        if not isinstance(got, list) or not all(type(token) is int for token in got):
            raise EpisodeError(
                "the server's answer lacks the token ids of its prompt, which return_token_ids asks "
                "for; take vLLM 0.27 or newer, or `server_video=images`"
            )
        place = next(
            i for i, (a, b) in enumerate(zip_longest(expected, got, fillvalue=-1)) if a != b
        )
        ours, theirs = self._show(expected[place:]), self._show(got[place:])
        wrapped = (
            got[place : place + 1] == [self._prompting.processor.vision_start_token_id]
            and got[place + 1 :][:_SHOWN] == expected[place:][:_SHOWN]
        )
        why = "its template keeps a wrapper around the video; " if wrapped else ""
        raise EpisodeError(
            f"the server made another prompt: token {place} must be the first of {ours}, got "
            f"{theirs} ({len(expected)} tokens, got {len(got)}); {why}{START}, and let `vlm` be the "
            "checkpoint that it serves"
        )

    def _show(self, tokens: Sequence[int]) -> str:
        known = len(self._prompting.processor.tokenizer)
        few = [token for token in tokens[:_SHOWN] if 0 <= token < known]
        with self._lock:
            text = self._prompting.processor.tokenizer.decode(few)
        return repr(text.replace("`", "'")) if few else "nothing"
