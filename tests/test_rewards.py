from collections.abc import Sequence

import numpy as np
import pytest

from lerobot_topreward import rewards
from lerobot_topreward.records import PrefixScores, Segment

# Published by the reference repository; its VOC (Spearman with time) is .9429.
GOLDEN = -np.array(
    [18.75, 17.125, 11, 12, 11.625, 12.125, 10.75, 11.25, 9.5, 9, 9.25, 8.75, 8, 7.625, 6.375],
    dtype=np.float32,
)


def scored(
    true: Sequence[float],
    *,
    episode: int = 0,
    start: int = 0,
    length: int | None = None,
    prefixes: Sequence[int] | None = None,
    instruction: str = "pick up the cube",
    control: str = "none",
) -> PrefixScores:
    length = len(true) if length is None else length
    lengths = np.array(range(1, len(true) + 1) if prefixes is None else prefixes, dtype=np.int64)
    return PrefixScores(
        segment=Segment(episode, start, length, instruction),
        control=control,
        prefix_length=lengths,
        frame_index=start + lengths - 1,
        log_prob_true=np.array(true, dtype=np.float32),
        log_prob_false=np.array(true, dtype=np.float32) - 1,
    )


def test_episode_normalisation_is_equation_two() -> None:
    progress = rewards.normalize_episode(GOLDEN)
    np.testing.assert_allclose(progress, (GOLDEN + 18.75) / 12.375, rtol=1e-6)
    assert progress.min() == 0
    assert progress.max() == 1


@pytest.mark.parametrize("values", [[-3.0], [-2.0, -2.0, -2.0]])
def test_one_value_or_a_constant_is_all_ones(values: list[float]) -> None:
    assert rewards.normalize_episode(np.array(values, dtype=np.float32)).tolist() == [1] * len(
        values
    )


def test_task_normalisation_keeps_a_failed_episode_low() -> None:
    good = np.linspace(-20, -2, 50, dtype=np.float32)
    failed = np.linspace(-20, -14, 50, dtype=np.float32)
    progress = rewards.normalize_task([good, failed])
    assert progress[0][-1] == 1
    assert progress[1][-1] < 0.4
    assert rewards.normalize_episode(failed)[-1] == 1
    # Equal rewards become equal progress, whichever the episode.
    np.testing.assert_allclose(np.interp(-15, good, progress[0]), 0.26, atol=0.03)
    np.testing.assert_allclose(np.interp(-15, failed, progress[1]), 0.26, atol=0.03)


def test_task_normalisation_ignores_one_outlier() -> None:
    values = [np.linspace(-20, -2, 50, dtype=np.float32) for _ in range(8)]
    spoiled = [*values, np.array([-900.0], dtype=np.float32)]
    before, after = rewards.normalize_task(values), rewards.normalize_task(spoiled)
    np.testing.assert_allclose(after[0], before[0], atol=0.01)
    assert after[-1].tolist() == [0]


def test_one_success_in_ten_still_sets_the_top() -> None:
    failed = np.linspace(-20, -14, 40, dtype=np.float32)
    success = np.concatenate([np.linspace(-20, -4, 36), np.full(4, -2.0)]).astype(np.float32)
    progress = rewards.normalize_task([*[failed] * 9, success])
    assert progress[-1][-1] == 1
    assert progress[0][-1] < 0.5


def test_a_task_without_spread_is_all_ones() -> None:
    same = np.full(4, -3.0, dtype=np.float32)
    assert [p.tolist() for p in rewards.normalize_task([same, same[:1]])] == [[1] * 4, [1]]


@pytest.mark.parametrize("quantiles", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.9, 0.1)])
def test_quantiles_out_of_order_are_refused(quantiles: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="quantiles must be 0 <= low < high <= 1"):
        rewards.normalize_task([GOLDEN], quantiles=quantiles)


def test_interpolation_puts_a_prefix_at_its_last_frame() -> None:
    lengths = np.array([3, 5, 9], dtype=np.int64)
    dense = rewards.interpolate(lengths, np.array([1.0, 3.0, -1.0]), length=11)
    assert dense.tolist() == [1, 1, 1, 2, 3, 2, 1, 0, -1, -1, -1]


def test_interpolation_of_one_prefix_is_flat() -> None:
    dense = rewards.interpolate(np.array([2], dtype=np.int64), np.array([-4.0]), length=4)
    assert dense.tolist() == [-4] * 4


def test_the_window_slides_back_at_the_end() -> None:
    progress = np.array([0.0, 0.1, 0.3, 0.6, 1.0])
    gained = rewards.advantage(progress, horizon=2)
    np.testing.assert_allclose(gained, [0.3, 0.5, 0.7, 0.7, 0.7])


@pytest.mark.parametrize("horizon", [4, 5, 100])
def test_a_horizon_beyond_the_episode_is_its_whole_gain(horizon: int) -> None:
    progress = np.array([0.2, 0.1, 0.3, 0.6, 0.9])
    np.testing.assert_allclose(rewards.advantage(progress, horizon=horizon), [0.7] * 5)


def test_one_frame_gains_nothing() -> None:
    assert rewards.advantage(np.array([1.0]), horizon=10).tolist() == [0]


def test_a_horizon_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon must be >= 1 frame; got 0"):
        rewards.advantage(np.array([1.0]), horizon=0)


def test_nothing_crosses_the_border_of_two_segments() -> None:
    first = scored([-9, -5, -1], length=5, prefixes=[1, 3, 5], instruction="pick")
    second = scored([-8, -4], start=5, length=3, prefixes=[1, 3], instruction="place")
    episode = rewards.label_rewards([second, first], np.zeros(8, int), horizon=2)
    np.testing.assert_allclose(episode.progress, [0, 0.25, 0.5, 0.75, 1, 0, 0.5, 1])
    np.testing.assert_allclose(episode.advantage, [0.5] * 5 + [1] * 3)
    assert np.flatnonzero(episode.scored).tolist() == [0, 2, 4, 5, 7]
    np.testing.assert_allclose(episode.log_prob_true, [-9, -7, -5, -3, -1, -8, -6, -4])
    np.testing.assert_allclose(episode.log_prob_false, episode.log_prob_true - 1)
    assert {
        getattr(episode, name).dtype for name in ("progress", "advantage", "log_prob_true")
    } == {np.dtype(np.float32)}


def test_task_mode_shares_the_scale_of_an_instruction_only() -> None:
    scores = [
        scored([-10, -1], episode=1, instruction="pick"),
        scored([-10, -5.5], episode=0, instruction="pick"),
        scored([-100, -50], episode=2, instruction="place"),
    ]
    done = rewards.label_rewards(
        scores, np.repeat([0, 1, 2], 2), horizon=1, normalize="task", quantiles=(0.0, 1.0)
    )
    np.testing.assert_allclose(done.progress[1::2], [0.5, 1, 1])


def test_progress_is_made_of_the_probability_on_request() -> None:
    halves = scored(np.log([0.2, 0.4, 0.6]).tolist(), episode=0)
    whole = scored(np.log([0.2, 0.6, 1.0]).tolist(), episode=1)
    expected: dict[rewards.Normalize, tuple[float, float]] = {
        "episode": (1.0, 1.0),
        "task": (0.5, 1.0),
    }
    for normalize, ends in expected.items():
        done = rewards.label_rewards(
            [halves, whole],
            np.repeat([0, 1], 3),
            horizon=1,
            normalize=normalize,
            formula=rewards.Formula("prob"),
            quantiles=(0.0, 1.0),
        )
        for episode, end in enumerate(ends):
            progress = done.episode(episode).progress
            np.testing.assert_allclose(progress, [0, end / 2, end], atol=1e-6)
        np.testing.assert_allclose(done.log_prob_true[:3], np.log([0.2, 0.4, 0.6]), rtol=1e-6)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([scored([-1], start=1)], "cover it from frame 0"),
        ([scored([-2, -1]), scored([-2], start=1)], "without gap or overlap"),
        ([scored([-1], control="static")], 'control "none"'),
        ([scored([-1]), scored([-1], episode=1, start=1)], "episode 1: segments must cover"),
    ],
)
def test_segments_that_do_not_make_an_episode_are_refused(
    segments: list[PrefixScores], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rewards.label_rewards(segments, np.array([0, 1, 1]), horizon=1)


def test_the_others_frames_stay_zero() -> None:
    scores = [scored([-4, -2], episode=2), scored([-3, -2, -1], episode=0)]
    frames = rewards.label_rewards(scores, np.array([0, 0, 0, 2, 2, 7]), horizon=1)
    assert frames.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert frames.episode_index.tolist() == [0, 0, 0, 2, 2, 7]
    assert frames.frame_index.tolist() == [0, 1, 2, 0, 1, 0]
    assert frames.labelled.tolist() == frames.scored.tolist() == [True] * 5 + [False]
    np.testing.assert_allclose(frames.progress, [0, 0.5, 1.0, 0, 1, 0])
    np.testing.assert_allclose(frames.log_prob_true, [-3, -2, -1, -4, -2, 0])
    np.testing.assert_allclose(frames.log_prob_false, [-4, -3, -2, -5, -3, 0])
    np.testing.assert_allclose(frames.advantage, [0.5, 0.5, 0.5, 1, 1, 0])
    assert frames.episode(2).log_prob_true.tolist() == [-4, -2]
    assert frames.take(np.array([0, 5])).labelled.tolist() == [True, False]


@pytest.mark.parametrize("episode", [0, 9])
def test_scores_that_are_not_of_the_dataset_are_refused(episode: int) -> None:
    with pytest.raises(ValueError, match=rf"episode {episode}: 2 rewards for \d frames"):
        rewards.label_rewards([scored([-1, -1], episode=episode)], np.zeros(3, int), horizon=1)
