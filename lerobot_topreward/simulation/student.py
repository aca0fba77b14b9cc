"""The packed forward pass with gradients, for training tiny checkpoints.

Scoring keeps a cache and sees one clip at a time (see `one_pass`). Training wants many short clips
in one forward pass, so here the shared prefix and its branches are one masked sequence and clips
are padded to the longest. The tokens, their positions and the mask are the scorer's own, from
`layout`.
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

STUDENT = TinyConfig(
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
class Student:
    """A tiny checkpoint of 2.2 M parameters in training.

    Two linear probes, thrown away afterwards, are trained beside the answers.
    """

    vlm: Vlm
    block_probe: torch.nn.Linear  # where things are in a block, from its vision features
    answer_probe: torch.nn.Linear  # where they are in a prefix's last image, from its answer state

    @classmethod
    def fresh(cls, *, text: str, size: int, places: int, seed: int = 0) -> "Student":
        """Build a student with random weights, and a tokenizer that knows this text.

        Images have `size` pixels, height and width; `places` numbers tell where things are in one.
        """
        with tempfile.TemporaryDirectory() as folder:
            build_tiny_vlm(Path(folder), config=replace(STUDENT, seed=seed), text=text)
            vlm = load_vlm(VlmConfig(vlm=folder, device="cpu", dtype="float32"))
        video = vlm.processor.video_processor
        tokens = (size // (int(video.patch_size) * int(video.merge_size))) ** 2
        return cls(
            vlm,
            torch.nn.Linear(tokens * STUDENT.hidden, 2 * places),
            torch.nn.Linear(STUDENT.hidden, places),
        )

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        trained = (self.vlm.model, self.block_probe, self.answer_probe)
        return [parameter for module in trained for parameter in module.parameters()]

    def save(self, folder: Path) -> None:
        """Write a checkpoint in half precision that any loader of Qwen3-VL reads."""
        self.vlm.model.to(torch.float16).save_pretrained(folder)
        self.vlm.processor.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One clip and its questions as a single masked sequence."""

    tokens: Tokens
    mask: Bool[Tensor, "n n"]  # row: a token, column: a token that it attends to
    answers: Int64[Tensor, " prefixes"]  # where the answers are predicted
    pixels: Float[Tensor, "patches values"]  # of the distinct blocks
    pairs: list[tuple[int, int]]  # the two decoded images of each distinct block
    blocks: Int64[Tensor, " blocks"]  # for each block in the sequence, which distinct one


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a student makes of some clips, with gradients."""

    log_probs: list[Float[Tensor, "_ 2"]]  # of each clip: log P(True), log P(False), nats
    answer_states: Float[Tensor, "questions hidden"]  # where answers are predicted, clip by clip
    block_features: Float[Tensor, "blocks features"]  # of the vision tower, every distinct block
    blocks: list[tuple[int, int, int]]  # of every distinct block: the clip, its two decoded images


def forward(vlm: Vlm, clips: Sequence[Clip], prefixes: Sequence[Sequence[int]]) -> Outputs:
    """Ask about the prefixes of clips, all at one resolution, with gradients.

    `prefixes` are, for each clip, how many images each of its prefixes shows, ascending.
    """
    sequences = [_pack(vlm, clip, lengths) for clip, lengths in zip(clips, prefixes, strict=True)]

    # The vision tower, over every distinct block of the batch.
    vision = vlm.model.config.vision_config
    pixels = torch.cat([sequence.pixels for sequence in sequences]).to(vlm.device)
    tokens = int(sequences[0].tokens.visual.sum()) // len(sequences[0].blocks)
    patches = tokens * vision.spatial_merge_size**2
    blocks, side = len(pixels) // patches, int(patches**0.5)
    grid = torch.tensor([[blocks, side, patches // side]], device=pixels.device)
    out = vlm.model.model.get_video_features(pixels, grid, return_dict=True)
    features = torch.cat(list(out.pooler_output)).view(blocks, tokens, -1)
    deepstack = [level.view(blocks, tokens, -1) for level in out.deepstack_features]

    # The language model, over the clips padded to the longest.
    longest = max(len(sequence.tokens.ids) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    positions = torch.zeros(3, len(sequences), longest, dtype=torch.long)
    visual = torch.zeros(len(sequences), longest, dtype=torch.bool)
    # Padding attends to itself, for a row of the mask without anything has no softmax.
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(sequences), 1, 1)
    order, before = [], 0
    for i, sequence in enumerate(sequences):
        n = len(sequence.tokens.ids)
        ids[i, :n], positions[:, i, :n] = sequence.tokens.ids, sequence.tokens.positions
        visual[i, :n], mask[i, :n, :n] = sequence.tokens.visual, sequence.mask
        order.append(sequence.blocks + before)
        before += len(sequence.pairs)
    visual, places = visual.to(vlm.device), torch.cat(order).to(vlm.device)
    embeds = vlm.model.get_input_embeddings()(ids.to(vlm.device))
    embeds = embeds.masked_scatter(visual[..., None], features[places].to(embeds))
    hidden = vlm.model.model.language_model(
        inputs_embeds=embeds,
        position_ids=positions.to(vlm.device),
        attention_mask=mask[:, None].to(vlm.device),
        use_cache=False,
        visual_pos_masks=visual,
        deepstack_visual_embeds=[level[places].flatten(0, 1) for level in deepstack],
    ).last_hidden_state

    states = torch.cat([hidden[i, sequence.answers] for i, sequence in enumerate(sequences)])
    log_probs = torch.log_softmax(vlm.model.lm_head(states).float(), dim=-1)[:, list(vlm.answers)]
    return Outputs(
        log_probs=list(log_probs.split([len(sequence.answers) for sequence in sequences])),
        answer_states=states,
        block_features=features.flatten(1),
        blocks=[(i, *pair) for i, sequence in enumerate(sequences) for pair in sequence.pairs],
    )


def _pack(vlm: Vlm, clip: Clip, prefixes: Sequence[int]) -> _Sequence:
    processor = vlm.processor.video_processor
    size = resolution(processor, clip, max_pixels=None)
    shape = BlockShape.of(size, vlm.processor)

    def tokenize(text: str) -> list[int]:
        return vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def headers(times: Sequence[float]) -> list[list[int]]:
        # That of the first block begins with what precedes the video.
        return [
            tokenize(f"{vlm.prologue if i == 0 else ''}<{time:.1f} seconds>")
            for i, time in enumerate(times)
        ]

    times = clip.frame_indices / clip.fps
    pairs = [(2 * block, 2 * block + 1) for block in range(max(prefixes) // 2)]
    shared = place_shared(headers([(times[a] + times[b]) / 2 for a, b in pairs]), shape)
    odd_headers = headers(list(times))
    asked = tokenize(question(clip.segment.instruction))
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
        answers=packed.answers[:, 0] + packed.shared,
        pixels=block_pixels(processor, images, distinct),
        pairs=distinct,
        blocks=torch.tensor([distinct.index(pair) for pair in shown]),
    )
