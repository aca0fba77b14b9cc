"""A video that grows while it is watched: a question after every new image, for one block's work.

The keys and values of whole blocks stay in memory. A new image makes a block with the one before
it, or, where their number is odd, a block that shows it twice; that block and the question run
through the model together, behind what is kept. Only a whole block of two different images is kept
afterwards, so what is kept is what `one_pass` shares, and each answer is that of its prefix alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from transformers import DynamicCache

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.vlm.identity import VlmConfig, find_folder, identify
from lerobot_topreward.vlm.images import fit_images, resize
from lerobot_topreward.vlm.layout import (
    BlockShape,
    Tokens,
    causal_mask,
    join,
    place_block,
    place_text,
)
from lerobot_topreward.vlm.loading import Vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer, Shown, header, is_out_of_memory
from lerobot_topreward.vlm.prompts import question

LONGEST = 99_999.9  # seconds; memory is set aside for the digits of a time
_Image = tuple[Tensor, float]  # as it is shown, and its time in seconds


class KeptCache(DynamicCache):
    """Keys and values in memory that is set aside once.

    New tokens are written behind the kept ones. They stay only when `kept` is raised over them, so
    a forward pass that fails, or whose tokens are not wanted later, leaves nothing to undo.
    """

    def __init__(self, room: int) -> None:
        """Make room for so many tokens, once the first are written."""
        super().__init__()
        self.kept = 0  # tokens
        self._room = room
        self._written: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the kept tokens followed by the new ones."""
        if layer_idx not in self._written:  # each on the device of its layer
            batch, heads, _, width = key_states.shape
            shape = (batch, heads, self._room, width)
            self._written[layer_idx] = key_states.new_empty(shape), value_states.new_empty(shape)
        keys, values = self._written[layer_idx]
        end = self.kept + key_states.shape[2]
        keys[:, :, self.kept : end] = key_states
        values[:, :, self.kept : end] = value_states
        return keys[:, :, :end], values[:, :, :end]


class GrowingVideo:
    """Images of one episode, shown at one size, and one question about them."""

    def __init__(
        self, scorer: OnePassScorer, instruction: str, *, height: int, width: int, max_images: int
    ) -> None:
        """Show nothing yet.

        Args:
            scorer: whose checkpoint is asked.
            instruction: what may have been completed.
            height: of the images that will come, pixels.
            width: of the images that will come, pixels.
            max_images: how many are kept at most; with it the size at which they are shown.

        Raises:
            EpisodeError: such images cannot be shown to this model.
        """
        self._scorer, self._vlm = scorer, scorer.vlm
        self.size = fit_images(
            self._vlm.processor.video_processor,
            max_images,
            height=height,
            width=width,
            max_pixels=scorer.max_pixels,
        )
        self._shape = BlockShape.of(self.size, self._vlm.processor)
        self._question = scorer.tokenize([question(instruction)])[0]
        # A text has at most as many tokens as bytes.
        longest = len(header(LONGEST, prologue=""))
        block = longest + 2 + self._shape.rows * self._shape.columns
        prologue = len(self._vlm.prologue.encode())
        self._room = prologue + -(-max_images // 2) * block + len(self._question)
        self._cache = KeptCache(self._room)
        self.reset()

    def reset(self) -> None:
        """Forget all images; the memory stays set aside."""
        self._kept: list[_Image] = []
        self._next = 0  # the position that follows the kept blocks
        self._cache.kept = 0

    def __len__(self) -> int:
        """How many images are kept."""
        return len(self._kept)

    @property
    def cache_bytes(self) -> int:
        """Memory that is set aside for keys and values."""
        text = self._vlm.model.config.text_config
        numbers = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
        return self._room * numbers * self._vlm.model.get_input_embeddings().weight.itemsize

    def ask(
        self, frame: UInt8[np.ndarray, "height width 3"], time: float, *, keep: bool
    ) -> tuple[float, float]:
        """Ask about the kept images and one more.

        Args:
            frame: the image.
            time: when it was taken, seconds, after all kept ones and at most `LONGEST`.
            keep: whether it stays for the questions that follow.

        Returns:
            Log-probabilities of the two answers, nats.

        Raises:
            EpisodeError: memory runs out, or an answer is not finite; nothing has changed.
        """
        with _memory_errors(len(self) + 1):
            return self._ask(frame, time, keep=keep)

    def select(self, chosen: Sequence[int]) -> "GrowingVideo":
        """Make a video of some of the images, whose blocks are read anew: others are beside them.

        Args:
            chosen: which of the kept ones, ascending.

        Raises:
            EpisodeError: memory runs out, of which this takes as much again.
        """
        video = copy(self)
        video._cache = KeptCache(self._room)
        video.reset()
        images = [self._kept[i] for i in chosen]
        with _memory_errors(len(images)):
            for number in range(0, len(images) - 1, 2):
                pair = images[number], images[number + 1]
                block = video._place(*pair)
                video._read(block, pair)
                video._keep(block)
        video._kept = images
        return video

    def _ask(self, frame: np.ndarray, time: float, *, keep: bool) -> tuple[float, float]:
        processor = self._vlm.processor.video_processor
        (shown,) = resize(processor, frame[None], size=self.size, device=self._vlm.device)
        image = shown, time
        odd = len(self._kept) % 2
        pair = self._kept[-1] if odd else image, image
        block = self._place(*pair)
        asked = place_text(self._question, start=_after(block))
        hidden = self._read(join([block, asked]), pair)
        answers = self._vlm.read_answers(hidden[0, -1:])[0].cpu()
        if not torch.isfinite(answers).all():
            raise EpisodeError("the model's log-probabilities are not finite; try `dtype=float32`")
        if keep:  # only now, when nothing can fail any more
            self._kept.append(image)
            if odd:
                self._keep(block)
        return float(answers[0]), float(answers[1])

    def _place(self, a: _Image, b: _Image) -> Tokens:
        """Place a block behind the kept ones."""
        prologue = "" if self._next else self._vlm.prologue
        text = header((a[1] + b[1]) / 2, prologue=prologue)
        return place_block(self._scorer.tokenize([text])[0], self._shape, start=self._next)

    def _keep(self, block: Tokens) -> None:
        """Keep a block that was read."""
        self._cache.kept += len(block)
        self._next = _after(block)

    def _read(self, tokens: Tokens, pair: tuple[_Image, _Image]) -> Tensor:
        """The language model over a block, and what follows it, behind the kept ones."""
        cache = self._cache
        mask = causal_mask(past=cache.kept, new=len(tokens), device=self._vlm.device)
        shown = Shown(torch.stack([image for image, _ in pair]), [(0, 1)])
        return self._scorer.forward(tokens, shown, mask=mask, cache=cache)


def _after(tokens: Tokens) -> int:
    """The position that follows some tokens."""
    return int(tokens.positions[0, -1]) + 1


@contextmanager
def _memory_errors(images: int) -> Iterator[None]:
    """Say in one line when so many images do not fit into memory."""
    try:
        with torch.inference_mode():
            yield
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Out of the handler: the traceback holds the tensors that did not fit.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise EpisodeError(
        f"out of memory with {images} images; try fewer `max_images`, `max_pixels` or a smaller "
        "`vlm`"
    )


def loaded_revision(vlm: Vlm) -> str:
    """The revision of a loaded checkpoint, as `identify` pins it."""
    source = vlm.model.name_or_path
    if find_folder(source) is None:
        return str(vlm.model.config._commit_hash)  # transformers' own note of what it loaded
    return identify(VlmConfig(vlm=source, device="cpu")).revision
