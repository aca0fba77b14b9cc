"""Estimates with bootstrap intervals over episodes."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import DegenerateDataWarning, bootstrap, rankdata

from lerobot_topreward.judging.metrics import roc_auc

RESAMPLES = 2000
_AT_ONCE = 2_000_000  # resampled values in memory; more come in batches, which is also faster
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic of episodes with its 95 % interval; nan where undefined."""

    value: float
    low: float
    high: float
    defined: int  # episodes that it is made of
    undefined: int = 0  # episodes left out because they have no value


def mean_estimate(values: Sequence[float] | Float[np.ndarray, " episodes"]) -> Estimate:
    """Average the values of episodes that are not nan, and count the others.

    The interval is the percentile interval of resampled episodes; nan with fewer than two values.
    """
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    value = float(known.mean()) if len(known) else float("nan")
    low, high = bootstrap_interval((known,), np.mean)
    return Estimate(value, low, high, len(known), len(array) - len(known))


def auc_estimate(
    scores: Float[np.ndarray, " episodes"], success: Bool[np.ndarray, " episodes"]
) -> Estimate:
    """Compute the ROC-AUC, and its interval by resampling successes and failures apart.

    It is nan without both outcomes; the interval is nan without two of each.
    """

    def statistic(
        good: Float[np.ndarray, "*n goods"], bad: Float[np.ndarray, "*n bads"], axis: int = -1
    ) -> Float[np.ndarray, "*n"] | np.float64:
        # As `roc_auc`, but of all resamples at once, which is several times as fast.
        pairs = good.shape[axis] * bad.shape[axis]
        ranks = rankdata(np.concatenate([good, bad], axis=axis), axis=axis)
        least = good.shape[axis] * (good.shape[axis] + 1) / 2
        return (ranks[..., : good.shape[axis]].sum(axis=axis) - least) / pairs

    samples = (scores[success], scores[~success])
    low, high = bootstrap_interval(samples, statistic, resamples=RESAMPLES // 4)
    return Estimate(roc_auc(scores, success), low, high, len(scores))


def bootstrap_interval(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., Any],
    *,
    resamples: int = RESAMPLES,
    paired: bool = False,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Give the percentile interval of a statistic of samples; nan where one has fewer than two.

    Paired samples hold values of the same episodes, which are drawn together.
    """
    if min(map(len, samples)) < 2:
        return float("nan"), float("nan")
    most = _AT_ONCE // sum(map(len, samples))
    with warnings.catch_warnings():
        # Where a resample has no value, as where real curves do not rise, the interval is nan.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            batch=None if resamples <= most else max(1, most),
            confidence_level=confidence,
            method="percentile",
            vectorized=True,
            paired=paired,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(found.low), float(found.high)
