"""From labelled progress to the weight of every frame: the formulas, on whole arrays at once.

`weigh` puts them together for a dataset. A run is a range of rows [start, stop) whose frames
follow each other under one instruction; runs follow each other without gap or overlap.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

# Of progress, 0..1. Labels are float32, so differences of equal differences are not quite zero;
# dividing by their spread would make weights out of rounding errors.
_ROUNDING = 1e-6
_SUCCESS_PREFIXES = 3


def chunk_gain(
    progress: Float[np.ndarray, " frames"],
    bounds: Int64[np.ndarray, "runs 2"],
    *,
    horizon: int,
    tail: Literal["slide", "shrink"] = "slide",
) -> Float[np.ndarray, " frames"]:
    """Progress gained over the next `horizon` frames, within each run.

    "slide" is `lerobot_topreward.rewards.advantage`, run by run: at the end of a run the window
    moves back, so that the last frames are judged over as long a span as any others. "shrink"
    clamps it to the last frame, as LeRobot's RA-BC does (``lerobot/rewards/sarm/rabc.py``).

    Args:
        progress: 0..1 for each frame.
        bounds: [start, stop) rows of each run; together all rows.
        horizon: frames, >= 1.
        tail: what the window does at the end of a run.

    Returns:
        Progress gained, -1..1 for each frame, in the precision of `progress`.

    Raises:
        ValueError: horizon < 1, or the runs do not cover the rows.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1 frame; got {horizon}")
    lengths = _lengths(bounds, rows=len(progress))
    frame = np.arange(len(progress))
    last = np.repeat(bounds[:, 1] - 1, lengths)
    if tail == "shrink":
        return progress[np.minimum(frame + horizon, last)] - progress
    span = np.repeat(np.minimum(horizon, lengths - 1), lengths)
    start = np.minimum(frame, last - span)
    return progress[start + span] - progress[start]


def prefix_gain(
    progress: Float[np.ndarray, " frames"],
    bounds: Int64[np.ndarray, "runs 2"],
    *,
    prefix_end: Bool[np.ndarray, " frames"],
) -> Float[np.ndarray, " frames"]:
    """Progress gained between the two scored prefixes that a frame's action lies between.

    The actions of the frames e(k-1) to e(k) - 1 lead from the last frame of prefix k - 1 to that
    of prefix k; each of them gets s(k) - s(k-1) of arXiv 2602.19313, Eq. 3. Frames before the
    first prefix get the first increment, those from the last prefix on the last one, and a run
    with a single prefix gains nothing.

    Args:
        progress: 0..1 for each frame.
        bounds: [start, stop) rows of each run; together all rows.
        prefix_end: true on the last frame of every scored prefix; at least one in each run.

    Returns:
        Progress gained, -1..1 for each frame, in the precision of `progress`.

    Raises:
        ValueError: a run has no scored prefix, or the runs do not cover the rows.
    """
    lengths = _lengths(bounds, rows=len(progress))
    ends = np.flatnonzero(prefix_end)
    first, stop = np.searchsorted(ends, bounds.T)
    if bad := np.flatnonzero(first == stop).tolist():
        raise ValueError(f"every run must have a scored prefix; run {bad[0]} has none")
    following = np.cumsum(prefix_end)  # of `ends`, the one after this frame
    upper = np.minimum(
        np.maximum(following, np.repeat(first + 1, lengths)), np.repeat(stop - 1, lengths)
    )
    lower = np.maximum(upper - 1, np.repeat(first, lengths))
    return progress[ends[upper]] - progress[ends[lower]]


def _lengths(bounds: Int64[np.ndarray, "runs 2"], *, rows: int) -> Int64[np.ndarray, " runs"]:
    edges = np.concatenate([[0], bounds[:, 1]])
    if not np.array_equal(edges[:-1], bounds[:, 0]) or edges[-1] != rows:
        raise ValueError(f"the runs must cover rows 0..{rows} without gap or overlap; got {bounds}")
    lengths = np.diff(edges)
    if (lengths < 1).any():
        raise ValueError("a run must have a frame")
    return lengths


def success_score(
    log_prob: Float[np.ndarray, " frames"],
    bounds: Int64[np.ndarray, "episodes 2"],
    *,
    prefix_end: Bool[np.ndarray, " frames"] | None,
    window: int,
) -> Float64[np.ndarray, " episodes"]:
    """How sure the VLM is of an episode's success: log P(True) at its end.

    The mean over the last three scored prefixes (arXiv 2602.19313, section 5.2); over the last
    `window` frames in an episode of which the prefixes are not known.

    Args:
        log_prob: log P(True) of each frame, nats, <= 0.
        bounds: [start, stop) rows of each episode; together all rows.
        prefix_end: true on the last frame of every scored prefix, where known.
        window: frames, >= 1.

    Returns:
        One score per episode, nats, <= 0.
    """
    start, stop = bounds.T
    every = np.arange(len(log_prob))
    score = _mean_of_last(log_prob, every, start, stop, count=window)
    if prefix_end is None:
        return score
    ends = np.flatnonzero(prefix_end)
    first, after = np.searchsorted(ends, bounds.T)
    known = first < after
    score[known] = _mean_of_last(
        log_prob, ends, first[known], after[known], count=_SUCCESS_PREFIXES
    )
    return score


def _mean_of_last(
    values: Float[np.ndarray, " frames"],
    rows: Int64[np.ndarray, " chosen"],
    start: Int64[np.ndarray, " episodes"],
    stop: Int64[np.ndarray, " episodes"],
    *,
    count: int,
) -> Float64[np.ndarray, " episodes"]:
    """Mean of the last `count` chosen values, or of as many as there are, of each episode."""
    total = np.concatenate([[0.0], np.cumsum(values[rows], dtype=np.float64)])
    start = np.maximum(start, stop - count)
    return (total[stop] - total[start]) / (stop - start)


def awr(
    advantage: Float[np.ndarray, " frames"],
    *,
    beta: float,
    w_min: float,
    w_max: float,
    groups: Int64[np.ndarray, " frames"] | None = None,
) -> Float32[np.ndarray, " frames"]:
    """Advantage-weighted regression: ``clip(exp(z / beta), w_min, w_max)``.

    z is the advantage minus its mean, divided by its standard deviation, so that beta means the
    same whatever the span and the task. Where the advantage is constant, z = 0. Source: the
    weight ``exp(A / beta)`` with an upper limit is that of Peng et al., Advantage-Weighted
    Regression, https://arxiv.org/abs/1910.00177; their A is a return minus a learned value.

    Args:
        advantage: progress gained, -1..1 for each frame.
        beta: temperature in standard deviations, > 0; the smaller, the more the best frames count.
        w_min: smallest weight, >= 0.
        w_max: largest weight, >= w_min.
        groups: non-negative numbers; frames with the same one are standardised together (the
            task), all of them if None.

    Returns:
        Weights, w_min..w_max for each frame.
    """
    exponent = _standardize(advantage.astype(np.float64), groups) / beta
    # exp(700) is still finite, and far beyond any sensible limit.
    return np.clip(np.exp(np.minimum(exponent, 700.0)), w_min, w_max).astype(np.float32)


def _standardize(
    values: Float64[np.ndarray, " frames"], groups: Int64[np.ndarray, " frames"] | None
) -> Float64[np.ndarray, " frames"]:
    if groups is None:
        groups = np.zeros(len(values), dtype=np.int64)
    count = np.maximum(np.bincount(groups), 1)
    centred = values - (np.bincount(groups, weights=values) / count)[groups]
    spread = np.sqrt(np.bincount(groups, weights=centred**2) / count)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > _ROUNDING)
    return centred * scale[groups]


def top_awr(
    increment: Float[np.ndarray, " frames"],
    *,
    tau: float,
    delta_max: float,
    centre: Literal["none", "increment", "weight"],
) -> Float32[np.ndarray, " frames"]:
    """TOPReward's weights: ``clip(tau exp(increment), 0, delta_max)``.

    Source: arXiv 2602.19313, Eq. 3. Its section 5.3 turns values into advantages "by subtracting
    the dataset mean" without saying of what. "increment" subtracts the mean increment before the
    exponential, which makes an advantage of it as AWR wants; "weight" subtracts the mean of
    ``tau exp(increment)`` after it, the one reading under which the clip at 0 can act; "none" is
    Eq. 3 as printed (and what is left if the mean of the progress itself is subtracted: it
    cancels).

    Args:
        increment: progress gained over an explicit span, -1..1 for each frame.
        tau: factor before the exponential, > 0.
        delta_max: largest weight, > 0.
        centre: which mean over the frames is subtracted.

    Returns:
        Weights, 0..delta_max for each frame.
    """
    increment = increment.astype(np.float64)
    if centre == "increment":
        increment -= increment.mean()
    value = tau * np.exp(increment)
    if centre == "weight":
        value = value - value.mean() if np.ptp(increment) > _ROUNDING else np.zeros_like(value)
    return np.clip(value, 0.0, delta_max).astype(np.float32)


def rabc(
    gain: Float[np.ndarray, " frames"], *, kappa: float, epsilon: float
) -> Float32[np.ndarray, " frames"]:
    """Reward-aligned behavior cloning: nothing for lost progress, all for more than `kappa`.

    ``w~ = clip((d - (mu - 2 sigma)) / (4 sigma + epsilon), 0, 1)``; w = 1 if d > kappa, w~ if
    0 <= d <= kappa, else 0; with mu at least 0 and sigma at least epsilon. Source: SARM
    (https://arxiv.org/abs/2509.25358), Eq. 8-9, as in LeRobot's ``RABCWeights``: the statistics
    in float64, the weights in float32.

    Args:
        gain: d, progress gained over the action chunk, -1..1 for each frame; in float64, to equal
            LeRobot's where it hardly varies.
        kappa: progress gained that earns the full weight, 0..1.
        epsilon: keeps the division finite, > 0.

    Returns:
        Weights, 0..1 for each frame.
    """
    mean = max(float(np.mean(gain, dtype=np.float64)), 0.0)
    spread = max(float(np.std(gain, dtype=np.float64)), epsilon)
    delta = gain.astype(np.float32)
    soft = np.clip((delta - (mean - 2 * spread)) / (4 * spread + epsilon), 0.0, 1.0)
    return np.where(delta > kappa, np.float32(1), np.where(delta >= 0, soft, np.float32(0)))


def filter_weights(
    score: Float[np.ndarray, " scores"],
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    lengths: Int64[np.ndarray, " scores"] | None = None,
) -> Float32[np.ndarray, " frames"]:
    """1 where the score passes, else 0: filtered behavior cloning.

    A score passes at or above the threshold, or the quantile of the scores. With one score
    per episode the quantile is one over episodes, so that long ones do not count more.

    Args:
        score: one per frame, or one per episode; of any unit.
        threshold: in the unit of the score.
        quantile: 0..1; 0.25 drops the worst quarter.
        lengths: frames of each episode, if there is one score per episode.

    Returns:
        Weights, 0 or 1 for each frame.

    Raises:
        ValueError: not exactly one of threshold and quantile is given.
    """
    if threshold is not None and quantile is None:
        passed = score >= threshold
    elif threshold is None and quantile is not None:
        values = score.astype(np.float64)
        passed = values >= np.quantile(values, quantile)
    else:
        raise ValueError("exactly one of threshold and quantile must be given")
    return np.repeat(passed.astype(np.float32), 1 if lengths is None else lengths)


def uniform(frames: int) -> Float32[np.ndarray, " frames"]:
    """Ones: plain behavior cloning."""
    return np.ones(frames, dtype=np.float32)


def mean_one(weights: Float[np.ndarray, " frames"]) -> Float32[np.ndarray, " frames"]:
    """Scale weights to a mean of 1, so that they leave the size of the loss as it is.

    Args:
        weights: >= 0, finite, not all zero.

    Returns:
        Weights with mean 1.

    Raises:
        ValueError: the mean is not positive and finite.
    """
    mean = float(np.mean(weights, dtype=np.float64))
    if not 0 < mean < float("inf"):
        raise ValueError(f"the mean of the weights must be > 0 and finite; got {mean}")
    return (weights / mean).astype(np.float32)
