"""Estimates with bootstrap intervals over episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import bootstrap

from lerobot_topreward.judging.metrics import roc_auc

RESAMPLES = 2000
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
    low, high = _interval((known,), np.mean) if len(known) > 1 else (float("nan"), float("nan"))
    return Estimate(value, low, high, len(known), len(array) - len(known))


def auc_estimate(
    scores: Float[np.ndarray, " episodes"], success: Bool[np.ndarray, " episodes"]
) -> Estimate:
    """Compute the ROC-AUC, and its interval by resampling successes and failures apart.

    It is nan without both outcomes; the interval is nan without two of each.
    """
    value = roc_auc(scores, success)
    good, bad = scores[success], scores[~success]
    low = high = float("nan")
    if min(len(good), len(bad)) > 1:

        def statistic(good: np.ndarray, bad: np.ndarray) -> float:
            outcomes = np.repeat([True, False], [len(good), len(bad)])
            return roc_auc(np.concatenate([good, bad]), outcomes)

        low, high = _interval((good, bad), statistic, vectorized=False)
    return Estimate(value, low, high, len(scores))


def _interval(
    samples: tuple[np.ndarray, ...], statistic: object, *, vectorized: bool = True
) -> tuple[float, float]:
    found = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES if vectorized else RESAMPLES // 4,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=vectorized,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)
