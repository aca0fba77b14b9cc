"""The judgment is asked about rewards whose worth is known."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lerobot_topreward.judging.controls import compare_controls
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.judgment import Judgment, judge_reward
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.rewards import label_rewards

IMAGES = 20
Curve = Callable[[int, np.random.Generator], np.ndarray]  # of an episode, nats


def score(curve: Curve, *, episodes: int, control: str = "none") -> list[PrefixScores]:
    rng = np.random.default_rng(0 if control == "none" else 1)
    scores = []
    for episode in range(episodes):
        log_prob = np.minimum(curve(episode, rng), -1e-3).astype(np.float32)
        scores.append(
            PrefixScores(
                segment=Segment(episode, 0, IMAGES, "pick up the cube"),
                control=control,
                prefix_length=np.arange(1, IMAGES + 1),
                frame_index=np.arange(IMAGES),
                log_prob_true=log_prob,
                log_prob_false=np.log1p(-np.exp(log_prob)),
            )
        )
    return scores


def judge(
    real: Curve,
    *,
    static: Curve | None = None,
    backwards: Curve | None = None,
    episodes: int = 20,
    known: bool = False,
    dtype: str = "float32",
) -> Judgment:
    """Every second episode succeeds."""
    scores = score(real, episodes=episodes)
    index = np.repeat(np.arange(episodes), IMAGES)
    rewards = label_rewards(scores, index, horizon=2, normalize="task")
    others = {"static": static, "reversed": backwards}
    success = {episode: episode % 2 == 0 for episode in range(episodes)} if known else {}
    controls = [
        compare_controls(scores, score(curve, episodes=episodes, control=name), success=success)
        for name, curve in others.items()
        if curve is not None
    ]
    return judge_reward(
        scores,
        episode_metrics(scores, rewards, fps=2.0),
        controls=controls,
        success=success,
        dtype=dtype,
    )


def grades(judgment: Judgment) -> dict[str, str]:
    return {found.name: found.grade for found in judgment.evidence}


def progress(episode: int, rng: np.random.Generator) -> np.ndarray:
    """Successes get to the end, failures halfway; with a little noise."""
    end = 1.0 if episode % 2 == 0 else 0.5
    return -5 + 4.5 * np.minimum(np.linspace(0, 1, IMAGES), end) + rng.normal(0, 0.1, IMAGES)


def still(episode: int, rng: np.random.Generator) -> np.ndarray:
    return -5 + rng.normal(0, 0.1, IMAGES)


def falling(episode: int, rng: np.random.Generator) -> np.ndarray:
    return progress(episode, rng)[::-1]


def clock(episode: int, rng: np.random.Generator) -> np.ndarray:
    return -5 + np.log(np.arange(1, IMAGES + 1)) + rng.normal(0, 0.1, IMAGES)


def noise(episode: int, rng: np.random.Generator) -> np.ndarray:
    return -2 + rng.normal(0, 0.05, IMAGES)


@pytest.mark.parametrize("known", [False, True])
def test_a_reward_of_progress_is_usable(known: bool) -> None:
    found = judge(progress, static=still, backwards=falling, known=known)
    assert found.level == "usable"
    assert found.usable
    assert set(grades(found)) == {"range", "noise", "order", "static", "reversed"} | (
        {"success"} if known else set()
    )
    assert len(found.reasons) == len(found.evidence)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("curves", "because"),
    [
        ((clock, clock, clock), {"static", "reversed"}),
        ((noise, noise, noise), {"noise", "order"}),
        ((falling, still, progress), {"order"}),
        ((lambda *_: np.full(IMAGES, -2.0),) * 3, {"range", "order"}),
    ],
    ids=["time alone", "noise", "turned round", "a constant"],
)
def test_what_is_no_reward_judges_nothing(
    curves: Sequence[Curve],
    because: set[str],
    known: bool,
) -> None:
    real, static, backwards = curves
    found = judge(real, static=static, backwards=backwards, known=known)
    assert found.level == "cannot judge this dataset"
    assert not found.usable
    bad = {name for name, grade in grades(found).items() if grade == "bad"}
    assert because <= bad <= because | {"success"}


def test_without_controls_a_reward_is_used_with_care_and_their_price_is_said() -> None:
    found = judge(progress)
    assert found.level == "usable with care"
    (reason,) = found.reasons
    assert "static was not scored" in reason
    assert "costs as much as labeling 20 episodes" in reason


def test_time_that_explains_a_part_wants_care() -> None:
    def half(episode: int, rng: np.random.Generator) -> np.ndarray:
        return (still(episode, rng) + progress(0, rng)) / 2

    found = judge(lambda _, rng: progress(0, rng), static=half)
    assert found.level == "usable with care"
    assert "`debias=static`" in found.reasons[0]


def test_scores_within_the_rounding_of_bfloat16_are_noise() -> None:
    def small(episode: int, rng: np.random.Generator) -> np.ndarray:
        return -5 + np.round(0.3 * np.linspace(0, 1, IMAGES) * 8) / 8

    assert judge(small, static=still, dtype="float32").usable
    found = judge(small, static=still, dtype="bfloat16")
    assert not found.usable
    assert "bfloat16 rounds to 0.125" in found.reasons[0]
    assert "makes progress of noise" in found.reasons[0]


def test_failures_that_score_higher_are_said() -> None:
    found = judge(lambda episode, rng: progress(episode + 1, rng), static=still, known=True)
    assert not found.usable
    assert "failures score higher than successes" in found.reasons[-1]


def test_a_reward_that_sees_success_but_no_progress_is_for_whole_episodes() -> None:
    def at_the_end(episode: int, rng: np.random.Generator) -> np.ndarray:
        curve = -3 + np.cumsum(rng.normal(0, 0.1, IMAGES))
        return curve - curve[-1] - (0 if episode % 2 == 0 else 3)

    found = judge(at_the_end, static=still, known=True)
    order = next(each for each in found.evidence if each.name == "order")
    assert order.grade == "care"
    assert "`min_success`" in order.text
    assert "static" not in grades(found)  # nothing rises that could be compared
    assert found.level == "usable with care"


def test_episodes_of_one_value_have_no_order() -> None:
    found = judge(lambda episode, _: np.full(IMAGES, -1.0 - episode))
    (reason,) = found.reasons
    assert reason.startswith("no curve has an order: those of all 20 episodes are constant")
    assert set(grades(found)) == {"range", "order", "drops"}


def test_a_rule_that_would_drop_nearly_all_is_named() -> None:
    found = judge(lambda episode, rng: progress(1 if episode else 0, rng), static=still)
    assert grades(found)["drops"] == "care"
    assert "would drop 19 of 20 episodes" in found.reasons[-1]


def test_a_few_episodes_are_a_hint_but_a_constant_is_certain() -> None:
    assert judge(noise, static=noise, episodes=3).level == "usable with care"
    assert "only 3 episodes are labeled" in judge(progress, static=still, episodes=3).reasons[-1]
    assert not judge(lambda *_: np.full(IMAGES, -2.0), episodes=3).usable
