"""Where every token of a video and of the questions about it stands. Pure: no model, no weights.

Qwen3-VL writes a video as blocks of two images: ``<{t:.1f} seconds>``, vision start, the image
tokens, vision end. What a block is depends only on what precedes it (its time is its own, vision
attention stays inside it, mRoPE positions count on from the previous token). So growing prefixes
of a video begin with the same blocks, the shared prefix, which runs through the model once.

What a prefix has of its own is its branch: for an odd number of images one more block that shows
the last image twice, then the question, once per instruction. With the blocks 0-1 and 2-3 shared,
the prefixes of 3 and 4 images and two instructions pack as

    shared prefix        packed branches
    [0-1] [2-3]          [2-2] [question A] [question B] | [question A] [question B]
                          3 images, sees [0-1]              4 images, sees [0-1] [2-3]

A mask keeps each branch from seeing the others, and each question from seeing the other question;
`pack` has its rules. Positions count on from what a token sees, so a packed question has the
positions that it would have alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A run of tokens."""

    ids: Int64[Tensor, " n"]
    positions: Int64[Tensor, "3 n"]  # mRoPE: time, row, column
    visual: Bool[Tensor, " n"]  # image tokens, whose embeddings come from the vision tower

    def __len__(self) -> int:
        """How many tokens."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The blocks that prefixes share; entry b of a tuple speaks of the first b blocks."""

    tokens: Tokens
    ends: tuple[int, ...]  # how many tokens they are
    nexts: tuple[int, ...]  # the position that follows them


@dataclass(frozen=True, slots=True)
class Branch:
    """What one prefix has of its own."""

    shared: int  # tokens of the shared prefix that it sees
    block: Tokens  # that shows the last of an odd number of images twice; empty for an even number
    questions: tuple[Tokens, ...]  # one per instruction


@dataclass(frozen=True, slots=True)
class Packed:
    """Branches of several prefixes in one sequence, told apart by a mask."""

    tokens: Tokens
    shared: int  # tokens of the shared prefix that some branch sees
    mask: Bool[Tensor, "n shared_and_n"]  # what each token sees, of the shared prefix and of these
    answers: Int64[Tensor, "prefixes instructions"]  # where the answers are predicted


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The tokens around and inside a block of one video."""

    rows: int  # image tokens, after the vision tower's merging
    columns: int
    vision_start: int  # token ids
    video: int
    vision_end: int

    @classmethod
    def of(cls, size: tuple[int, int], processor: Any) -> "BlockShape":
        """The block of a video that is shown at this height and width, by a Qwen3VLProcessor."""
        cell = int(processor.video_processor.patch_size) * int(processor.video_processor.merge_size)
        return cls(
            rows=size[0] // cell,
            columns=size[1] // cell,
            vision_start=processor.vision_start_token_id,
            video=processor.video_token_id,
            vision_end=processor.vision_end_token_id,
        )


def place_text(ids: Sequence[int], *, start: int) -> Tokens:
    """Text counts one position a token."""
    positions = torch.arange(start, start + len(ids)).expand(3, -1)
    return Tokens(
        torch.tensor(ids, dtype=torch.long), positions, torch.zeros(len(ids), dtype=torch.bool)
    )


def place_block(header: Sequence[int], shape: BlockShape, *, start: int) -> Tokens:
    """A block: its header, then a grid whose positions share a time and differ by row and column.

    As ``Qwen3VLModel.get_rope_index`` places it.
    """
    head = place_text([*header, shape.vision_start], start=start)
    here = start + len(header) + 1
    rows = torch.arange(shape.rows).repeat_interleave(shape.columns)
    columns = torch.arange(shape.columns).repeat(shape.rows)
    count = shape.rows * shape.columns
    grid = Tokens(
        torch.full((count,), shape.video),
        here + torch.stack([torch.zeros_like(rows), rows, columns]),
        torch.ones(count, dtype=torch.bool),
    )
    tail = place_text([shape.vision_end], start=here + max(shape.rows, shape.columns))
    return join([head, grid, tail])


def join(runs: Sequence[Tokens]) -> Tokens:
    """Put runs one after another."""
    if not runs:
        return place_text([], start=0)
    return Tokens(
        torch.cat([run.ids for run in runs]),
        torch.cat([run.positions for run in runs], dim=1),
        torch.cat([run.visual for run in runs]),
    )


def place_shared(headers: Sequence[Sequence[int]], shape: BlockShape) -> SharedPrefix:
    """Place the blocks that prefixes share, one per header."""
    blocks, ends, nexts = [], [0], [0]
    for header in headers:
        block = place_block(header, shape, start=nexts[-1])
        blocks.append(block)
        ends.append(ends[-1] + len(block))
        nexts.append(int(block.positions[0, -1]) + 1)
    return SharedPrefix(join(blocks), tuple(ends), tuple(nexts))


def place_branch(
    shown: int,
    questions: Sequence[Sequence[int]],
    odd_header: Sequence[int],
    shared: SharedPrefix,
    shape: BlockShape,
) -> Branch:
    """Place what one prefix of `shown` images has of its own.

    `odd_header` is of the block for its last image, unused where `shown` is even.
    """
    whole, odd = divmod(shown, 2)
    start, block = shared.nexts[whole], join([])
    if odd:
        block = place_block(odd_header, shape, start=start)
        start = int(block.positions[0, -1]) + 1
    # All questions begin at the same position: each is read as if the others were not there.
    texts = tuple(place_text(ids, start=start) for ids in questions)
    return Branch(shared.ends[whole], block, texts)


def pack(branches: Sequence[Branch], *, device: torch.device | None = None) -> Packed:
    """Pack branches into one sequence, and say which token sees which.

    Args:
        branches: at least one, each with the same number of questions.
        device: of the mask, which is large; by default the CPU.
    """
    runs = [run for branch in branches for run in (branch.block, *branch.questions)]
    tokens, shared = join(runs), max(branch.shared for branch in branches)
    mask = torch.zeros(len(tokens), shared + len(tokens), dtype=torch.bool, device=device)
    own = mask[:, shared:]  # a view: what the packed tokens see of each other
    answers, end = [], 0
    for branch in branches:
        start, end = end, end + len(branch.block)
        block = slice(start, end)
        # A block sees itself, each token what precedes it.
        own[block, block] = _causal(len(branch.block), device)
        for question in branch.questions:
            rows = slice(end, end + len(question))
            end = rows.stop
            # A question sees the block of its own branch,
            own[rows, block] = True
            # and itself, each token what precedes it; no other question, no other branch.
            own[rows, rows] = _causal(len(question), device)
            # The last token of a question predicts the answer.
            answers.append(end - 1)
        # All of a branch sees the blocks that its prefix begins with, and no later ones.
        mask[start:end, : branch.shared] = True
    return Packed(tokens, shared, mask, torch.tensor(answers).view(len(branches), -1))


def _causal(n: int, device: torch.device | None) -> Bool[Tensor, "n n"]:
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def chunks(sizes: Sequence[int], *, budget: int) -> Iterator[tuple[int, int]]:
    """Split pieces into runs [first, last) that fit a budget of tokens, at least one piece each."""
    first, used = 0, 0
    for i, size in enumerate(sizes):
        if i > first and used + size > budget:
            yield first, i
            first, used = i, 0
        used += size
    if sizes:
        yield first, len(sizes)


def causal_mask(*, past: int, new: int, device: torch.device) -> Bool[Tensor, "new past_and_new"]:
    """Every new token sees the past, itself and the new ones before it."""
    columns = torch.arange(past + new, device=device)
    return columns[None, :] <= torch.arange(past, past + new, device=device)[:, None]
