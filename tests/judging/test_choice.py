"""Which judge is advised: constructed judges, of which it is known what they see."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr

from lerobot_topreward.judging.choice import FASTER, Advice, Candidate, choose_judge
from lerobot_topreward.judging.judges import JudgeSummary, curve_agreement, summarize_judge
from lerobot_topreward.records import PrefixScores, Segment

EPISODES = 24  # every second one succeeds
PREFIXES = 15
SUCCESS = {episode: episode % 2 == 0 for episode in range(EPISODES)}
NO_OUTCOMES: dict[int, bool] = {}


def scored(
    episode: int, curve: np.ndarray, control: str = "none", *, start: int = 0, **flags: np.ndarray
) -> PrefixScores:
    length = np.arange(1, len(curve) + 1)
    return PrefixScores(
        segment=Segment(episode, start, len(curve), "pick up the cube"),
        control=control,
        prefix_length=length,
        frame_index=start + length - 1,
        log_prob_true=(curve - 40).astype(np.float32),
        log_prob_false=np.full(len(curve), -1, dtype=np.float32),
        **flags,
    )


@cache
def judge(
    *,
    sees: float = 6.0,
    clock: float = 0.0,
    tells: float = 1.0,
    noise: float = 0.2,
    spread: float = 0.0,
    episodes: int = EPISODES,
    known: int = EPISODES,
    controls: tuple[str, ...] = ("static", "reversed"),
    seed: int = 0,
) -> JudgeSummary:
    """A judge that adds what it sees of the progress and what the length earns, nats.

    A failure ends at a third of the progress as far as it `tells` failures; `spread` is how much
    the part of the clock differs from episode to episode. The outcomes of the first `known` are.
    """
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, PREFIXES)
    found: dict[str, list[PrefixScores]] = {name: [] for name in ("none", *controls)}
    for episode in range(episodes):
        progress = time * (1 if SUCCESS[episode] else 1 - tells * 2 / 3)
        ticking = clock + spread * rng.normal()
        shown = {"none": progress, "static": 0 * time, "reversed": progress[::-1]}
        for name, parts in found.items():
            curve = sees * shown[name] + ticking * time + rng.normal(0, noise, PREFIXES)
            parts.append(scored(episode, curve, name))
    return summarize_judge(
        found["none"],
        {name: found[name] for name in controls},
        success={key: SUCCESS[key] for key in range(min(known, episodes))},
        episode_index=np.repeat(np.arange(episodes), PREFIXES),
        fps=10.0,
        dtype="float32",
    )


def choose(
    *summaries: JudgeSummary,
    success: Mapping[int, bool] = SUCCESS,
    seconds: tuple[float, ...] = (),
) -> Advice:
    taken = (*seconds, *(float("nan"),) * len(summaries))
    names = "ABCDEFGH"
    candidates = [Candidate(*each) for each in zip(names, summaries, taken, strict=False)]
    return choose_judge(candidates, success)


CLOCK = judge(sees=0, clock=6)
CONSTANT = judge(sees=0, noise=0.001)
NOISE = judge(sees=0, noise=2)
TURNED = judge(sees=-6)


def test_the_one_that_follows_the_video_is_advised_and_why_the_other_is_not() -> None:
    advice = choose(CLOCK, judge(), success=NO_OUTCOMES)
    assert advice.names == ("B",)
    assert advice.sentence.startswith("use B: its curve follows the video (static rise ")
    assert "; A's curve rises as much on a still image (" in advice.sentence


def test_none_is_advised_where_none_can_judge() -> None:
    advice = choose(CLOCK, CONSTANT, NOISE, TURNED)
    assert advice.names == ()
    assert advice.sentence.startswith("use none of these: A's curve rises as much on a still image")
    assert "B says the same of every prefix" in advice.sentence
    assert "C's curve is mostly noise" in advice.sentence
    assert advice.sentence.endswith("; and 1 more")
    assert "D's curve does not rise" in choose(CLOCK, TURNED, success=NO_OUTCOMES).sentence.replace(
        "B's", "D's"
    )


def test_one_judge_alone_is_advised_or_not() -> None:
    assert choose(judge()).names == ("A",)
    assert choose(CLOCK).names == ()


def test_telling_success_from_failure_decides_first() -> None:
    """A follows the video a little better on still images, but takes failures for successes."""
    blind, seeing = judge(tells=0, clock=0), judge(clock=2.5, seed=1)
    assert abs(blind.static_share) < abs(seeing.static_share)
    advice = choose(blind, seeing)
    assert advice.names == ("B",)
    assert "tells success from failure (AUC 1.00)" in advice.sentence
    # Where outcomes are not known, nobody sees that.
    hidden = [
        judge(tells=0, clock=0, known=0),
        judge(clock=2.5, seed=1, known=0),
    ]
    assert choose(*hidden, success=NO_OUTCOMES).names == ("A",)


def test_less_of_a_clock_decides_among_those_that_tell_success() -> None:
    half, clear = judge(clock=3), judge(clock=0.1, seed=1)
    assert half.judgment.usable
    assert clear.judgment.usable
    advice = choose(half, clear)
    assert advice.names == ("B",)
    assert "A's curve rises on a still image by " in advice.sentence


def test_no_difference_is_claimed_within_intervals() -> None:
    """One judge's clock is larger in the mean, and differs so much that this means nothing."""
    one, other = judge(clock=2.5, spread=2.5), judge(clock=2.2, spread=2.5, seed=5)
    assert one.static_share != pytest.approx(other.static_share, abs=0.02)
    advice = choose(one, other)
    assert set(advice.names) == {"A", "B"}
    assert "these episodes do not tell them apart" in advice.sentence


def test_equal_judges_are_not_told_apart_whatever_their_order() -> None:
    for pair in ((judge(), judge(seed=3)), (judge(seed=3), judge())):
        advice = choose(*pair)
        assert advice.names == ("A", "B")
        assert advice.sentence.startswith("use A or B; these episodes do not tell them apart: A's")


def test_of_equal_ones_a_clearly_faster_one_is_advised() -> None:
    pair = judge(), judge(seed=3)
    advice = choose(*pair, seconds=(10, 10 * FASTER))
    assert advice.names == ("B",)
    assert "A, which these episodes do not tell apart from it, takes 10 s" in advice.sentence
    assert choose(*pair, seconds=(10, 9)).names == ("A", "B")
    assert choose(*pair, seconds=(10,)).names == ("A", "B")  # the other one's was not measured


def test_a_small_difference_on_still_images_is_not_worth_a_choice() -> None:
    one, other = judge(clock=0.5, noise=0.01), judge(clock=0, noise=0.01, seed=1)
    assert 0.05 < one.static_share < 0.2
    assert choose(one, other).names == ("A", "B")


def test_a_usable_one_comes_before_one_that_needs_care() -> None:
    careful = judge(controls=("reversed",))
    assert careful.judgment.level == "usable with care"
    advice = choose(careful, judge(seed=1))
    assert advice.names == ("B",)
    assert (
        "A, which these episodes do not tell apart from it, is usable with care only"
        in advice.sentence
    )
    alone = choose(careful)
    assert alone.sentence.startswith(
        "use A, with care: its curve rises with time, and what a still"
    )


def test_few_episodes_are_a_hint() -> None:
    advice = choose(judge(episodes=3), judge(episodes=3, clock=30, sees=0, seed=1))
    assert "(only 3 episodes: a hint, no more)" in advice.sentence
    assert set(advice.names) == {"A", "B"}  # nothing is surely different


def test_a_judge_that_is_not_seen_to_tell_success_is_said_so() -> None:
    few = {episode: SUCCESS[episode] for episode in range(12)}
    advice = choose(judge(tells=0, known=12), success=few)
    assert "but is not seen to tell success from failure (AUC" in advice.sentence


def test_scores_that_are_bounds_are_counted_as_a_share() -> None:
    flags = np.array([True, True, False, False])
    parts = [
        scored(0, np.arange(4.0), true_censored=flags),
        scored(1, np.arange(4.0)),
    ]
    found = summarize_judge(
        parts,
        {"static": []},
        success={},
        episode_index=np.repeat([0, 1], 4),
        fps=10.0,
        dtype="float32",
    )
    assert found.censored == 0.25
    assert np.isnan(found.static_share)
    assert np.isnan(found.auc.value)


def test_agreement_is_the_mean_rank_correlation_of_episodes() -> None:
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(2, 6, 12))
    curves[1] += curves[0]
    one, other = (
        [scored(episode // 2, curve, start=20 * (episode % 2)) for episode, curve in enumerate(own)]
        for own in curves
    )
    each = [float(np.array(spearmanr(a, b))[0]) for a, b in zip(*curves, strict=True)]
    found = curve_agreement(one, other)
    assert found.value == pytest.approx(np.mean(np.reshape(each, (3, 2)).mean(axis=1)), abs=1e-6)
    assert found.low < found.value < found.high
    assert found.defined == 3
    assert curve_agreement(one, one).value == pytest.approx(1)
    turned = [scored(i // 2, -curve, start=20 * (i % 2)) for i, curve in enumerate(curves[0])]
    assert curve_agreement(one, turned).value == pytest.approx(-1)
    # Of the episodes that both have.
    assert curve_agreement(one, other[:2]).defined == 1
    assert np.isnan(curve_agreement(one[:2], other[4:]).value)


def test_agreement_of_constants_is_undefined_and_of_other_prefixes_refused() -> None:
    flat, rising = scored(0, np.zeros(5)), scored(0, np.arange(5.0))
    found = curve_agreement([flat], [rising])
    assert np.isnan(found.value)
    assert found.undefined == 1
    fewer = PrefixScores(
        rising.segment,
        "none",
        *(
            getattr(rising, name)[1:]
            for name in ("prefix_length", "frame_index", "log_prob_true", "log_prob_false")
        ),
    )
    with pytest.raises(ValueError, match="after the same prefixes"):
        curve_agreement([rising], [fewer])
