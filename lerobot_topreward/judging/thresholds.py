"""Where to draw the line between success and failure, and how well that would have worked."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Threshold:
    """A line through success scores; precision and recall are of keeping successes."""

    value: float  # keep an episode whose score is at least this
    precision: float  # 0..1, of episodes kept, the share that succeeded; nan when none is kept
    recall: float  # 0..1, of successes, the share that is kept
    f1: float  # 0..1
    folds: int  # of the cross-validation that precision and recall come from


def suggest_threshold(
    scores: Float[np.ndarray, " episodes"],
    success: Bool[np.ndarray, " episodes"],
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Threshold | None:
    """Choose the line that separates best, and judge that choice on episodes it did not see.

    The line maximizes balanced accuracy (the mean of how many successes are kept and how many
    failures are not), so that a dataset of nearly only successes does not get a line that keeps
    everything. Precision and recall are pooled over stratified folds, each judged by the line that
    the other folds choose; there are fewer folds where there are fewer successes or failures.
    Scores are higher for more successful episodes, in any unit.

    Returns:
        None where there are not two successes and two failures.
    """
    smaller = int(min(success.sum(), (~success).sum()))
    folds = min(folds, smaller)
    if folds < 2:
        return None
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(success), dtype=np.int64)
    for outcome in (True, False):  # each fold gets its share of both
        members = rng.permutation(np.flatnonzero(success == outcome))
        fold[members] = np.arange(len(members)) % folds
    kept = np.zeros(len(scores), dtype=bool)
    for held_out in range(folds):
        seen = fold != held_out
        kept[~seen] = scores[~seen] >= best_line(scores[seen], success[seen])
    precision, recall, f1 = precision_recall(kept, success)
    return Threshold(best_line(scores, success), precision, recall, f1, folds)


def best_line(
    scores: Float[np.ndarray, " episodes"], success: Bool[np.ndarray, " episodes"]
) -> float:
    """Find the line with the best balanced accuracy, halfway between the scores around it.

    There is at least one success and one failure; the line is in the unit of the scores.
    """
    values = np.unique(scores)
    lines = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    below = [np.searchsorted(np.sort(scores[own]), lines) for own in (success, ~success)]
    good, bad = int(success.sum()), int((~success).sum())
    balanced = (good - below[0]) / good + below[1] / bad
    best = np.flatnonzero(balanced == balanced.max())
    return float(lines[best[len(best) // 2]])  # the middle of equally good ones


def precision_recall(
    flagged: Bool[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]
) -> tuple[float, float, float]:
    """Precision, recall and F1 of a yes or no.

    Returns:
        Each 0..1; precision is nan when nothing is flagged, recall when nothing is true, and F1 is
        then 0.
    """
    hits = float(np.sum(flagged & truth))
    precision = hits / flagged.sum() if flagged.any() else float("nan")
    recall = hits / truth.sum() if truth.any() else float("nan")
    return precision, recall, 2 * hits / max(float(flagged.sum() + truth.sum()), 1.0)
