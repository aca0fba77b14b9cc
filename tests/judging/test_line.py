import numpy as np
import pytest

from lerobot_topreward.judging.line import (
    FEWEST,
    Line,
    judge_episode,
    line_at,
    line_of_outcomes,
    line_of_progress,
)
from lerobot_topreward.judging.thresholds import best_line
from lerobot_topreward.records import PrefixScores, Segment


def scores(*log_probs: float, censored: tuple[bool, ...] | None = None) -> PrefixScores:
    ends = np.arange(len(log_probs))
    return PrefixScores(
        segment=Segment(0, 0, len(ends), "pick up the cube"),
        control="none",
        prefix_length=ends + 1,
        frame_index=ends,
        log_prob_true=np.array(log_probs, dtype=np.float32),
        log_prob_false=np.array(log_probs, dtype=np.float32),
        true_censored=None if censored is None else np.array(censored),
    )


def test_a_score_within_the_noise_is_not_judged() -> None:
    line = Line(-2.0, -2.5, -1.5, "you")
    said = {score: judge_episode([scores(score)], line).word for score in (-2.6, -2.5, -1.6, -1.5)}
    assert said == {-2.6: "bad", -2.5: "cannot tell", -1.6: "cannot tell", -1.5: "good"}
    found = judge_episode([scores(-1.0)], "no line")
    assert (found.word, found.reason) == ("cannot tell", "no line")


def test_the_last_three_prefixes_of_the_episode_decide() -> None:
    line = line_at(-2.0, origin="you", precision="float32")
    assert judge_episode([scores(-9.0, -1.0), scores(-1.0, -1.0)], line).word == "good"
    assert judge_episode([scores(-1.0, -9.0), scores(-1.0, -1.0)], line).word == "bad"


def test_a_bound_can_only_be_bad() -> None:
    line = line_at(-2.0, origin="you", precision="float32")
    bound = (False, True)
    assert judge_episode([scores(-1.0, -1.0, censored=bound)], line).word == "cannot tell"
    assert judge_episode([scores(-9.0, -9.0, censored=bound)], line).word == "bad"
    exact = (False, False)
    assert judge_episode([scores(-1.0, -1.0, censored=exact)], line).word == "good"


def test_coarse_answers_blur_a_line() -> None:
    widths = [
        (line := line_at(-2.0, origin="you", precision=precision)).high - line.low
        for precision in ("float32", "float16", "bfloat16", "auto")
    ]
    assert widths[0] < widths[1] < widths[2] == widths[3]


def test_outcomes_that_are_told_apart_draw_a_narrow_line() -> None:
    rng = np.random.default_rng(0)
    success = np.arange(40) % 2 == 0
    apart = np.where(success, -1.0, -5.0) + rng.normal(0, 0.2, 40)
    mixed = rng.normal(-3, 1, 40)
    found = [
        line_of_outcomes(values, success, origin="r", precision="float32")
        for values in (apart, mixed)
    ]
    clear, blurred = (line for line in found if isinstance(line, Line))
    assert clear.value == best_line(apart, success)
    assert apart[~success].max() < clear.low <= clear.value <= clear.high < apart[success].min()
    assert blurred.high - blurred.low > clear.high - clear.low
    few = line_of_outcomes(apart[:8], success[:8], origin="r", precision="float32")
    assert few == f"r has 4 successes and 4 failures, and a line takes {FEWEST} of each"


def test_without_outcomes_the_line_is_that_of_the_default_rule() -> None:
    curves = [np.linspace(-10.0, -10 + rise, 20) for rise in np.linspace(6, 10, 30)]
    line = line_of_progress(curves, origin="r", precision="float32")
    assert isinstance(line, Line)
    low, high = np.quantile(np.concatenate(curves), (0.05, 0.99))
    assert line.value == pytest.approx(low + 0.8 * (high - low))
    assert line.low < line.value < line.high
    assert isinstance(line_of_progress(curves[:4], origin="r", precision="float32"), str)
