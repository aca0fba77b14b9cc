"""Score every prefix of a clip in one pass, exactly.

The blocks that prefixes share go through the language model once, causally, into a cache of keys
and values; then what each prefix has of its own, its branch, sees its part of that cache. `layout`
says which token stands where and sees which. Nothing is approximated: against one forward per
prefix the difference is floating-point noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from transformers import DynamicCache

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.vlm.images import block_pixels, fit_frame, resize, resolution
from lerobot_topreward.vlm.layout import (
    BlockShape,
    Packed,
    SharedPrefix,
    Tokens,
    causal_mask,
    chunks,
    pack,
    place_branch,
    place_shared,
)
from lerobot_topreward.vlm.loading import Vlm
from lerobot_topreward.vlm.prompts import question

SMALLEST_CHUNK = 128


class SharedCache(DynamicCache):
    """The shared prefix's keys and values, read but never grown, so that chunks leave no trace."""

    def __init__(self, cache: DynamicCache, length: int) -> None:
        """Show the first ``length`` tokens of a cache, without copying them."""
        super().__init__()
        self._shown = [
            (layer.keys[:, :, :length], layer.values[:, :, :length])
            for layer in cast(list[Any], cache.layers)
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the shared prefix followed by the new tokens."""
        keys, values = self._shown[layer_idx]
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


@dataclass(frozen=True, slots=True)
class Shown:
    """Blocks of two images each, ready to be encoded."""

    images: UInt8[Tensor, "decoded 3 height width"]
    pairs: Sequence[tuple[int, int]]  # which of the images each block shows


@dataclass(frozen=True, slots=True)
class _Video:
    """One clip, ready to be encoded block by block."""

    images: UInt8[Tensor, "decoded 3 height width"]
    shown: tuple[int, ...]  # for each image of the clip, which decoded one
    headers: list[list[int]]  # token ids of each block of two images
    odd_headers: list[list[int]]  # of the block that shows image i twice
    shape: BlockShape

    def decoded(self, pairs: Sequence[tuple[int, int]]) -> Shown:
        """Blocks that show pairs of the clip's images."""
        return Shown(self.images, [(self.shown[a], self.shown[b]) for a, b in pairs])


def header(time: float, *, prologue: str) -> str:
    """What stands before a block: its time in seconds, after the prologue if it is the first."""
    return f"{prologue}<{time:.1f} seconds>"


class Display:
    """At which size a checkpoint in this process is shown videos."""

    def __init__(self, vlm: Vlm, *, max_pixels: int | None = None) -> None:
        """Wrap a checkpoint; ``max_pixels`` is per image, by default its own budget for a video."""
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


class OnePassScorer(Display):
    """The built-in scorer: all prefixes and all instructions of a clip in one pass."""

    def __init__(
        self, vlm: Vlm, *, chunk_tokens: int | None = None, max_pixels: int | None = None
    ) -> None:
        """Wrap a checkpoint.

        Args:
            vlm: the checkpoint.
            chunk_tokens: tokens per forward, which bounds peak memory; halved when it runs out.
                By default 1024 on a cpu, where masked attention is paid for, and 4096 elsewhere.
            max_pixels: per image, to trade detail for cost; the checkpoint's own budget if None.
        """
        super().__init__(vlm, max_pixels=max_pixels)
        self.chunk_tokens = chunk_tokens or (1024 if vlm.device.type == "cpu" else 4096)

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip; see `Scorer.score`."""
        return score_within_memory(
            self,
            lambda: self._score(clip, prefixes, instructions),
            failure=f"out of memory with {len(clip.shown)} images even in chunks of "
            f"{SMALLEST_CHUNK} tokens; try `max_pixels`, `sample_fps` or a smaller `vlm`",
        )

    def _score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        video = self._prepare(clip)
        questions = [self.tokenize([question(text)])[0] for text in instructions]
        shared = place_shared(video.headers[: max(prefixes) // 2], video.shape)
        cache = self._prefill(video, shared)
        block_tokens = video.shape.rows * video.shape.columns + 16
        sizes = [sum(map(len, questions)) + block_tokens * (n % 2) for n in prefixes]
        rows = []
        for first, last in chunks(sizes, budget=self.chunk_tokens):
            branches = [
                place_branch(n, questions, video.odd_headers[n - 1], shared, video.shape)
                for n in prefixes[first:last]
            ]
            doubled = [(n - 1, n - 1) for n in prefixes[first:last] if n % 2]
            rows.append(self._answer(video, pack(branches, device=self.vlm.device), doubled, cache))
        answers = torch.cat(rows).transpose(0, 1).cpu().numpy()
        if not np.isfinite(answers).all():
            raise EpisodeError("the model's log-probabilities are not finite; try `dtype=float32`")
        return LogProbs(true=answers[..., 0], false=answers[..., 1])

    def _prepare(self, clip: Clip) -> _Video:
        processor = self.vlm.processor.video_processor
        size = self.shown_size(clip)
        images = resize(processor, clip.frames, size=size, device=self.vlm.device)
        times = clip.frame_indices / clip.fps
        pairs = (times[0 : len(times) - 1 : 2] + times[1::2]) / 2
        return _Video(
            images,
            tuple(int(i) for i in clip.shown),
            self._headers(pairs),
            self._headers(times),
            BlockShape.of(size, self.vlm.processor),
        )

    def _headers(self, times: np.ndarray) -> list[list[int]]:
        """Token ids of blocks' headers; the first block's begins with what precedes the video."""
        texts = [
            header(time, prologue="" if i else self.vlm.prologue) for i, time in enumerate(times)
        ]
        return self.tokenize(texts) if texts else []

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts."""
        return self.vlm.processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _prefill(self, video: _Video, shared: SharedPrefix) -> DynamicCache:
        """Run the shared blocks once, a few blocks at a time, and keep their keys and values."""
        cache = DynamicCache(config=self.vlm.model.config)
        sizes = [end - start for start, end in pairwise(shared.ends)]
        for first, last in chunks(sizes, budget=self.chunk_tokens):
            start, end = shared.ends[first], shared.ends[last]
            tokens = Tokens(
                shared.tokens.ids[start:end],
                shared.tokens.positions[:, start:end],
                shared.tokens.visual[start:end],
            )
            mask = None  # the causal kernel
            if start:
                mask = causal_mask(past=start, new=end - start, device=self.vlm.device)
            pairs = [(2 * block, 2 * block + 1) for block in range(first, last)]
            self.forward(tokens, video.decoded(pairs), mask=mask, cache=cache)
        return cache

    def _answer(
        self,
        video: _Video,
        packed: Packed,
        doubled: Sequence[tuple[int, int]],
        cache: DynamicCache,
    ) -> Float[Tensor, "prefixes instructions 2"]:
        """Log-probabilities of the two answers at the end of every packed question."""
        past = SharedCache(cache, packed.shared) if packed.shared else None
        hidden = self.forward(packed.tokens, video.decoded(doubled), mask=packed.mask, cache=past)
        last = hidden[0, packed.answers.flatten().to(hidden.device)]
        return self.vlm.read_answers(last).view(*packed.answers.shape, 2)

    def forward(
        self,
        tokens: Tokens,
        shown: Shown,
        *,
        mask: Tensor | None,
        cache: DynamicCache | None,
    ) -> Float[Tensor, "1 n hidden"]:
        """The language model over some tokens, with the features of the images among them.

        Args:
            tokens: what is read.
            shown: the blocks among them, in order.
            mask: what each token sees, of the cache and of these; causal if None.
            cache: what was read before.
        """
        device = self.vlm.device
        embeds = self.vlm.model.get_input_embeddings()(tokens.ids.to(device))
        visual = tokens.visual.to(device)
        deepstack = None
        if shown.pairs:
            features, deepstack = self._encode(shown)
            embeds[visual] = features.to(embeds)
        output = self.vlm.model.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=tokens.positions[:, None].to(device),
            attention_mask=None if mask is None else additive(mask, embeds.dtype),
            past_key_values=cache,
            use_cache=cache is not None,
            visual_pos_masks=visual[None] if shown.pairs else None,
            deepstack_visual_embeds=deepstack,
        )
        return output.last_hidden_state

    def _encode(self, shown: Shown) -> tuple[Tensor, list[Tensor]]:
        """Vision features of blocks, in order; a block shown twice is encoded once."""
        unique = sorted(set(shown.pairs))
        processor = self.vlm.processor.video_processor
        pixels = block_pixels(processor, shown.images, unique).to(self.vlm.device)
        cell = int(processor.patch_size)
        height, width = shown.images.shape[-2:]
        grid = torch.tensor([[len(unique), height // cell, width // cell]], device=pixels.device)
        out = self.vlm.model.model.get_video_features(pixels, grid)
        order = torch.tensor([unique.index(pair) for pair in shown.pairs], device=pixels.device)

        def arrange(features: Tensor) -> Tensor:
            blocks = rearrange(
                features, "(block token) hidden -> block token hidden", block=len(unique)
            )
            return rearrange(blocks[order], "block token hidden -> (block token) hidden")

        return arrange(torch.cat(list(out.pooler_output))), [
            arrange(level) for level in out.deepstack_features
        ]


def additive(mask: Bool[Tensor, "n seen"], dtype: torch.dtype) -> Float[Tensor, "1 1 n seen"]:
    """Turn what each token sees into what attention adds, once rather than in every layer."""
    hidden = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, hidden)[None, None]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed, on any device."""
    text = str(error)  # only CUDA has a class of its own for it
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in text
        or "allocate memory" in text
    )


@runtime_checkable
class _Chunked(Protocol):
    """A scorer whose memory is bounded by the tokens of a forward pass."""

    chunk_tokens: int


def score_within_memory(scorer: _Chunked, ask: Callable[[], LogProbs], *, failure: str) -> LogProbs:
    """Score a clip; where memory runs out, in chunks of half as many tokens, and so on.

    Args:
        scorer: its `chunk_tokens` are halved, and restored where even the smallest do not help.
        ask: scores the clip.
        failure: what to say then.

    Raises:
        EpisodeError: it does not fit into memory.
    """
    initial = scorer.chunk_tokens
    with torch.inference_mode():
        while True:
            try:
                return ask()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Out of the handler: the traceback holds the tensors that did not fit.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            scorer.chunk_tokens //= 2
            if scorer.chunk_tokens < SMALLEST_CHUNK:
                scorer.chunk_tokens = initial  # the next episode may be a short one
                raise EpisodeError(failure)
