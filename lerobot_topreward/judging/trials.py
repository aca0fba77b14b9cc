"""Successes of policies over trials: intervals, tests of a difference, and what trials can show.

- The interval of a rate: Wilson's score interval (1927).
- The interval of a difference: Newcombe's hybrid of Wilson intervals; method 10 of
  https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, and where scenes
  are paired method 10 of
  https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C.
- The test of a difference: Fisher's exact test; where scenes are paired McNemar's exact test, which
  is a binomial test on the scenes that only one of the two solved.
- What trials can show: Cohen's effect size h (Statistical Power Analysis, 1988, chapter 6).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from scipy.stats import binomtest, fisher_exact, norm

ALPHA = 0.05  # of a two-sided test
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of trials, or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A second policy against a first one."""

    test: Literal["mcnemar", "fisher"]
    difference: Rate  # success rate of the second less that of the first, -1..1
    p_value: float  # two-sided
    only_first: int | None  # scenes that only the first solved; None where scenes are not paired
    only_second: int | None
    # Rates of the second that so many trials would tell from the first's; nan where none would.
    detectable_below: float
    detectable_above: float

    @property
    def shown(self) -> bool:
        """Whether the two differ, at a level of 5 %."""
        return self.p_value < ALPHA


def success_rate(successes: int, trials: int) -> Rate:
    """Give the share of successes with its Wilson interval.

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    interval = binomtest(successes, trials).proportion_ci(1 - ALPHA, method="wilson")
    return Rate(successes / trials, float(interval.low), float(interval.high))


def compare_counts(first: tuple[int, int], second: tuple[int, int]) -> Comparison:
    """Compare policies that were tried on different scenes.

    Args:
        first: successes and trials.
        second: likewise.
    """
    table = [[successes, trials - successes] for successes, trials in (first, second)]
    result: Any = fisher_exact(table)  # its type says less than it has
    below, above = detectable_rates(first[0] / first[1], first[1], second[1])
    return Comparison(
        test="fisher",
        difference=_difference(success_rate(*first), success_rate(*second), correlation=0.0),
        p_value=float(result.pvalue),
        only_first=None,
        only_second=None,
        detectable_below=below,
        detectable_above=above,
    )


def compare_paired(
    first: Bool[np.ndarray, " scenes"], second: Bool[np.ndarray, " scenes"]
) -> Comparison:
    """Compare policies that were tried on the same scenes, in the same order.

    The test also holds where the scenes are not the same, and is only weaker then. What can be shown
    is computed as if they were not: pairs that agree often show less.
    """
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    discordant = only_first + only_second
    scenes = len(first)
    rates = [success_rate(int(solved.sum()), scenes) for solved in (first, second)]
    below, above = detectable_rates(rates[0].value, scenes, scenes)
    return Comparison(
        test="mcnemar",
        difference=_difference(*rates, correlation=_phi(first, second)),
        p_value=float(binomtest(only_second, discordant).pvalue) if discordant else 1.0,
        only_first=only_first,
        only_second=only_second,
        detectable_below=below,
        detectable_above=above,
    )


def _phi(first: Bool[np.ndarray, " scenes"], second: Bool[np.ndarray, " scenes"]) -> float:
    """The correlation of paired outcomes; a positive one is corrected for continuity."""
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    product = math.prod(float(solved.sum()) * float((~solved).sum()) for solved in (first, second))
    if not product:
        return 0.0
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        covariance = max(covariance - len(first) / 2, 0.0)
    return covariance / math.sqrt(product)


def _difference(first: Rate, second: Rate, *, correlation: float) -> Rate:
    """The second rate less the first, with Newcombe's interval."""

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))

    value = second.value - first.value
    low = value - reach(second.value - second.low, first.high - first.value)
    high = value + reach(second.high - second.value, first.value - first.low)
    return Rate(value, low, high)


def detectable_rates(rate: float, first_trials: int, second_trials: int) -> tuple[float, float]:
    """Find the rates nearest to a first one that so many trials tell from it.

    A two-sided test at a level of 5 % finds such a difference in 80 % of all experiments: Cohen's
    h, the difference of ``2 asin(sqrt(rate))``, is 2.80 standard errors.

    Args:
        rate: of the first policy, 0..1.
        first_trials: its number of trials.
        second_trials: that of the other policy.

    Returns:
        The rates below and above; nan where not even 0 or 1 is far enough.
    """
    standard_errors = float(norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER))
    h = standard_errors * math.sqrt(1 / first_trials + 1 / second_trials)
    angle = 2 * math.asin(math.sqrt(rate))
    below, above = angle - h, angle + h
    return (
        math.sin(below / 2) ** 2 if below >= 0 else float("nan"),
        math.sin(above / 2) ** 2 if above <= math.pi else float("nan"),
    )
