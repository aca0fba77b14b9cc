import math

import numpy as np
import pytest

from lerobot_topreward.judging.thresholds import best_line, precision_recall, suggest_threshold


@pytest.mark.parametrize(
    ("scores", "success", "line"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 2.5),
        ([1, 2, 5, 6, 7, 8], [0, 1, 0, 1, 1, 1], 5.5),  # loses one success of four, no failure
        ([4, 3, 2, 1], [0, 0, 1, 1], 1.0),  # the wrong way round: nothing beats keeping all
    ],
)
def test_best_line(scores: list[float], success: list[int], line: float) -> None:
    assert best_line(np.array(scores, dtype=float), np.array(success, dtype=bool)) == line


@pytest.mark.parametrize("digits", [0, 1, 12])  # many ties, some, none
def test_best_line_is_the_best_of_all_lines(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(50):
        scores = np.round(rng.normal(size=40), digits)
        success = rng.random(40) < rng.uniform(0.1, 0.9)
        success[:2] = True, False
        values = np.unique(scores)
        lines = [values[0], *(values[1:] + values[:-1]) / 2]
        kept = [scores >= line for line in lines]
        balanced = [k[success].mean() + (~k[~success]).mean() for k in kept]
        best = np.flatnonzero(np.array(balanced) == max(balanced))
        assert best_line(scores, success) == lines[best[len(best) // 2]]


def test_separable_scores_are_judged_perfect() -> None:
    scores = np.array([-5.0, -4.0, -6.0, -1.0, -2.0, -1.5])
    found = suggest_threshold(scores, scores > -3)
    assert found is not None
    assert (found.value, found.precision, found.recall, found.f1) == (-3.0, 1.0, 1.0, 1.0)
    assert found.folds == 3


def test_chance_is_not_flattered_by_choosing_on_the_same_episodes() -> None:
    rng = np.random.default_rng(0)
    scores, success = rng.normal(size=400), rng.random(400) < 0.5
    found = suggest_threshold(scores, success)
    assert found is not None
    assert found.precision == pytest.approx(success.mean(), abs=0.08)


@pytest.mark.parametrize("success", [[True, True, True], [True, True, False], []])
def test_no_line_without_two_of_each(success: list[bool]) -> None:
    assert suggest_threshold(np.arange(float(len(success))), np.array(success, dtype=bool)) is None


def test_precision_and_recall() -> None:
    yes, no = True, False
    found = precision_recall(np.array([yes, yes, no, no]), np.array([yes, no, yes, no]))
    assert found == (0.5, 0.5, 0.5)
    nothing = precision_recall(np.array([no, no]), np.array([yes, no]))
    assert math.isnan(nothing[0])
    assert nothing[1:] == (0.0, 0.0)
