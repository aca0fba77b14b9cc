"""How good rewards are, given what truly happened: pure functions of small arrays.

Value-order correlation alone proves little: it cannot see failure, and it rewards a model that
merely likes longer videos. Read it beside the success AUC and beside a static control.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

TAIL = 3  # prefixes whose mean is an episode's final value, as in the paper
DONE = 0.9  # progress at which hardly anything is left to gain
STALL = 0.05  # progress that has to be gained for a stall to end


def voc(values: Float[np.ndarray, " prefixes"]) -> float:
    """Value-order correlation: Spearman's rank correlation of values with time, -1..1.

    TOPReward (arXiv 2602.19313, section 4) after GVL (arXiv 2411.04549, section 3). It is nan with
    fewer than two values, or where all of them are equal.

    Raises:
        ValueError: a value is not finite.
    """
    values = _finite(values, name="values")
    if len(values) < 2 or np.all(values == values[0]):
        return float("nan")
    # Spearman's is Pearson's of the ranks.
    middle = (len(values) - 1) / 2
    ranks, times = _rank(values) - 1 - middle, np.arange(len(values)) - middle
    return float(np.clip(ranks @ times / np.sqrt((ranks @ ranks) * (times @ times)), -1, 1))


def success_score(log_probs: Float[np.ndarray, " prefixes"], *, tail: int = TAIL) -> float:
    """How successful an episode looks: the mean log P(True) of its last prefixes, nats.

    TOPReward (arXiv 2602.19313, section 4, success detection).

    Raises:
        ValueError: no prefix, or one that is not finite.
    """
    log_probs = _finite(log_probs, name="log_probs")
    if len(log_probs) == 0:
        raise ValueError("log_probs must hold at least one prefix; got none")
    return float(np.mean(log_probs[-tail:]))


def rise(values: Float[np.ndarray, " prefixes"], *, tail: int = TAIL) -> float:
    """How far a curve climbs: the mean of its last values minus its first value, in their unit.

    Under a static control this is what length alone adds. It complements `voc`, which sees ranks
    only and calls a drift of a thousandth as much of a trend as a real climb.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    return success_score(values, tail=tail) - float(values[0])


def roc_auc(
    scores: Float[np.ndarray, " episodes"], success: Bool[np.ndarray, " outcomes"]
) -> float:
    """Area under the ROC curve: how often a success scores above a failure, ties counting half.

    By the rank-sum identity of Mann and Whitney (1947). Scores are higher for more successful
    episodes, in any unit. 0..1, where 0.5 is chance; nan with only successes or only failures.

    Raises:
        ValueError: the lengths differ, or a score is not finite.
    """
    scores = _finite(scores, name="scores")
    success = np.asarray(success, dtype=bool)
    if scores.shape != success.shape:
        raise ValueError(
            f"scores and success must be as long; got {len(scores)} and {len(success)}"
        )
    positives = int(success.sum())
    negatives = len(success) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    above = _rank(scores)[success].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def seconds_to(progress: Float[np.ndarray, " frames"], *, fps: float, level: float = DONE) -> float:
    """Find when progress first reaches a level, in s since the first frame; nan if it never does."""
    reached = np.flatnonzero(progress >= level)
    return float(reached[0] / fps) if len(reached) else float("nan")


def longest_stall(
    progress: Float[np.ndarray, " frames"],
    *,
    fps: float,
    gain: float = STALL,
    done: float = DONE,
) -> float:
    """The longest stretch of time in which progress does not get beyond where it has been.

    A stall begins at any frame and ends when the running maximum of progress has grown by `gain`;
    from `done` on there is nothing left to gain, and waiting is no stall. In seconds, 0 for an
    episode of one frame.
    """
    best = np.maximum.accumulate(np.asarray(progress, dtype=np.float64))
    begins = np.arange(np.searchsorted(best, done))
    if len(begins) == 0:
        return 0.0
    last = np.searchsorted(best, np.minimum(best[begins] + gain, done)) - 1
    return float(np.max(last - begins) / fps)


def largest_regress(progress: Float[np.ndarray, " frames"]) -> float:
    """Find the largest fall of progress below an earlier maximum, 0..1."""
    return float(np.max(np.maximum.accumulate(progress) - progress))


def mean_defined(values: Sequence[float]) -> float:
    """Average the values that are not nan; nan when there is none."""
    defined = [value for value in values if not np.isnan(value)]
    if len(defined) == 1:  # nearly always, and np.mean takes long for it
        return float(defined[0])
    return float(np.mean(defined)) if defined else float("nan")


def rise_in_words(share: float) -> str:
    """Say how far the curves of a control rise, as a share of the real rise; nan without one."""
    if np.isnan(share):
        return "the real videos do not rise, so there is nothing to compare"
    percent = round(100 * share)
    if percent == 0:
        return "neither rises nor falls"
    if percent < 0:
        return f"falls by {-percent}% of what the real videos rise"
    return f"rises by {percent}% of what the real videos do"


def _rank(values: Float[np.ndarray, " _"]) -> Float[np.ndarray, " _"]:
    """Rank values from 1; equal ones share their mean rank. SciPy takes ten times as long."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2


def _finite(values: Float[np.ndarray, " n"], *, name: str) -> Float[np.ndarray, " n"]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite vector; got shape {array.shape}: {array}")
    return array
