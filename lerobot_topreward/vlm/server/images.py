"""Image mode: any server and any model, a video as images with their times.

What is read are the log-probabilities of the likeliest first tokens, 20 at most with most servers;
llama.cpp returns as many as it is asked for. An answer that is not among them is censored: its
log-probability is below the smallest of those returned, which is stored in its place, as a bound.

Growing prefixes begin with the same images, which a server with a prefix cache, such as vLLM, reads
once. For Qwen3-VL an image equals a block of the video whose two images are the same, at twice
the tokens.
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lerobot_topreward.records import Clip
from lerobot_topreward.vlm.identity import Served
from lerobot_topreward.vlm.prompts import ANSWERS, question
from lerobot_topreward.vlm.server.answers import Question, Reading, first_token

TOP = 20  # as many as OpenAI's API allows, and so most servers
UNCAPPED = 1000  # from a server without that limit; what is less likely is below any real answer
# llama.cpp returns no log-probabilities where it samples the first bytes of a longer character. The
# grammar decides what it samples; the log-probabilities are those of before.
GRAMMAR = 'root ::= " "? ("True" | "False")'


class ImagesMode:
    """Requests that any OpenAI-compatible server with log-probabilities answers."""

    def __init__(self, served: Served, *, max_pixels: int | None) -> None:
        """Prepare to ask.

        Args:
            served: the kind of server, the model's name there, and whether it goes on with the
                question or answers it.
            max_pixels: per image; as they are if None.
        """
        kind = served.server.partition(" ")[0]
        self._options: dict[str, Any] = {
            "model": served.model,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
        }
        if served.template == "paper":
            self._options["add_generation_prompt"] = False
            if kind == "vllm":
                self._options["continue_final_message"] = True
        if kind == "llama.cpp":
            self._options |= {"top_logprobs": UNCAPPED, "grammar": GRAMMAR}
        self._max_pixels = max_pixels

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which images are sent; the server may shrink them further."""
        height, width = clip.frames.shape[1:3]
        scale = 1.0
        if self._max_pixels is not None:
            scale = min(1.0, math.sqrt(self._max_pixels / (height * width)))
        return max(1, int(height * scale)), max(1, int(width * scale))

    def questions(
        self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]
    ) -> list[Question]:
        """One request per prefix and instruction, prefix by prefix."""
        size = self.shown_size(clip)
        shown = clip.shown[: max(prefixes)].tolist()
        pngs = {index: encode_png(_resize(clip.frames[index], size)) for index in set(shown)}
        times = clip.frame_indices / clip.fps
        parts: list[dict[str, Any]] = []
        for index, time in zip(shown, times.tolist(), strict=False):
            url = f"data:image/png;base64,{pngs[index]}"
            parts.append({"type": "text", "text": f"<{time:.1f} seconds>"})
            parts.append({"type": "image_url", "image_url": {"url": url}})
        texts = [question(instruction) for instruction in instructions]
        return [self._question(parts[: 2 * count], text) for count in prefixes for text in texts]

    def _question(self, parts: Sequence[dict[str, Any]], text: str) -> Question:
        def make() -> bytes:
            content = [*parts, {"type": "text", "text": text}]
            messages = [{"role": "user", "content": content}]
            return json.dumps({"messages": messages, **self._options}).encode()

        return Question(make, read_answers)


def read_answers(answer: Mapping[str, Any]) -> Reading:
    """Add up what was returned for each answer, however it is written.

    Raises:
        EpisodeError: there are no log-probabilities.
    """
    returned = dict(first_token(answer))  # a token that stands there twice counts once
    bound = min(returned.values())
    sums = []
    for text in ANSWERS:
        values = [
            value
            for token, value in returned.items()
            if token.strip().casefold() == text.strip().casefold()
        ]
        sums.append(min(float(np.logaddexp.reduce(values)), 0.0) if values else None)
    true, false = sums
    return Reading(
        true=bound if true is None else true,
        false=bound if false is None else false,
        true_censored=true is None,
        false_censored=false is None,
    )


def _resize(
    image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def encode_png(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """Encode an RGB image as it travels: PNG in base64, which loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()
