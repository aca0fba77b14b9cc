"""What two kinds of curves differ in on the same episodes: pairs, with intervals over episodes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from lerobot_topreward.judging.controls import EpisodeCurves, share_of_rise
from lerobot_topreward.judging.intervals import Estimate, bootstrap_interval
from lerobot_topreward.judging.metrics import roc_auc

_MOST = 1000  # successes, and failures, whose pairs are resampled


def shared_episodes(*curves: EpisodeCurves) -> list[EpisodeCurves]:
    """Take the values of the episodes that all of them have; episodes ascend in each."""
    episodes = sorted(set.intersection(*(set(kind.episodes) for kind in curves)))
    found = []
    for kind in curves:
        rows = np.isin(kind.episodes, episodes)
        found.append(
            EpisodeCurves(episodes, kind.voc[rows], kind.rise[rows], kind.success_score[rows])
        )
    return found


def auc_gain(
    own: EpisodeCurves, other: EpisodeCurves, success: Mapping[int, bool], *, confidence: float
) -> Estimate:
    """The ROC-AUC of the success score less that of the other curves, of the same episodes.

    Successes and failures are resampled apart, at most `_MOST` of each, which widens the interval
    of a huge dataset a little.
    """
    own, other = shared_episodes(own, other)
    known = np.array([episode in success for episode in own.episodes], dtype=bool)
    outcome = np.array([success.get(episode, False) for episode in own.episodes], dtype=bool)
    value = roc_auc(own.success_score[known], outcome[known]) - roc_auc(
        other.success_score[known], outcome[known]
    )
    rng = np.random.default_rng(0)
    good, bad = (
        rows if len(rows) <= _MOST else rng.choice(rows, _MOST, replace=False)
        for rows in (np.flatnonzero(known & outcome), np.flatnonzero(known & ~outcome))
    )
    # The ROC-AUC is the mean over all pairs of a success and a failure of who scores higher. So a
    # resample is a row of counts on either side of one matrix, and all of them are two products.
    higher = [
        np.sign(scores[good][:, None] - scores[bad][None]) / 2
        for scores in (own.success_score, other.success_score)
    ]
    pairs = higher[0] - higher[1]

    def difference(
        good: Float[np.ndarray, "*n goods"], bad: Float[np.ndarray, "*n bads"], axis: int = -1
    ) -> Float[np.ndarray, "*n"] | np.float64:
        mean = np.einsum("...g,gb,...b->...", _count(good), pairs, _count(bad), optimize=True)
        return mean / pairs.size

    samples = (np.arange(len(good), dtype=np.float64), np.arange(len(bad), dtype=np.float64))
    low, high = bootstrap_interval(samples, difference, confidence=confidence)
    return Estimate(value, low, high, int(known.sum()))


def _count(drawn: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
    """How often each of 0..k-1 is in a row of k indices."""
    rows = drawn.reshape(-1, drawn.shape[-1]).astype(np.int64)
    places = rows + rows.shape[-1] * np.arange(len(rows))[:, None]
    return np.bincount(places.ravel(), minlength=rows.size).reshape(drawn.shape).astype(np.float64)


def static_gain(
    own: tuple[EpisodeCurves, EpisodeCurves],
    other: tuple[EpisodeCurves, EpisodeCurves],
    *,
    confidence: float,
) -> Estimate:
    """The |static rise / real rise| less that of the other curves, of the same episodes.

    Args:
        own: of the static control, and of the real videos.
        other: the same of what it is compared with.
        confidence: of the interval, 0..1.
    """
    rises = tuple(kind.rise for kind in shared_episodes(*own, *other))

    def difference(
        static: Float[np.ndarray, "*n"],
        real: Float[np.ndarray, "*n"],
        other_static: Float[np.ndarray, "*n"],
        other_real: Float[np.ndarray, "*n"],
        axis: int = -1,
    ) -> Float[np.ndarray, "*m"] | np.float64:
        ours = np.abs(share_of_rise(static, real, axis=axis))
        return ours - np.abs(share_of_rise(other_static, other_real, axis=axis))

    if not len(rises[0]):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    low, high = bootstrap_interval(rises, difference, paired=True, confidence=confidence)
    static, real, other_static, other_real = rises
    value = float(difference(static, real, other_static, other_real))
    return Estimate(value, low, high, len(static))
