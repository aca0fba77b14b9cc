"""The packed forward pass with gradients, for teaching tiny checkpoints.

Scoring keeps a cache and meets one clip at a time (see `one_pass`). Teaching wants many short clips
in one forward pass, so here the shared prefix and the branches are one masked sequence and clips are padded to the
longest. The tokens, their positions and who sees whom are the scorer's own, from `layout`.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lerobot_topreward.records import Clip
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.images import block_pixels, resize, resolution
from lerobot_topreward.vlm.layout import (
    BlockShape,
    Tokens,
    causal_mask,
    join,
    pack,
    place_branch,
    place_shared,
)
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.prompts import question

PUPIL = TinyConfig(
    hidden=96,
    intermediate=256,
    layers=4,
    heads=4,
    kv_heads=4,
    head_dim=24,
    vision_hidden=128,
    vision_layers=4,
    vision_heads=4,
    deepstack=(1, 2),
    vocab=640,
)


@dataclass(frozen=True, slots=True)
class Pupil:
    """A tiny checkpoint of 2.2 M parameters that is being taught.

    Two linear readings, thrown away afterwards, are taught beside the answers.
    """

    vlm: Vlm
    pointer: torch.nn.Linear  # says where things are in a block
    rememberer: torch.nn.Linear  # says at the end of a question where things are in the last image

    @classmethod
    def fresh(cls, *, text: str, size: int, places: int, seed: int = 0) -> "Pupil":
        """Build one with random weights, and a tokenizer learnt from this text too.

        Args:
            text: what its tokenizer shall know.
            size: of the images that it will see, pixels, height and width.
            places: numbers that tell where things are in an image.
            seed: of the weights.
        """
        with tempfile.TemporaryDirectory() as folder:
            build_tiny_vlm(Path(folder), config=replace(PUPIL, seed=seed), text=text)
            vlm = load_vlm(VlmConfig(vlm=folder, device="cpu", dtype="float32"))
        video = vlm.processor.video_processor
        tokens = (size // (int(video.patch_size) * int(video.merge_size))) ** 2
        return cls(
            vlm,
            torch.nn.Linear(tokens * PUPIL.hidden, 2 * places),
            torch.nn.Linear(PUPIL.hidden, places),
        )

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is learnt."""
        taught = (self.vlm.model, self.pointer, self.rememberer)
        return [parameter for module in taught for parameter in module.parameters()]

    def save(self, folder: Path) -> None:
        """Write a checkpoint in half precision that any loader of Qwen3-VL reads."""
        self.vlm.model.to(torch.float16).save_pretrained(folder)
        self.vlm.processor.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One clip and its questions as a single masked sequence."""

    tokens: Tokens
    mask: Bool[Tensor, "n n"]  # who sees whom
    asks: Int64[Tensor, " prefixes"]  # where the answers are predicted
    pixels: Float[Tensor, "patches values"]  # of the distinct blocks
    pairs: list[tuple[int, int]]  # the two decoded images of each distinct block
    blocks: Int64[Tensor, " blocks"]  # for each block in the sequence, which distinct one


@dataclass(frozen=True, slots=True)
class Watched:
    """What a pupil makes of some clips, with gradients."""

    answers: list[Float[Tensor, "prefixes 2"]]  # of each clip: log P(True), log P(False), nats
    known: Float[Tensor, "questions hidden"]  # where each answer is predicted, clip after clip
    seen: Float[Tensor, "blocks features"]  # what the vision tower says of every distinct block
    shown: list[tuple[int, int, int]]  # of every distinct block: the clip, its two decoded images


def watch(vlm: Vlm, clips: Sequence[Clip], prefixes: Sequence[Sequence[int]]) -> Watched:
    """Show clips and ask about their prefixes, with gradients.

    Args:
        vlm: the checkpoint; its parameters receive the gradients.
        clips: all at one resolution; each is asked about its own instruction.
        prefixes: for each clip, how many images each of its prefixes shows, ascending.
    """
    sequences = [_sequence(vlm, clip, asked) for clip, asked in zip(clips, prefixes, strict=True)]
    features, deepstack = _encode(vlm, sequences)
    hidden = _forward(vlm, sequences, features, deepstack)
    asked = torch.cat([hidden[i, one.asks] for i, one in enumerate(sequences)])
    answers = torch.log_softmax(vlm.model.lm_head(asked).float(), dim=-1)[:, list(vlm.answers)]
    return Watched(
        answers=list(answers.split([len(one.asks) for one in sequences])),
        known=asked,
        seen=features.flatten(1),
        shown=[(i, *pair) for i, one in enumerate(sequences) for pair in one.pairs],
    )


def _sequence(vlm: Vlm, clip: Clip, prefixes: Sequence[int]) -> _Sequence:
    processor = vlm.processor.video_processor
    size = resolution(processor, clip, max_pixels=None)
    shape = BlockShape.of(size, vlm.processor)
    times = clip.frame_indices / clip.fps
    whole = max(prefixes) // 2
    pairs = [(2 * block, 2 * block + 1) for block in range(whole)]
    headers = _headers(vlm, [(times[a] + times[b]) / 2 for a, b in pairs])
    odd_headers = _headers(vlm, list(times))
    shared = place_shared(headers, shape)
    asked = _ids(vlm, question(clip.segment.instruction))
    packed = pack([place_branch(n, [asked], odd_headers[n - 1], shared, shape) for n in prefixes])
    rows = causal_mask(past=0, new=packed.shared, device=torch.device("cpu"))
    rows = torch.nn.functional.pad(rows, (0, len(packed.tokens)))
    shown = [
        (int(clip.shown[a]), int(clip.shown[b]))
        for a, b in pairs + [(n - 1, n - 1) for n in prefixes if n % 2]
    ]
    distinct = sorted(set(shown))
    images = resize(processor, clip.frames, size=size, device=vlm.device)
    return _Sequence(
        tokens=join([shared.tokens, packed.tokens]),
        mask=torch.cat([rows, packed.mask]),
        asks=packed.answers[:, 0] + packed.shared,
        pixels=block_pixels(processor, images, distinct),
        pairs=distinct,
        blocks=torch.tensor([distinct.index(pair) for pair in shown]),
    )


def _ids(vlm: Vlm, text: str) -> list[int]:
    return vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def _headers(vlm: Vlm, times: Sequence[float]) -> list[list[int]]:
    """Token ids of blocks' headers; the first block's begins with what precedes the video."""
    return [
        _ids(vlm, f"{vlm.prologue if i == 0 else ''}<{time:.1f} seconds>")
        for i, time in enumerate(times)
    ]


def _encode(
    vlm: Vlm, sequences: Sequence[_Sequence]
) -> tuple[Float[Tensor, "blocks tokens hidden"], list[Float[Tensor, "blocks tokens hidden"]]]:
    """Vision features of every distinct block of the batch, and those for the first layers."""
    vision = vlm.model.config.vision_config
    pixels = torch.cat([one.pixels for one in sequences]).to(vlm.device)
    tokens = int(sequences[0].tokens.visual.sum()) // len(sequences[0].blocks)
    patches = tokens * vision.spatial_merge_size**2
    blocks, side = len(pixels) // patches, int(patches**0.5)
    grid = torch.tensor([[blocks, side, patches // side]], device=pixels.device)
    out = vlm.model.model.get_video_features(pixels, grid, return_dict=True)
    return torch.cat(list(out.pooler_output)).view(blocks, tokens, -1), [
        level.view(blocks, tokens, -1) for level in out.deepstack_features
    ]


def _forward(
    vlm: Vlm,
    sequences: Sequence[_Sequence],
    features: Float[Tensor, "blocks tokens hidden"],
    deepstack: Sequence[Float[Tensor, "blocks tokens hidden"]],
) -> Float[Tensor, "clips n hidden"]:
    longest = max(len(one.tokens.ids) for one in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    positions = torch.zeros(3, len(sequences), longest, dtype=torch.long)
    visual = torch.zeros(len(sequences), longest, dtype=torch.bool)
    # Padding sees itself, for a row that sees nothing has no softmax.
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(sequences), 1, 1)
    order, blocks = [], 0
    for i, one in enumerate(sequences):
        n = len(one.tokens.ids)
        ids[i, :n], positions[:, i, :n] = one.tokens.ids, one.tokens.positions
        visual[i, :n], mask[i, :n, :n] = one.tokens.visual, one.mask
        order.append(one.blocks + blocks)
        blocks += len(one.pairs)
    visual, places = visual.to(vlm.device), torch.cat(order).to(vlm.device)
    embeds = vlm.model.get_input_embeddings()(ids.to(vlm.device))
    embeds = embeds.masked_scatter(visual[..., None], features[places].to(embeds))
    return vlm.model.model.language_model(
        inputs_embeds=embeds,
        position_ids=positions.to(vlm.device),
        attention_mask=mask[:, None].to(vlm.device),
        use_cache=False,
        visual_pos_masks=visual,
        deepstack_visual_embeds=[level[places].flatten(0, 1) for level in deepstack],
    ).last_hidden_state
