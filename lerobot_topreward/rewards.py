"""From raw log-probabilities to dense rewards: normalize, interpolate, difference.

Pure arithmetic on numpy arrays, so it can be redone in seconds without the VLM. The maths is that
of TOPReward (https://arxiv.org/abs/2602.19313), section 3: the reward of a prefix is log P(True),
Eq. 2 makes a progress of it, and the advantage is the difference of progress that its Eq. 3 weighs
with an explicit span.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from lerobot_topreward.records import FrameRewards, PrefixScores

Normalize = Literal["episode", "task"]
Scale = Literal["log-prob", "log-odds", "prob"]
Debias = Literal["none", "static", "blank", "contrast"]

# The controls whose mean is subtracted. Another instruction is a control of its own: "contrast2" is
# the second one. See `scoring.other_instructions` and `scoring.blank` for what they ask and show.
BASELINES: dict[Debias, tuple[str, ...]] = {
    "none": (),
    "static": ("static",),
    "blank": ("blank",),
    "contrast": ("contrast1", "contrast2", "contrast3"),
}

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
        values: of each prefix, see `make_curves`, finite, at least one.
    """
    return scale_between(values, low=float(np.min(values)), high=float(np.max(values)))


def normalize_task(
    values: Sequence[Float[np.ndarray, " _"]],
    *,
    quantiles: tuple[float, float] = TASK_QUANTILES,
) -> list[Float[np.ndarray, " _"]]:
    """Map the rewards of all segments of one task to 0..1 by quantiles that they share.

    A failed episode stays low and episodes compare, which `normalize_episode` cannot give. When
    both quantiles are the same value there is nothing to compare and everything becomes 1, as a
    constant does there.

    Args:
        values: of each prefix of each segment, see `make_curves`, finite.
        quantiles: fractions of all prefixes that become 0 and 1; what lies beyond is clipped.

    Raises:
        ValueError: the quantiles are not 0 <= low < high <= 1.
    """
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise ValueError(f"quantiles must be 0 <= low < high <= 1; got {quantiles}")
    low, high = np.quantile(np.concatenate(list(values)).astype(np.float64), quantiles)
    return [scale_between(segment, low=float(low), high=float(high)) for segment in values]


def scale_between(
    values: Float[np.ndarray, " prefixes"], *, low: float, high: float
) -> Float[np.ndarray, " prefixes"]:
    """Map values to 0..1, low to 0 and high to 1; ones where there is nothing between them."""
    if high <= low:
        return np.ones(len(values))
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def interpolate(
    prefix_length: Int64[np.ndarray, " prefixes"],
    values: Float[np.ndarray, " prefixes"],
    *,
    length: int,
) -> Float[np.ndarray, " frames"]:
    """Interpolate the values of prefixes linearly over all frames of a segment.

    A prefix of L raw frames, 1..length, is the value of frame L - 1, the last that it shows. Before
    the first prefix its value holds, after the last one its value does.
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

    Raises:
        ValueError: horizon < 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1 frame; got {horizon}")
    span = min(horizon, len(progress) - 1)
    start = np.minimum(np.arange(len(progress)), len(progress) - 1 - span)
    return progress[start + span] - progress[start]


_VALUES: dict[Scale, str] = {
    "log-prob": "log P(True)",
    "log-odds": "log P(True) - log P(False)",
    "prob": "P(True)",
}
_SUBTRACTED: dict[Debias, str] = {
    "static": "the first frame repeated as often",
    "blank": "as many gray images",
    "contrast": "other tasks, asked of the same video",
}


@dataclass(frozen=True, slots=True)
class Formula:
    """What progress is made of: a value of each prefix, and what is subtracted from it.

    With T = log P(True) and F = log P(False), the value is T ("log-prob", the paper's), T - F
    ("log-odds") or exp T ("prob"). VLMs say *True* more readily the longer a video lasts, whatever
    it shows: the authors' repository reports static videos that reach a VOC of .987. Each way to
    take such a clock away is right where the clock is the same in what is subtracted:

    - "log-odds": in both answers. Costs nothing, both are stored.
    - "static": in the first frame repeated as often. One more pass per episode.
    - "blank": in as many gray images. One more pass per dataset and instruction.
    - "contrast": in other instructions asked of the same video (the mean of their values, which is
      linear, so their noise averages out and log-odds are treated alike). More questions of the
      same pass. What the VLM answers to every instruction alike is lost with the clock. Where it
      does not read the instruction, that includes the progress.

    Subtracting is ours, not the paper's.

    Raises:
        ValueError: probabilities are to be debiased, of which a difference has no such meaning.
    """

    scale: Scale = "log-prob"
    debias: Debias = "none"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.debias != "none" and self.scale == "prob":
            raise ValueError('log-probabilities are debiased, not "prob"')

    @property
    def name(self) -> str:
        """As a table calls it."""
        return self.scale if self.debias == "none" else f"{self.scale} - {self.debias}"

    @property
    def words(self) -> str:
        """What it computes, in words."""
        value = _VALUES[self.scale]
        return (
            value if self.debias == "none" else f"{value} less that of {_SUBTRACTED[self.debias]}"
        )


PAPER = Formula()


def make_curves(
    scores: Sequence[PrefixScores],
    formula: Formula = PAPER,
    controls: Sequence[PrefixScores] = (),
) -> list[Float[np.ndarray, " _"]]:
    """Make the curve that progress is made of, one value per prefix of each segment.

    Args:
        scores: scored segments, all of one control; "none" for progress, others to compare with.
        formula: see `Formula`.
        controls: what it subtracts, of the same segments, in any order; others may be there.

    Returns:
        Values of either sign, float64: nats, or 0..1 for "prob".

    Raises:
        ValueError: a segment has no control to subtract, or one of other prefixes.
    """
    curves: list[Float[np.ndarray, " _"]] = []
    for part, baselines in zip(scores, find_baselines(scores, formula, controls), strict=True):
        curve = _value(part, formula.scale)
        if formula.debias != "none":
            if not baselines:
                raise ValueError(
                    f"episode {part.segment.episode_index} must have a {formula.debias} curve of "
                    f"the same prefixes for its segment from frame {part.segment.start}; it has none"
                )
            curve = curve - np.mean([_value(each, formula.scale) for each in baselines], axis=0)
        curves.append(curve)
    return curves


def find_baselines(
    scores: Sequence[PrefixScores], formula: Formula, controls: Sequence[PrefixScores]
) -> list[list[PrefixScores]]:
    """Find what a formula subtracts from each segment; nothing where that was not scored."""
    names = BASELINES[formula.debias]
    known = {(each.segment, each.control): each for each in controls if each.control in names}
    return [
        [
            each
            for name in names
            if (each := known.get((part.segment, name))) is not None
            and np.array_equal(each.prefix_length, part.prefix_length)
        ]
        for part in scores
    ]


def _value(scores: PrefixScores, scale: Scale) -> Float[np.ndarray, " prefixes"]:
    return value_answers(scores.log_prob_true, scores.log_prob_false, scale)


def value_answers(
    true: Float[np.ndarray, " prefixes"], false: Float[np.ndarray, " prefixes"], scale: Scale
) -> Float[np.ndarray, " prefixes"]:
    """Make of both answers, nats, what progress is made of; see `Formula`."""
    if scale == "prob":
        return np.exp(true).astype(np.float64)
    value = true.astype(np.float64)
    return value if scale == "log-prob" else value - false


def label_rewards(
    scores: Sequence[PrefixScores],
    episode_index: Int64[np.ndarray, " frames"],
    *,
    horizon: int,
    normalize: Normalize = "episode",
    formula: Formula = PAPER,
    controls: Sequence[PrefixScores] = (),
    quantiles: tuple[float, float] = TASK_QUANTILES,
) -> FrameRewards:
    """Turn raw scores into the rewards of all frames of a dataset.

    The log-probabilities stay as they are, whatever progress is made of. Neither interpolation nor
    advantage crosses the border of two segments.

    Args:
        scores: every segment of every episode to label, in any order, control "none".
        episode_index: the episode of each frame of the dataset, ascending.
        horizon: span of the advantage, frames, >= 1.
        normalize: "episode" takes each segment alone (the paper), "task" takes all segments with
            the same instruction together.
        formula: what progress is made of; the paper's is log P(True).
        controls: what the formula subtracts, see `make_curves`.
        quantiles: see `normalize_task`; for "task" only.

    Returns:
        The frames of the episodes that have scores are labelled.

    Raises:
        ValueError: the segments of an episode overlap, miss frames or are not those of the dataset,
            belong to a control or lack what the formula subtracts.
    """
    values = make_curves(scores, formula, controls)

    # Scaled together: all segments of a task, or each alone.
    groups: dict[str | int, list[int]] = defaultdict(list)
    for i, score in enumerate(scores):
        groups[score.segment.instruction if normalize == "task" else i].append(i)
    progress: dict[int, Float[np.ndarray, " prefixes"]] = {}
    for members in groups.values():
        if normalize == "task":
            scaled = normalize_task([values[i] for i in members], quantiles=quantiles)
        else:
            scaled = [normalize_episode(values[i]) for i in members]
        progress.update(zip(members, scaled, strict=True))

    position = np.arange(len(episode_index))
    frame_index = position - np.searchsorted(episode_index, episode_index)
    rewards = FrameRewards.zeros(position, episode_index, frame_index)
    episodes: dict[int, list[int]] = defaultdict(list)
    for i in sorted(range(len(scores)), key=lambda i: scores[i].segment.start):
        episodes[scores[i].segment.episode_index].append(i)
    for episode, members in episodes.items():
        first, stop = np.searchsorted(episode_index, [episode, episode + 1])
        _check_cover([scores[i] for i in members], frames=int(stop - first))
        rewards.labelled[first:stop] = True
        for i in members:
            score, length = scores[i], scores[i].segment.length
            rows = slice(first + score.segment.start, first + score.segment.start + length)
            ends = score.prefix_length
            dense = interpolate(ends, progress[i], length=length)
            rewards.log_prob_true[rows] = interpolate(ends, score.log_prob_true, length=length)
            rewards.log_prob_false[rows] = interpolate(ends, score.log_prob_false, length=length)
            rewards.progress[rows] = dense
            rewards.advantage[rows] = advantage(dense, horizon=horizon)
            rewards.scored[rows][ends - 1] = True
    return rewards


def _check_cover(scores: Sequence[PrefixScores], *, frames: int) -> None:
    """Check that the segments of an episode, in the order of time, are all of its frames."""
    segments = [score.segment for score in scores]
    episode = segments[0].episode_index
    controls = {score.control for score in scores}
    if controls != {"none"}:
        raise ValueError(f'rewards are made of control "none"; got {sorted(controls)}')
    spans = [(segment.start, segment.start + segment.length) for segment in segments]
    if spans[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(spans)):
        raise ValueError(
            f"episode {episode}: segments must cover it from frame 0 without gap or overlap; got "
            f"{spans}"
        )
    if spans[-1][1] != frames:
        raise ValueError(
            f"episode {episode}: {spans[-1][1]} rewards for {frames} frames; they must match one to "
            "one"
        )
