"""From raw log-probabilities to dense rewards: normalise, interpolate, difference.

Pure arithmetic on numpy arrays, so it can be redone in seconds without the VLM. The maths is that
of TOPReward (https://arxiv.org/abs/2602.19313), section 3: the reward of a prefix is log P(True),
Eq. 2 makes a progress of it, and the advantage is the difference of progress that its Eq. 3 weighs
with an explicit span.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from lerobot_topreward.records import EpisodeReward, FrameRewards, PrefixScores

Normalize = Literal["episode", "task"]
Scale = Literal["log-prob", "prob"]
Debias = Literal["none", "static"]

# Every episode starts with nothing done, so a twentieth of all prefixes is there and the odd first
# image is clipped. Success is rarer: the last tenth of perhaps one episode in ten. The top one per
# cent must therefore set the upper end, or the best of the failures would reach 1 as well.
TASK_QUANTILES = (0.05, 0.99)


def normalize_episode(values: Float[np.ndarray, " prefixes"]) -> Float[np.ndarray, " prefixes"]:
    """Map one segment's rewards to 0..1 by its own minimum and maximum.

    ``(r - min) / (max - min)``; one value or a constant gives ones, as in the reference code. A
    failed episode reaches 1 too: see `normalize_task`. Source: arXiv 2602.19313, Eq. 2, without
    its epsilon.

    Args:
        values: log P(True) or P(True) of each prefix, finite, at least one.

    Returns:
        Progress of each prefix, 0..1.
    """
    return _scale(values, low=float(np.min(values)), high=float(np.max(values)))


def normalize_task(
    values: Sequence[Float[np.ndarray, " prefixes"]],
    *,
    quantiles: tuple[float, float] = TASK_QUANTILES,
) -> list[Float[np.ndarray, " prefixes"]]:
    """Map the rewards of all segments of one task to 0..1 by quantiles that they share.

    A failed episode stays low and episodes compare, which `normalize_episode` cannot give. When
    both quantiles are the same value there is nothing to compare and everything becomes 1, as a
    constant does there.

    Args:
        values: log P(True) or P(True) of each prefix of each segment, finite.
        quantiles: fractions of all prefixes that become 0 and 1; what lies beyond is clipped.

    Returns:
        Progress of each prefix of each segment, 0..1.

    Raises:
        ValueError: the quantiles are not 0 <= low < high <= 1.
    """
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise ValueError(f"quantiles must be 0 <= low < high <= 1; got {quantiles}")
    low, high = np.quantile(np.concatenate(list(values)).astype(np.float64), quantiles)
    return [_scale(segment, low=float(low), high=float(high)) for segment in values]


def _scale(
    values: Float[np.ndarray, " prefixes"], *, low: float, high: float
) -> Float[np.ndarray, " prefixes"]:
    if high <= low:
        return np.ones(len(values))
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def interpolate(
    prefix_length: Int64[np.ndarray, " prefixes"],
    values: Float[np.ndarray, " prefixes"],
    *,
    length: int,
) -> Float[np.ndarray, " frames"]:
    """Spread the values of prefixes over all frames, linearly between neighbours.

    A prefix of L raw frames is the value of frame L - 1, the last that it shows. Before the first
    prefix its value holds, after the last one its value does.

    Args:
        prefix_length: raw frames of each prefix, ascending, 1..length.
        values: one value per prefix, of any unit.
        length: frames of the segment, >= 1.

    Returns:
        One value per frame, in the unit of `values`.
    """
    return np.interp(np.arange(length), prefix_length - 1, values)


def advantage(
    progress: Float[np.ndarray, " frames"], *, horizon: int
) -> Float[np.ndarray, " frames"]:
    """Progress gained over the next `horizon` frames: A(t) = progress(t0 + h) - progress(t0).

    t0 = min(t, N - 1 - h): at the end of an episode the window slides back instead of shrinking,
    so the last frames are judged over as long a span as any others. h is at most N - 1; a single
    frame gains nothing. The span is explicit because that of arXiv 2602.19313, Eq. 3, is not.

    Args:
        progress: 0..1 for each frame, at least one.
        horizon: h, frames, >= 1.

    Returns:
        Progress gained, -1..1 for each frame.

    Raises:
        ValueError: horizon < 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1 frame; got {horizon}")
    span = min(horizon, len(progress) - 1)
    start = np.minimum(np.arange(len(progress)), len(progress) - 1 - span)
    return progress[start + span] - progress[start]


def debias_static(
    real: Sequence[PrefixScores], static: Sequence[PrefixScores]
) -> list[Float[np.ndarray, " prefixes"]]:
    """Take from each curve what its first frame, repeated as often, earns by length alone.

    ``log P(True | video) - log P(True | first frame repeated)`` for every prefix: how much more
    likely *True* is for what was seen than for as long a video of nothing. It is 0 where a prefix
    shows one image. The authors' repository reports the bias, with static videos that reach a VOC
    of .987; subtracting it is ours, not the paper's.

    Args:
        real: scored segments, control "none".
        static: the same segments under the control "static", in any order; others may be there.

    Returns:
        The difference for each prefix of each segment of `real`, nats, of either sign.

    Raises:
        ValueError: a segment has no static curve, or one of other prefixes.
    """
    curves = {one.segment: one for one in static}
    debiased = []
    for one in real:
        still = curves.get(one.segment)
        if still is None or not np.array_equal(still.prefix_length, one.prefix_length):
            raise ValueError(
                f"episode {one.segment.episode_index} must have a static curve of the same "
                f"prefixes for its segment from frame {one.segment.start}; it has none"
            )
        debiased.append(
            one.log_prob_true.astype(np.float64) - still.log_prob_true.astype(np.float64)
        )
    return debiased


def label_rewards(
    scores: Sequence[PrefixScores],
    *,
    horizon: int,
    normalize: Normalize = "episode",
    scale: Scale = "log-prob",
    static: Sequence[PrefixScores] | None = None,
    quantiles: tuple[float, float] = TASK_QUANTILES,
) -> list[EpisodeReward]:
    """Turn the raw scores of a dataset into the rewards of its frames.

    The log-probabilities stay as they are, whatever progress is made of.

    Args:
        scores: every segment of every episode to label, in any order, control "none".
        horizon: span of the advantage, frames, >= 1.
        normalize: "episode" takes each segment alone (the paper), "task" takes all segments with
            the same instruction together.
        scale: progress is made of log P(True), as in the paper, or of P(True).
        static: scores of the static control, to debias by, see `debias_static`; None does not.
        quantiles: see `normalize_task`; for "task" only.

    Returns:
        One record per episode, in the order of their indices.

    Raises:
        ValueError: segments overlap, miss frames, belong to a control or have no static curve; or
            P(True) is to be debiased, where a difference of logarithms has no meaning.
    """
    if static is not None and scale == "prob":
        raise ValueError('log-probabilities are debiased, not "prob"')
    if static is not None:
        values = debias_static(scores, static)
    elif scale == "prob":
        values = [np.exp(segment.log_prob_true) for segment in scores]
    else:
        values = [segment.log_prob_true for segment in scores]
    if normalize == "task":
        progress = _progress_by_task(scores, values, quantiles=quantiles)
    else:
        progress = [normalize_episode(segment) for segment in values]
    episodes: dict[int, list[int]] = defaultdict(list)
    for position, segment in enumerate(scores):
        episodes[segment.segment.episode_index].append(position)
    return [
        episode_reward(
            [scores[i] for i in members], [progress[i] for i in members], horizon=horizon
        )
        for _, members in sorted(episodes.items())
    ]


def _progress_by_task(
    scores: Sequence[PrefixScores],
    values: Sequence[Float[np.ndarray, " prefixes"]],
    *,
    quantiles: tuple[float, float],
) -> list[Float[np.ndarray, " prefixes"]]:
    tasks: dict[str, list[int]] = defaultdict(list)
    for position, segment in enumerate(scores):
        tasks[segment.segment.instruction].append(position)
    progress: dict[int, Float[np.ndarray, " prefixes"]] = {}
    for members in tasks.values():
        scaled = normalize_task([values[i] for i in members], quantiles=quantiles)
        progress.update(zip(members, scaled, strict=True))
    return [progress[i] for i in range(len(scores))]


def episode_reward(
    scores: Sequence[PrefixScores],
    progress: Sequence[Float[np.ndarray, " prefixes"]],
    *,
    horizon: int,
) -> EpisodeReward:
    """Join the segments of one episode; neither interpolation nor advantage crosses their borders.

    Args:
        scores: the segments of one episode, in any order, together covering it, control "none".
        progress: 0..1 for each prefix of each of them.
        horizon: span of the advantage, frames, >= 1.

    Returns:
        The episode's rewards, one per frame.

    Raises:
        ValueError: there is no segment, or they overlap, miss frames, differ in their episode or
            belong to a control.
    """
    parts = sorted(zip(scores, progress, strict=True), key=lambda part: part[0].segment.start)
    _check_cover([part[0] for part in parts])
    true, false, dense, gained, scored = [], [], [], [], []
    for score, values in parts:
        length = score.segment.length
        true.append(interpolate(score.prefix_length, score.log_prob_true, length=length))
        false.append(interpolate(score.prefix_length, score.log_prob_false, length=length))
        dense.append(interpolate(score.prefix_length, values, length=length))
        gained.append(advantage(dense[-1], horizon=horizon))
        scored.append(np.isin(np.arange(length), score.prefix_length - 1))
    return EpisodeReward(
        episode_index=parts[0][0].segment.episode_index,
        log_prob_true=np.concatenate(true).astype(np.float32),
        log_prob_false=np.concatenate(false).astype(np.float32),
        progress=np.concatenate(dense).astype(np.float32),
        advantage=np.concatenate(gained).astype(np.float32),
        scored=np.concatenate(scored),
    )


def _check_cover(scores: Sequence[PrefixScores]) -> None:
    if not scores:
        raise ValueError("an episode needs at least one scored segment; got none")
    segments = [score.segment for score in scores]
    controls = {score.control for score in scores}
    if controls != {"none"}:
        raise ValueError(f'rewards are made of control "none"; got {sorted(controls)}')
    if len({segment.episode_index for segment in segments}) != 1:
        raise ValueError("segments must belong to one episode")
    contiguous = all(a.start + a.length == b.start for a, b in pairwise(segments))
    if segments[0].start != 0 or not contiguous:
        spans = [(segment.start, segment.start + segment.length) for segment in segments]
        raise ValueError(
            f"episode {segments[0].episode_index}: segments must cover it from frame 0 without "
            f"gap or overlap; got {spans}"
        )


def assemble(
    index: Int64[np.ndarray, " frames"],
    episode_index: Int64[np.ndarray, " frames"],
    frame_index: Int64[np.ndarray, " frames"],
    rewards: Sequence[EpisodeReward],
) -> FrameRewards:
    """Lay the rewards of episodes out over a whole dataset, zeros where an episode has none.

    Args:
        index: global index of each frame, unique, in any order.
        episode_index: the episode of each frame.
        frame_index: each frame's place in its episode, 0.. without gaps.
        rewards: at most one record per episode.

    Returns:
        All frames in the order of `index`.

    Raises:
        ValueError: a record's length is not its episode's, or its episode is not there.
    """
    order = np.argsort(index, kind="stable")
    columns = {
        name: np.zeros(len(index), dtype=bool if name == "scored" else np.float32)
        for name in ("log_prob_true", "log_prob_false", "progress", "advantage", "scored")
    }
    labelled = np.zeros(len(index), dtype=bool)
    episode, frame = episode_index[order], frame_index[order]
    by_episode = np.lexsort((frame, episode))
    wanted = np.array([reward.episode_index for reward in rewards], dtype=np.int64)
    starts = np.searchsorted(episode[by_episode], wanted, side="left")
    stops = np.searchsorted(episode[by_episode], wanted, side="right")
    for reward, start, stop in zip(rewards, starts, stops, strict=True):
        rows = by_episode[start:stop]
        if not np.array_equal(frame[rows], np.arange(len(reward.progress))):
            raise ValueError(
                f"episode {reward.episode_index}: {len(reward.progress)} rewards for "
                f"{len(rows)} frames; they must match one to one"
            )
        labelled[rows] = True
        for name, column in columns.items():
            column[rows] = getattr(reward, name)
    return FrameRewards(
        index=index[order],
        episode_index=episode,
        frame_index=frame,
        labelled=labelled,
        **columns,
    )
