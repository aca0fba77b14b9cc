"""What frames gain beyond what is usual: the advantages of `schemes.Awr`.

An advantage is what a frame gains beyond what is usual *where it is* (Peng et al.,
Advantage-Weighted Regression, https://arxiv.org/abs/1910.00177, Eq. 8: a return less a learned
value of the state). Here the state is one number, the progress so far, so the value is a curve that
is fitted to the labels themselves.
"""

import numpy as np
from jaxtyping import Float64, Int64

from lerobot_topreward.train.records import FrameLabels, final_progress, progress_gain

# Of progress, 0..1. Labels are float32, so differences of equal differences are not quite zero;
# dividing by their spread would make weights out of rounding errors.
_ROUNDING = 1e-6
# Of final progress: where all episodes end alike, what is left is the VLM's noise, of which no
# weights are to be made. So it is with labels that are normalized per episode.
LEAST_SPREAD = 0.05
_BINS = 20  # at most
_LEAST_FRAMES = 30  # in a bin
_LEAST_EPISODES = 5  # in a bin: the frames of one episode are too much alike to say what is usual


def gain_beyond_usual(
    labels: FrameLabels,
    group: Int64[np.ndarray, " frames"],
    *,
    horizon: int | None,
    discount: float | None,
) -> Float64[np.ndarray, " frames"]:
    """Subtract from each frame's gain what frames of its group with a like progress gain.

    Args:
        labels: of at least one frame, all of them labeled.
        group: whose frames are compared with each other, as their task.
        horizon: the span of the gain, frames, >= 1; None for the final progress of the run.
        discount: share of its worth that final progress keeps per second until then, 0..1; None: all.
    """
    progress, gain = labels.progress.astype(np.float64), np.empty(len(group))
    before = progress.copy()  # at the start of the span over which a frame is judged
    for rows in labels.runs():
        frames = rows.stop - rows.start
        if horizon is None:
            to_go = np.arange(frames - 1, -1, -1) / labels.fps
            worth = (1.0 if discount is None else discount) ** to_go
            gain[rows] = final_progress(labels, rows) * worth
        else:
            # The last spans of an episode are one and the same: see `rewards.advantage`.
            last = max(0, frames - 1 - horizon)
            before[rows.start + last : rows.stop] = progress[rows.start + last]
    if horizon is not None:
        gain = progress_gain(labels, horizon=horizon).astype(np.float64)
    for which in np.unique(group):
        rows = group == which
        gain[rows] -= fit_usual(
            before[rows], gain[rows], labels.episode_index[rows], rises=horizon is None
        )
    return gain


def fit_usual(
    progress: Float64[np.ndarray, " frames"],
    gain: Float64[np.ndarray, " frames"],
    episode_index: Int64[np.ndarray, " frames"],
    *,
    rises: bool = False,
) -> Float64[np.ndarray, " frames"]:
    """Expect the gain of every frame from its progress, as the mean of frames with a like progress.

    Frames are sorted by progress and cut into at most 20 bins of as many frames each. Neighboring
    bins are joined until each holds 30 frames of 5 episodes. Between the centers of the bins the
    means are interpolated; beyond the first and last they are constant. With fewer than two such
    bins it is the mean of all frames.

    Args:
        progress: where each frame is, 0..1.
        gain: of each frame, in any unit.
        episode_index: whose frame it is.
        rises: the means may only rise with progress (isotonic regression), as a final progress does.
    """
    order = np.argsort(progress, kind="stable")
    frames = len(order)
    bins: list[Int64[np.ndarray, " bin"]] = []
    waiting = np.empty(0, dtype=np.int64)
    for part in np.array_split(order, min(_BINS, max(1, frames // _LEAST_FRAMES))):
        waiting = np.concatenate([waiting, part])
        if len(waiting) >= _LEAST_FRAMES and (
            len(np.unique(episode_index[waiting])) >= _LEAST_EPISODES
        ):
            bins.append(waiting)
            waiting = waiting[:0]
    if len(waiting) and bins:
        bins[-1] = np.concatenate([bins[-1], waiting])
    if len(bins) < 2:
        return np.full(frames, gain.mean())
    centers = np.array([progress[rows].mean() for rows in bins])
    means = np.array([gain[rows].mean() for rows in bins])
    sizes = np.array([len(rows) for rows in bins], dtype=np.float64)
    if rises:
        from scipy.optimize import isotonic_regression  # --help need not wait for scipy

        means = isotonic_regression(means, weights=sizes).x
    # Where many frames have the very same progress, bins share a center, but for rounding errors of
    # the mean: those are one.
    centers, which = np.unique(np.round(centers, 9), return_inverse=True)
    means = np.bincount(which, weights=means * sizes) / np.bincount(which, weights=sizes)
    return np.interp(progress, centers, means)


def standardize(
    values: Float64[np.ndarray, " frames"],
    group: Int64[np.ndarray, " frames"],
    *,
    least: float = 0.0,
) -> Float64[np.ndarray, " frames"]:
    """Subtract each group's mean and divide by its standard deviation; 0 where it is constant.

    A standard deviation below `least` counts as that much.
    """
    count = np.maximum(np.bincount(group), 1)
    centered = values - (np.bincount(group, weights=values) / count)[group]
    spread = np.sqrt(np.bincount(group, weights=centered**2) / count)
    known = spread > _ROUNDING
    scale = np.divide(1.0, np.maximum(spread, least), out=np.zeros_like(spread), where=known)
    return centered * scale[group]
