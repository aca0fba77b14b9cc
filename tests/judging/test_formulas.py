"""Judges whose truth is known: what each formula makes of them, and whether the table is right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lerobot_topreward.judging.formulas import (
    FormulaComparison,
    FormulaSummary,
    compare_formulas,
    formulas_to_json,
    list_formulas,
)
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.rewards import BASELINES, PAPER, Debias, Formula, Scale, label_rewards

EPISODES = 40  # every second one succeeds
RANGE = 4.0  # nats, of the progress in log P(True)
NOISE = 0.1  # nats
SUCCESS = {episode: episode % 2 == 0 for episode in range(EPISODES)}
Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of progress 0..1 and images 1..n


def judged(
    true: Curve,
    false: Curve,
    *,
    still: Curve | None = None,
    gray: Curve | None = None,
    other: Curve | None = None,
    seed: int = 0,
) -> tuple[list[PrefixScores], list[PrefixScores]]:
    """Scores of every episode and of its controls. Failures last longer, as on a real robot.

    Of a control, progress is what it shows: none in a still or a gray video, and backwards the
    reverse. Where nothing is said of a control, it is judged as the videos themselves are.
    """
    rng = np.random.default_rng(seed)
    real, controls = [], []
    for episode, succeeded in SUCCESS.items():
        images = np.arange(1, int(rng.integers(15, 20)) + (0 if succeeded else 10) + 1)
        progress = np.linspace(0, 1 if succeeded else 0.7, len(images))
        nothing = np.zeros(len(images))

        def scored(
            control: str,
            judge: Curve,
            shown: np.ndarray,
            images: np.ndarray = images,
            episode: int = episode,
        ) -> PrefixScores:
            noise = rng.normal(0, NOISE, (2, len(images)))
            return PrefixScores(
                segment=Segment(episode, 0, len(images), "pick up the cube"),
                control=control,
                prefix_length=images,
                frame_index=images - 1,
                log_prob_true=(judge(shown, images) + noise[0] - 60).astype(np.float32),
                log_prob_false=(false(shown, images) + noise[1] - 60).astype(np.float32),
            )

        real.append(scored("none", true, progress))
        controls.append(scored("static", still or true, nothing))
        controls.append(scored("reversed", true, progress[::-1]))
        controls.append(scored("blank", gray or true, nothing))
        controls += [
            scored(name, other or true, nothing if other is None else progress)
            for name in BASELINES["contrast"]
        ]
    return real, controls


def rows_of(found: FormulaComparison) -> dict[Formula, FormulaSummary]:
    return {row.formula: row for row in found.rows}


def clock(strength: float) -> Curve:
    """A reward that grows with the number of images, up to `strength` times the progress' range."""
    return lambda _, images: strength * RANGE * images / 30


def plus(*parts: Curve) -> Curve:
    return lambda progress, images: np.sum([part(progress, images) for part in parts], axis=0)


def rises(progress: np.ndarray, _: np.ndarray) -> np.ndarray:
    return RANGE * progress


def falls(progress: np.ndarray, _: np.ndarray) -> np.ndarray:
    return -RANGE * progress


def flat(progress: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.zeros(len(progress))


def test_of_equal_formulas_the_cheapest_is_taken() -> None:
    ticks = clock(10)
    real, controls = judged(plus(rises, ticks), ticks, other=ticks)
    static, blank, contrast = (Formula(debias=name) for name in ("static", "blank", "contrast"))
    for formulas, cheapest in (([static, blank, contrast], blank), ([static, contrast], contrast)):
        found = compare_formulas(real, controls, success=SUCCESS, formulas=[PAPER, *formulas])
        assert len({round(row.gain.value, 2) for row in found.rows[1:]}) == 1
        assert found.favored == cheapest


def test_episodes_with_fewer_other_instructions_do_not_compare() -> None:
    real, controls = judged(rises, falls)
    whole = Formula(debias="contrast")
    assert whole in list_formulas(real, controls, of_all=True)
    fewer = [part for part in controls if part.control != "contrast3" or part.segment.episode_index]
    assert whole not in list_formulas(real, fewer, of_all=True)
    assert whole in list_formulas(real, fewer)


FREE = [Formula(), Formula("log-odds"), Formula("prob")]
RESTORING: list[tuple[Scale, Debias]] = [
    ("log-odds", "none"),
    ("log-prob", "static"),
    ("log-prob", "blank"),
    ("log-prob", "contrast"),
    ("log-odds", "static"),
    ("log-odds", "blank"),
    ("log-odds", "contrast"),
]


@pytest.mark.parametrize("strength", [0, 1, 10])
def test_every_formula_restores_what_a_clock_hides(strength: float) -> None:
    ticks = clock(strength)
    real, controls = judged(plus(rises, ticks), plus(falls, ticks), other=ticks)
    found = compare_formulas(real, controls, success=SUCCESS)
    rows = rows_of(found)
    # The truth: without a clock, successes end higher; with it, the longer failures do.
    hidden = rows[PAPER].auc.value
    assert (hidden == 1) == (strength == 0)
    if strength == 10:
        assert rows[PAPER].auc.value < 0.05
        assert rows[PAPER].static_share > 0.8
    for scale, debias in RESTORING:
        row = rows[Formula(scale, debias)]
        assert row.auc.value > 0.99, row.formula
        assert row.voc.value > 0.9, row.formula
        if debias == "none" or debias == "blank":
            assert abs(row.static_share) < 0.1, row.formula
            assert row.reversed_share < 0, row.formula
        else:
            assert np.isnan(row.static_share), row.formula
    assert found.judged_by == "success"
    if strength == 0:
        assert found.favored == PAPER
        assert "the evidence favors none" in found.sentence
    else:
        assert found.favored != PAPER
        assert rows[found.favored].gain.low > 0
        assert f"the evidence favors {found.favored.name}" in found.sentence
    assert found.remarks == () or all("contrast" in remark for remark in found.remarks)


@pytest.mark.parametrize("strength", [1, 10])
def test_progress_made_by_a_formula_follows_the_truth(strength: float) -> None:
    ticks = clock(strength)
    real, controls = judged(plus(rises, ticks), plus(falls, ticks), other=ticks)
    episodes = np.repeat(
        [part.segment.episode_index for part in real], [len(p.prefix_length) for p in real]
    )

    def final(formula: Formula) -> tuple[float, float]:
        rewards = label_rewards(
            real, episodes, horizon=1, normalize="task", formula=formula, controls=controls
        )
        ends = np.flatnonzero(np.diff(episodes, append=-1))
        good = np.array([SUCCESS[episode] for episode in episodes[ends]])
        last = rewards.progress[ends]
        return float(last[good].min()), float(last[~good].max())

    for scale, debias in RESTORING:
        good, bad = final(Formula(scale, debias))
        assert good > 0.85, (scale, debias)
        assert bad < 0.8, (scale, debias)
    if strength == 10:
        good, bad = final(PAPER)
        assert good < bad


def test_the_table_says_where_the_clock_is_not_in_both_answers() -> None:
    ticks = clock(10)
    real, controls = judged(plus(rises, ticks), falls, other=ticks)
    found = compare_formulas(real, controls, success=SUCCESS)
    rows = rows_of(found)
    assert rows[Formula("log-odds")].auc.value < 0.05
    assert rows[Formula(debias="static")].auc.value > 0.99
    assert any(
        remark.startswith("log-odds: the first frame repeated still rises by")
        for remark in found.remarks
    )
    assert found.favored.debias != "none"


def test_the_table_says_where_gray_images_have_another_clock() -> None:
    ticks = clock(10)
    real, controls = judged(plus(rises, ticks), plus(falls, ticks), gray=clock(2), other=ticks)
    found = compare_formulas(real, controls, success=SUCCESS)
    rows = rows_of(found)
    assert rows[Formula(debias="blank")].auc.value < 0.05
    assert any(
        remark.startswith("log-prob - blank: the first frame repeated still rises by")
        for remark in found.remarks
    )
    assert found.favored.debias != "blank" or found.favored.scale == "log-odds"


def test_contrast_fails_where_the_instruction_is_not_read() -> None:
    ticks = clock(1)
    read = plus(rises, ticks)
    real, controls = judged(read, plus(falls, ticks), other=read)
    found = compare_formulas(real, controls, success=SUCCESS)
    row = rows_of(found)[Formula(debias="contrast")]
    assert 0.25 < row.auc.value < 0.75
    assert abs(row.voc.value) < 0.3
    (remark,) = (remark for remark in found.remarks if remark.startswith("contrast:"))
    assert "an instruction that is hardly read" in remark
    assert found.favored.debias != "contrast"


def test_a_judge_that_reads_only_the_instruction_shows_nothing() -> None:
    real, controls = judged(flat, flat, other=lambda _, images: np.full(len(images), -3.0))
    found = compare_formulas(real, controls, success=SUCCESS)
    for row in found.rows:
        assert 0.2 < row.auc.value < 0.8, row.formula
        assert abs(row.voc.value) < 0.3, row.formula
    assert found.favored == PAPER
    assert "the evidence favors none" in found.sentence


@pytest.mark.slow
def test_without_outcomes_the_static_control_decides() -> None:
    ticks = clock(10)
    real, controls = judged(plus(rises, ticks), plus(falls, ticks), other=ticks)
    found = compare_formulas(real, controls, success={})
    assert found.judged_by == "static"
    # Neither what subtracts the static control itself, nor what cannot be compared with it.
    assert found.favored in (
        Formula("log-odds"),
        Formula(debias="blank"),
        Formula("log-odds", "blank"),
    )
    percent = round(100 * found.rows[0].static_share)
    assert (
        f"under log-prob the first frame repeated rises by {percent}% of what the real videos do"
        in found.sentence
    )
    assert "nothing says whether it tells success from failure" in found.sentence
    few = {0: True, 1: False}
    assert compare_formulas(real, controls, success=few).favored == found.favored
    # Where probabilities are large, prob hides the clock from the static control, and keeps its order.
    convex = [replace(part, log_prob_true=part.log_prob_true + 15) for part in (*real, *controls)]
    found = compare_formulas(convex[: len(real)], convex[len(real) :], success={})
    assert abs(rows_of(found)[Formula("prob")].static_share) < 0.2
    assert found.favored.scale != "prob"
    # A clock that explains little needs no other formula.
    real, controls = judged(plus(rises, clock(0.05)), plus(falls, clock(0.05)), other=flat)
    calm = compare_formulas(real, controls, success={})
    assert (calm.favored, calm.judged_by) == (PAPER, "static")
    assert "no other formula is needed" in calm.sentence


def test_without_any_evidence_the_papers_formula_stays() -> None:
    real, controls = judged(plus(rises, clock(10)), falls)
    found = compare_formulas(real, [], success={})
    assert [row.formula for row in found.rows] == FREE
    assert (found.favored, found.judged_by) == (PAPER, "nothing")
    assert "`controls=static`" in found.sentence
    stuck = compare_formulas(*judged(flat, flat), success={})
    assert stuck.favored == PAPER
    assert len(list_formulas(real, controls)) == 9


def test_a_formula_of_some_episodes_is_compared_on_those() -> None:
    ticks = clock(10)
    real, controls = judged(plus(rises, ticks), plus(falls, ticks))
    some = [
        part for part in controls if part.control == "static" and part.segment.episode_index < 12
    ]
    found = compare_formulas(real, some, success=SUCCESS)
    row = rows_of(found)[Formula(debias="static")]
    assert (row.episodes, row.gain.defined) == (12, 12)
    assert Formula(debias="static") not in list_formulas(real, some, of_all=True)
    assert row.gain.value == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_one_in_twenty_random_formulas_is_not_favored() -> None:
    # Where all formulas are chance, the level is 5 % for all of them together.
    favored = []
    for seed in range(5):
        found = compare_formulas(*judged(flat, flat, seed=seed), success=SUCCESS)
        favored.append(found.favored != PAPER)
    assert sum(favored) <= 1


def test_a_comparison_is_json() -> None:
    found: Any = formulas_to_json(compare_formulas(*judged(rises, falls), success=SUCCESS))
    assert found["favored"] == {"scale": "log-prob", "debias": "none"}
    assert found["rows"][3]["formula"] == {"scale": "log-prob", "debias": "static"}
    assert found["rows"][3]["static_share"] is None
    assert found["rows"][0]["auc"]["value"] == 1


def test_a_formula_has_a_name_and_words() -> None:
    assert Formula("log-odds", "blank").name == "log-odds - blank"
    assert Formula("log-odds", "blank").words == (
        "log P(True) - log P(False) less that of as many gray images"
    )
    with pytest.raises(ValueError, match='not "prob"'):
        Formula("prob", "contrast")
