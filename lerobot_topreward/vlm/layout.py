"""Where every token of a video and of the questions about it stands. Pure: no model, no weights.

Qwen3-VL writes a video as blocks of two images: ``<{t:.1f} seconds>``, vision start, the image
tokens, vision end. What a block is depends only on what precedes it (its time is its own, vision
attention stays inside it, mRoPE positions count on from the previous token), so growing prefixes
share their common blocks: the stem. A prefix then hangs on the stem as a branch: for an odd number
of images one more block that shows the last image twice, and the question once per instruction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A run of tokens."""

    ids: Int64[Tensor, " n"]
    positions: Int64[Tensor, "3 n"]  # mRoPE: time, row, column
    visual: Bool[Tensor, " n"]  # image tokens, whose embeddings come from the vision tower


@dataclass(frozen=True, slots=True)
class Stem:
    """The blocks that prefixes share; entry b of a tuple speaks of its first b blocks."""

    tokens: Tokens
    ends: tuple[int, ...]  # how many tokens they are
    nexts: tuple[int, ...]  # the position that follows them


@dataclass(frozen=True, slots=True)
class Packed:
    """Branches of several prefixes in one sequence, told apart by a mask."""

    tokens: Tokens
    context: Int64[Tensor, " n"]  # stem tokens that this token sees
    prefix: Int64[Tensor, " n"]  # which prefix it belongs to
    leaf: Int64[Tensor, " n"]  # which question, or -1 in a block that its prefix's questions share
    asks: Int64[Tensor, "prefixes instructions"]  # where the answers are predicted
    doubled: tuple[int, ...]  # images of the odd prefixes' blocks, in the order of their tokens


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The tokens around and inside a block of one video."""

    rows: int  # image tokens, after the vision tower's merging
    columns: int
    vision_start: int  # token ids
    video: int
    vision_end: int


def place_text(ids: Sequence[int], *, start: int) -> Tokens:
    """Text counts one position a token."""
    positions = torch.arange(start, start + len(ids)).expand(3, -1)
    return Tokens(torch.tensor(ids), positions, torch.zeros(len(ids), dtype=torch.bool))


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
        torch.cat([run.ids for run in runs]).long(),
        torch.cat([run.positions for run in runs], dim=1),
        torch.cat([run.visual for run in runs]),
    )


def place_stem(headers: Sequence[Sequence[int]], shape: BlockShape) -> Stem:
    """Place the blocks that prefixes share, one per header."""
    blocks, ends, nexts = [], [0], [0]
    for header in headers:
        block = place_block(header, shape, start=nexts[-1])
        blocks.append(block)
        ends.append(ends[-1] + len(block.ids))
        nexts.append(int(block.positions[0, -1]) + 1)
    return Stem(join(blocks), tuple(ends), tuple(nexts))


def pack(
    prefixes: Sequence[int],
    questions: Sequence[Sequence[int]],
    odd_headers: Sequence[Sequence[int]],
    stem: Stem,
    shape: BlockShape,
) -> Packed:
    """Pack the branches of some prefixes into one sequence.

    Args:
        prefixes: images that each prefix shows, >= 1.
        questions: the token ids of each instruction's question.
        odd_headers: for each prefix, the header of its doubled block (unused where it is even).
        stem: the blocks that they share.
        shape: of a block.
    """
    runs, marks, asks, doubled, length = [], [], [], [], 0
    for number, (shown, header) in enumerate(zip(prefixes, odd_headers, strict=True)):
        whole, odd = divmod(shown, 2)
        start, branch = stem.nexts[whole], []
        if odd:
            branch.append((place_block(header, shape, start=start), -1))
            start = int(branch[0][0].positions[0, -1]) + 1
            doubled.append(shown - 1)
        branch += [(place_text(ids, start=start), leaf) for leaf, ids in enumerate(questions)]
        asks.append([])
        for run, leaf in branch:
            length += len(run.ids)
            marks.append(
                torch.tensor([[stem.ends[whole]], [number], [leaf]]).expand(-1, len(run.ids))
            )
            runs.append(run)
            if leaf >= 0:
                asks[-1].append(length - 1)
    context, prefix, leaf = torch.cat(marks, dim=1)
    return Packed(join(runs), context, prefix, leaf, torch.tensor(asks), tuple(doubled))


def chunks(
    prefixes: Sequence[int], *, branch_tokens: int, block_tokens: int, budget: int
) -> Iterator[tuple[int, int]]:
    """Split prefixes into runs [first, last) whose branches fit a budget of tokens, at least one."""
    first, used = 0, 0
    for i, shown in enumerate(prefixes):
        need = branch_tokens + (block_tokens if shown % 2 else 0)
        if i > first and used + need > budget:
            yield first, i
            first, used = i, 0
        used += need
    if prefixes:
        yield first, len(prefixes)


def tree_mask(packed: Packed, *, stem_tokens: int) -> Bool[Tensor, "n stem_and_n"]:
    """Who sees whom: its part of the stem, the block of its own prefix, and its own past."""
    n = len(packed.prefix)
    order = torch.arange(n, device=packed.prefix.device)
    same = packed.prefix[:, None] == packed.prefix[None, :]
    shared = (packed.leaf[None, :] == -1) | (packed.leaf[:, None] == packed.leaf[None, :])
    own = same & shared & (order[None, :] <= order[:, None])
    stem = torch.arange(stem_tokens, device=order.device)[None, :] < packed.context[:, None]
    return torch.cat([stem, own], dim=1)


def causal_mask(*, past: int, new: int, device: torch.device) -> Bool[Tensor, "new past_and_new"]:
    """Every new token sees the past, itself and the new ones before it."""
    columns = torch.arange(past + new, device=device)
    return columns[None, :] <= torch.arange(past, past + new, device=device)[:, None]
