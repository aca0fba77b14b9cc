"""Rates and tests of policies against published values, scipy and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from lerobot_topreward.judging.trials import (
    compare_counts,
    compare_paired,
    detectable_rates,
    success_rate,
)


def test_the_interval_of_a_rate_is_wilson_s() -> None:
    rate = success_rate(17, 20)
    z, p, n = 1.959964, 17 / 20, 20
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (rate.low, rate.high) == pytest.approx((center - reach, center + reach), abs=1e-6)
    assert success_rate(0, 5).low == pytest.approx(0, abs=1e-12)
    assert success_rate(5, 5).high == pytest.approx(1, abs=1e-12)


def test_newcombe_s_example_of_counts() -> None:
    # Newcombe 1998, table II (a): 56/70 less 48/80, method 10.
    found = compare_counts((48, 80), (56, 70))
    assert found.difference.value == pytest.approx(0.2)
    assert found.difference.low == pytest.approx(0.0524, abs=5e-5)
    assert found.difference.high == pytest.approx(0.3339, abs=5e-5)
    assert found.p_value == fisher_exact([[48, 32], [56, 14]])[1]
    assert found.test == "fisher"
    assert found.only_first is None


def _pairs(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return (
        np.repeat([True, True, False, False], counts),
        np.repeat([True, False, True, False], counts),
    )


def test_pairs_by_hand() -> None:
    found = compare_paired(*_pairs(20, 2, 12, 16))
    # phi: (20 * 16 - 2 * 12 - 25) / sqrt(22 * 28 * 32 * 18) = 0.4550
    first, second = success_rate(22, 50), success_rate(32, 50)
    a, b = second.value - second.low, first.high - first.value
    phi = 271 / math.sqrt(22 * 28 * 32 * 18)
    low = 0.2 - math.sqrt(a * a - 2 * phi * a * b + b * b)
    assert found.difference.low == pytest.approx(low)
    assert found.difference.high == pytest.approx(0.3292, abs=5e-5)
    assert found.p_value == binomtest(2, 14).pvalue
    assert (found.only_first, found.only_second, found.shown) == (2, 12, True)


def test_pairs_that_agree_show_nothing_and_undefined_correlations_count_as_none() -> None:
    same = compare_paired(*_pairs(5, 0, 0, 5))
    assert (same.p_value, same.difference.value, same.shown) == (1.0, 0.0, False)
    assert same.difference.low < 0 < same.difference.high
    perfect = compare_paired(*_pairs(6, 4, 0, 0))
    assert perfect.difference == compare_counts((10, 10), (6, 10)).difference


def test_pairing_finds_what_counts_do_not() -> None:
    first, second = _pairs(40, 0, 8, 52)
    paired = compare_paired(first, second)
    assert paired.shown
    assert not compare_counts((40, 100), (48, 100)).shown
    reversed_order = compare_paired(second, first)
    assert reversed_order.difference.value == -paired.difference.value
    assert reversed_order.difference.low == pytest.approx(-paired.difference.high)


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    below, above = detectable_rates(0.5, 200, 200)
    assert 0.5 - below == pytest.approx(above - 0.5)
    rng = np.random.default_rng(0)
    first, second = rng.binomial(200, 0.5, 4000), rng.binomial(200, above, 4000)
    pooled = (first + second) / 400
    z = (second - first) / 200 / np.sqrt(pooled * (1 - pooled) / 100)
    assert np.mean(abs(z) > 1.96) == pytest.approx(0.8, abs=0.03)


def test_where_no_rate_is_far_enough() -> None:
    below, above = detectable_rates(0.85, 20, 20)
    assert below == pytest.approx(0.445, abs=0.001)
    assert math.isnan(above)
    assert all(math.isnan(rate) for rate in detectable_rates(0.5, 2, 2))
