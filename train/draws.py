"""How often an epoch draws each frame, in proportion to its weight; and what a batch is then worth."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.records import FrameLabels, FrameWeights

_WHOLE = 1e-9  # draws: an expected count that is no farther from a whole number is that number


def may_be_drawn(labels: FrameLabels, *, drop_last: int) -> Bool[np.ndarray, " frames"]:
    """Mark the frames that LeRobot's sampler can draw: all but the last `drop_last` of an episode."""
    chosen = np.ones(len(labels.index), dtype=bool)
    for rows in labels.episodes():
        chosen[max(rows.start, rows.stop - drop_last) : rows.stop] = False
    return chosen


def expected_counts(weights: Float[np.ndarray, " frames"]) -> Float64[np.ndarray, " frames"]:
    """How often a frame is drawn in an epoch on average, which is as long as there are frames.

    Args:
        weights: of the frames that can be drawn, each >= 0.

    Raises:
        UserError: none of them weighs anything, or there is none.
    """
    total = float(np.sum(weights, dtype=np.float64))
    if not total > 0:
        raise UserError(
            f"none of the {len(weights)} frames that can be drawn weighs anything, because "
            "`policy.drop_n_last_frames` leaves the last frames of every episode out; lower it, or "
            "weigh other frames too"
        )
    return weights.astype(np.float64) * (len(weights) / total)


def draw_counts(
    expected: Float64[np.ndarray, " frames"], offset: float
) -> Int64[np.ndarray, " frames"]:
    """Systematic resampling: how often each frame is drawn, its expected count up or down.

    The fractions that whole draws leave over are laid end to end, and one frame is drawn at
    `offset`, 1 + `offset`, 2 + `offset` and so on. A fraction f < 1 is hit once or not at all, and
    once with probability f when the offset is uniform in 0..1. Source: Carpenter, Clifford and
    Fearnhead (1999), Improved particle filter for nonlinear problems,
    https://doi.org/10.1049/ip-rsn:19990255. Neighbors in an episode share their draws, so that an
    epoch covers an episode evenly.

    Args:
        expected: >= 0; their sum is a whole number, but for rounding.
        offset: 0..1, less than 1.

    Returns:
        Counts that sum to that number.
    """
    counts = np.floor(expected + _WHOLE)
    fraction = np.maximum(expected - counts, 0)
    fraction[fraction <= _WHOLE] = 0
    left = round(float(expected.sum() - counts.sum()))
    if left > 0:
        ends = np.cumsum(fraction)
        ends *= left / ends[-1]
        # Rounding must not carry the last draw beyond the end.
        at = np.minimum(np.arange(left) + offset, np.nextafter(ends[-1], 0))
        counts[np.searchsorted(ends, at, side="right")] += 1
    return counts.astype(np.int64)


@dataclass(frozen=True, slots=True)
class BatchWorth:
    """What the batches of a run are worth, if weights scale losses and if they choose frames.

    The variance of a batch's mean gradient, where the gradients of different frames are independent
    and alike in size, is the sum of the squared shares that the frames have in it. Its reciprocal is
    a number of frames of equal weight: what the batch is worth. Both ways have the same expected
    gradient, and over a whole epoch both rest on the effective sample size of the weights (Kish);
    they differ in how evenly it is spread over the batches.
    """

    batch: int  # frames
    by_loss: float  # frames, 0..batch
    by_sampling: float  # frames, 0..batch
    distinct: float  # different frames that an epoch of sampling draws, on average
    frames: int  # that can be drawn


def measure_batches(
    labels: FrameLabels, weights: FrameWeights, *, drop_last: int, batch: int
) -> BatchWorth:
    """Measure what a batch is worth.

    Args:
        labels: of the frames that are trained on.
        weights: of the same frames.
        drop_last: frames at the end of every episode that LeRobot does not draw, >= 0.
        batch: frames in a batch, >= 1.

    Raises:
        UserError: no frame that can be drawn weighs anything.
    """
    known = weights.weight[may_be_drawn(labels, drop_last=drop_last)]
    expected = expected_counts(known)
    return BatchWorth(
        batch=batch,
        by_loss=worth_by_loss(expected, batch=batch),
        by_sampling=worth_by_sampling(expected, batch=batch),
        distinct=float(np.minimum(expected, 1).sum()),
        frames=len(known),
    )


def worth_by_loss(weights: Float64[np.ndarray, " frames"], *, batch: int) -> float:
    """A batch of frames drawn alike, their losses times w: batch * mean(w)^2 / mean(w^2), frames."""
    return batch * float(weights.mean() ** 2 / np.mean(weights**2))


def worth_by_sampling(expected: Float64[np.ndarray, " frames"], *, batch: int) -> float:
    """A batch of frames drawn by their weight, whose losses count alike, frames.

    A frame that is in the batch twice has twice the share. With counts c_i of the n frames of an
    epoch, two places of a batch hold the same frame with probability
    sum of c_i (c_i - 1) / (n (n - 1)).
    """
    frames = len(expected)
    whole = np.floor(expected)
    # c is whole + 1 with probability (expected - whole), else whole.
    pairs = float(np.sum(whole * (whole - 1) + 2 * whole * (expected - whole)))
    same = pairs / (frames * (frames - 1)) if frames > 1 else 1.0
    return batch / (1 + (batch - 1) * same)
