import math

import numpy as np
import pytest

from lerobot_topreward.judging.metrics import (
    largest_regress,
    longest_stall,
    rise,
    roc_auc,
    seconds_to,
    success_score,
    voc,
)

# A curve that the paper's authors publish with its VOC.
GOLDEN = [-18.75, -17.125, -11, -12, -11.625, -12.125, -10.75, -11.25, -9.5, -9, -9.25, -8.75, -8]
GOLDEN += [-7.625, -6.375]


def test_voc_of_the_published_curve() -> None:
    assert voc(np.array(GOLDEN)) == pytest.approx(0.9429, abs=5e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], 1.0),
        ([3, 2, 1], -1.0),
        ([0, 0, 1, 1], 0.8944271909999159),  # ties share a rank
        ([1, 3, 2], 0.5),
    ],
)
def test_voc_is_spearmans_correlation_with_time(values: list[float], expected: float) -> None:
    assert voc(np.array(values, dtype=float)) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_voc_is_undefined_for_constant_or_short_curves(values: list[float]) -> None:
    assert math.isnan(voc(np.array(values)))


def test_success_score_is_the_mean_of_the_last_three() -> None:
    assert success_score(np.array([-9.0, -4.0, -3.0, -2.0])) == -3.0
    assert success_score(np.array([-4.0, -2.0])) == -3.0
    assert success_score(np.array([-4.0, -2.0]), tail=1) == -2.0


def test_rise_is_what_the_end_gains_on_the_start() -> None:
    assert rise(np.array([-9.0, -4.0, -3.0, -2.0])) == 6.0
    assert rise(np.array([-1.0, -1.0, -1.0, -1.0])) == 0.0


@pytest.mark.parametrize(
    ("scores", "success", "expected"),
    [
        ([1, 2, 3, 4], [False, False, True, True], 1.0),
        ([4, 3, 2, 1], [False, False, True, True], 0.0),
        ([1, 3, 2, 4], [False, False, True, True], 0.75),
        ([1, 1, 1, 1], [False, True, False, True], 0.5),
    ],
)
def test_auc_counts_ordered_pairs(
    scores: list[float], success: list[bool], expected: float
) -> None:
    assert roc_auc(np.array(scores, dtype=float), np.array(success)) == expected


@pytest.mark.parametrize("outcome", [True, False])
def test_auc_needs_both_outcomes(outcome: bool) -> None:
    assert math.isnan(roc_auc(np.array([1.0, 2.0]), np.array([outcome, outcome])))


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ValueError, match="finite vector"):
        voc(np.array([1.0, math.nan]))
    with pytest.raises(ValueError, match="at least one prefix"):
        success_score(np.array([]))
    with pytest.raises(ValueError, match="as long"):
        roc_auc(np.array([1.0]), np.array([True, False]))


def test_seconds_to_a_level() -> None:
    progress = np.array([0.0, 0.5, 0.9, 0.2])
    assert seconds_to(progress, fps=10) == 0.2
    assert math.isnan(seconds_to(progress, fps=10, level=0.95))


@pytest.mark.parametrize(
    ("progress", "seconds"),
    [
        ([0.0, 0.1, 0.2, 0.3], 0.0),
        ([0.0, 0.3, 0.3, 0.1, 0.31, 0.6], 0.3),  # a fall and a hair's gain do not end it
        ([0.0, 0.5, 0.5, 0.5, 0.5], 0.3),  # to the end
        ([0.0, 0.95, 0.95, 0.95], 0.0),  # nothing left to gain
        ([0.4], 0.0),
    ],
)
def test_longest_stall(progress: list[float], seconds: float) -> None:
    assert longest_stall(np.array(progress), fps=10) == pytest.approx(seconds)


def test_regress_is_the_largest_fall() -> None:
    assert largest_regress(np.array([0.1, 0.8, 0.5, 0.9, 0.2])) == pytest.approx(0.7)
    assert largest_regress(np.array([0.1, 0.2])) == 0
