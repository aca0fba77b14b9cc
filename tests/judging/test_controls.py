from collections.abc import Sequence

import numpy as np
import pytest

from lerobot_topreward.judging.controls import compare_controls, judge_control
from lerobot_topreward.judging.metrics import rise_in_words
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.rewards import PAPER, Formula


def scored(
    curve: Sequence[float],
    *,
    episode: int = 0,
    start: int = 0,
    control: str = "none",
    text: str = "pick up the cube",
) -> PrefixScores:
    log_prob = np.array(curve, dtype=np.float32)
    return PrefixScores(
        segment=Segment(episode, start, len(curve), text),
        control=control,
        prefix_length=np.arange(1, len(curve) + 1),
        frame_index=start + np.arange(len(curve)),
        log_prob_true=log_prob,
        log_prob_false=np.full_like(log_prob, -1),
    )


def several(curves: Sequence[Sequence[float]], *, control: str = "none") -> list[PrefixScores]:
    return [scored(curve, episode=i, control=control) for i, curve in enumerate(curves)]


RISING = [[-9, -7, -5, -3, -3, -3]] * 6  # by 6 nats
FLAT = [[-9, -9, -9, -9, -9, -9]] * 6
FALLING = [[-3, -5, -7, -8, -9, -9]] * 6
HALF = [[-9, -8, -7, -6, -6, -6]] * 6  # by half of the real one


def say(control: str, curves: Sequence[Sequence[float]], **options: object) -> str:
    summary = compare_controls(several(RISING), several(curves, control=control))
    return judge_control(summary).text


def test_a_control_is_summed_up_beside_the_real_curves() -> None:
    real = several([[-8, -4, -2, -2, -2], [-6, -6, -6, -6, -6]])
    still = several([[-8, -8, -5, -5, -5], [-6, -5, -6, -6, -6]], control="static")
    found = compare_controls(real, still)
    assert (found.control, found.episodes, found.formula) == ("static", 2, PAPER)
    # The second real curve is constant: its VOC is undefined and not counted as zero.
    assert found.real.voc == pytest.approx(0.8944, abs=1e-4)
    assert found.real.voc_undefined == 1
    assert found.other.voc_undefined == 0
    assert found.real.rise == pytest.approx((6 + 0) / 2)
    assert found.other.rise == pytest.approx((3 + 0) / 2)
    assert found.share == pytest.approx(0.5)
    assert found.real.success_score == pytest.approx(-4)
    assert found.real_above == pytest.approx(0.75)  # the second one is a tie
    assert np.isnan(found.real.voc_interval).all()  # of one value


def test_progress_of_probability_is_compared_as_such() -> None:
    still = several([[-9, -7, -6, -6, -6]] * 3, control="static")
    logs = compare_controls(several([[-9, -5, -0.1, -0.1, -0.1]] * 3), still)
    probs = compare_controls(
        several([[-9, -5, -0.1, -0.1, -0.1]] * 3), still, formula=Formula("prob")
    )
    assert logs.share == pytest.approx(3 / 8.9)
    assert probs.share == pytest.approx(
        (np.exp(-6) - np.exp(-9)) / (np.exp(-0.1) - np.exp(-9)), rel=1e-5
    )


def test_segments_of_an_episode_count_once() -> None:
    real = [scored([-8, -4], episode=0), scored([-6, -4], episode=0, start=2)]
    still = [scored([-8, -7], control="static"), scored([-6, -6], start=2, control="static")]
    found = compare_controls([*real, *several([[-9, -1]] * 4)[1:]], still)
    assert found.episodes == 1
    assert found.real.rise == pytest.approx(((-6 + 8) + (-5 + 6)) / 2)
    assert found.other.rise == pytest.approx(((-7.5 + 8) + 0) / 2)


def test_intervals_hold_the_mean_and_narrow_down() -> None:
    rng = np.random.default_rng(0)

    def width(episodes: int) -> float:
        curves = [[-9, -9 + r, -9 + r, -9 + r] for r in rng.normal(4, 1, episodes)]
        still = [[-9, -9 + r, -9 + r, -9 + r] for r in rng.normal(1, 0.5, episodes)]
        found = compare_controls(several(curves), several(still, control="static"))
        for value, (low, high) in (
            (found.share, found.share_interval),
            (found.real.rise, found.real.rise_interval),
            (found.other.success_score, found.other.success_score_interval),
        ):
            assert low < value < high
        return found.share_interval[1] - found.share_interval[0]

    assert width(100) < width(8)


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(ValueError, match="share a segment"):
        compare_controls(several(RISING), [scored([-1, -2], episode=9, control="static")])


def test_static_videos() -> None:
    most = say("static", RISING)
    assert "time alone explains all" in most
    assert "rises by 100% of" in most
    assert "`debias=static`" in most
    assert "`scale=log-odds`" in most
    assert say("static", FLAT) == (
        "time alone explains little of this curve: the first frame repeated neither rises nor falls"
    )
    drift = [[-9, -8.99, -8.98, -8.97, -8.97, -8.97]] * 6  # in order, and next to nothing
    assert "explains little" in say("static", drift)
    part = [[-9, -8, -7, -7, -7, -7]] * 6
    assert "explains a part" in say("static", part)
    jump = [[-9, -4, -4.2, -4.4, -4.5, -4.6]] * 6  # high, but in no order of time
    assert "explains most" in say("static", jump)


def test_log_odds_are_no_cure_of_themselves() -> None:
    summary = compare_controls(
        several(RISING), several(RISING, control="static"), formula=Formula("log-odds")
    )
    assert "`scale=log-odds`" not in judge_control(summary).text


def test_reversed_videos() -> None:
    assert "backwards the curve falls, by 94% of what it rises forwards" in say("reversed", FALLING)
    assert "order of the images hardly counts" in say("reversed", RISING)
    assert "neither rises nor falls" in say("reversed", FLAT)
    some = [[-9, -8, -7, -7, -7, -7]] * 6
    assert "counts only in part" in say("reversed", some)


def test_swapped_instructions() -> None:
    assert "does not read the instruction" in say("swapped", RISING)
    assert say("swapped", FLAT).startswith("the model reads the instruction: asked about another")
    assert "only in part" in say("swapped", HALF)
    saturated = [[-1, -1, -1, -1, -1, -1]] * 6  # another task counts as done from the start
    assert "only in part" in say("swapped", saturated)


def test_a_reward_without_a_rise_is_not_compared() -> None:
    summary = compare_controls(several(FLAT), several(RISING, control="static"))
    assert np.isnan(summary.share)
    assert "do not rise" in judge_control(summary).text
    noise = [[-9, -9, -8, -8, -8], [-8, -9, -9, -9, -9], [-9, -9, -8.9, -8.9, -8.9]]
    summary = compare_controls(several(noise), several(noise, control="static"))
    assert "do not rise" in judge_control(summary).text


def test_few_episodes_are_a_hint() -> None:
    summary = compare_controls(several(RISING[:2]), several(FLAT[:2], control="static"))
    assert "only 2 episodes: a hint" in judge_control(summary).text


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.5, "rises by 50% of what the real videos do"),
        (-1, "falls by 100% of what the real videos rise"),
        (0.004, "neither rises nor falls"),
        (-0.004, "neither rises nor falls"),
        (float("nan"), "the real videos do not rise, so there is nothing to compare"),
    ],
)
def test_a_rise_and_a_fall_have_their_words(share: float, words: str) -> None:
    assert rise_in_words(share) == words


def test_only_successes_have_to_fall_backwards() -> None:
    # Backwards, the failure (an undone success) rises; the successes fall.
    real, backwards = several(RISING), several([*FALLING[:5], RISING[0]], control="reversed")
    known = {0: True, 1: True, 5: False}
    assert compare_controls(real, backwards, success=known).episodes == 2
    assert compare_controls(real, backwards, success=known).share == pytest.approx(-17 / 18)
    for nothing in (None, {}, {5: False}):
        assert compare_controls(real, backwards, success=nothing).episodes == 6
    static = several(RISING, control="static")
    assert compare_controls(real, static, success=known).episodes == 6
