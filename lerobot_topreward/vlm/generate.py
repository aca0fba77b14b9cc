"""Let a checkpoint answer in words, for baselines that ask instead of reading probabilities."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.vlm.loading import Vlm
from lerobot_topreward.vlm.one_pass import is_out_of_memory

Part = str | UInt8[np.ndarray, "height width 3"]


class TextGenerator:
    """Greedy answers of a checkpoint to text and images, through its own chat template."""

    def __init__(self, vlm: Vlm, *, max_pixels: int | None = None) -> None:
        """Wrap a checkpoint; ``max_pixels`` is per image, the checkpoint's own budget if None."""
        self.vlm = vlm
        self.max_pixels = max_pixels

    def generate(self, parts: Sequence[Part], *, max_new_tokens: int) -> str:
        """Answer a question, put as text and images in the order in which they are read.

        Raises:
            EpisodeError: it does not fit into memory, or the images cannot be shown.
        """
        try:
            return self._generate(parts, max_new_tokens)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        images = sum(not isinstance(part, str) for part in parts)
        raise EpisodeError(
            f"out of memory with {images} images; try fewer frames, or a smaller `vlm`"
        )

    def _generate(self, parts: Sequence[Part], max_new_tokens: int) -> str:
        processor, tokenizer = self.vlm.processor, self.vlm.processor.tokenizer
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in parts
        ]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        images = [Image.fromarray(part) for part in parts if not isinstance(part, str)]
        options = {}
        if self.max_pixels is not None:
            least = min(int(processor.image_processor.size["shortest_edge"]), self.max_pixels)
            size = {"shortest_edge": least, "longest_edge": self.max_pixels}
            options = {"images_kwargs": {"size": size}}
        try:
            inputs = processor(
                text=[text], images=images or None, return_tensors="pt", **options
            ).to(self.vlm.device)
        except ValueError as error:  # too narrow for the architecture
            raise EpisodeError(f"the images cannot be shown to this model: {error}") from None
        with torch.inference_mode():
            output = self.vlm.model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                # Qwen's own generation_config.json samples: greedy decoding knows none of these.
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        answer = output[0, inputs["input_ids"].shape[1] :]
        return tokenizer.decode(answer, skip_special_tokens=True)
