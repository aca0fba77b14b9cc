from pathlib import Path

import numpy as np
import pytest
import torch
from frame_labels import labels_of
from lerobot.rewards.sarm.rabc import RABCWeights

from lerobot_topreward import rewards
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.sidecar import write_sidecar
from lerobot_topreward.train.records import FrameLabels, prefix_gain, progress_gain, success_scores
from lerobot_topreward.train.schemes import Awr, Filter, Rabc, TopAwr, Uniform


def labels_with(*gains: float) -> FrameLabels:
    """An episode for each gain, of two frames, that starts at 0.5."""
    return labels_of(*[(0.5, 0.5 + gain) for gain in gains])


def advantage_of(labels: FrameLabels) -> np.ndarray:
    return progress_gain(labels, horizon=1).astype(np.float64)


@pytest.mark.parametrize("horizon", [1, 2, 5, 100])
def test_the_gain_is_the_advantage_of_every_run(horizon: int) -> None:
    rng = np.random.default_rng(0)
    labels = labels_of(*[rng.random(length) for length in (1, 2, 6, 3, 9)])
    gain = progress_gain(labels, horizon=horizon)
    expected = [
        rewards.advantage(labels.progress[labels.episode_index == episode], horizon=horizon)
        for episode in range(5)
    ]
    np.testing.assert_array_equal(gain, np.concatenate(expected))
    assert gain.dtype == np.float32
    with pytest.raises(ValueError, match="horizon must be >= 1 frame; got 0"):
        progress_gain(labels, horizon=0)


def test_the_action_between_two_prefixes_gets_the_progress_between_them() -> None:
    # Prefixes end at rows 1, 3, 4 of the first episode and at the only row of the second.
    labels = labels_of([0.2, 0.2, 0.3, 0.4, 1.0, 1.0], [0.7], prefixes=[1, 3, 4, 6])
    np.testing.assert_allclose(prefix_gain(labels), [0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0], rtol=1e-6)


def test_prefixes_on_every_frame_give_the_gain_of_the_next_frame() -> None:
    rng = np.random.default_rng(1)
    labels = labels_of(rng.random(7), rng.random(5), prefixes=range(12))
    np.testing.assert_array_equal(prefix_gain(labels), progress_gain(labels, horizon=1))


def test_a_run_without_a_prefix_is_refused() -> None:
    with pytest.raises(UserError, match=r"raw scores of 1 episodes are missing \(1\)"):
        prefix_gain(labels_of([0, 1], [0, 1], prefixes=[0, 1]))


def test_success_is_the_mean_of_the_last_three_prefixes_where_they_are_known() -> None:
    # Four prefixes, then one, then none that is known; log P(True) is 4 progress - 5.
    progress = (-np.arange(12) + 5) / 4
    labels = labels_of(progress[:6], progress[6:10], progress[10:], prefixes=[0, 2, 3, 5, 8], fps=1)
    np.testing.assert_allclose(success_scores(labels), [-(2 + 3 + 5) / 3, -8, -11], rtol=1e-6)


def test_success_without_prefixes_is_the_mean_of_the_last_second() -> None:
    progress = (-np.arange(7) + 5) / 4
    labels = labels_of(progress[:5], progress[5:], fps=3.2)
    np.testing.assert_allclose(success_scores(labels), [-3, -5.5], rtol=1e-6)


def test_awr_is_the_exponential_of_the_standardized_advantage() -> None:
    labels = labels_with(-0.1, 0.0, 0.1, 0.4)
    advantage = advantage_of(labels)
    z = (advantage - advantage.mean()) / advantage.std()
    weight = Awr(beta=0.5, w_max=100.0).weights(labels, chunk=1)
    np.testing.assert_allclose(weight, np.exp(z / 0.5), rtol=1e-5)
    assert weight.dtype == np.float32
    clipped = Awr(beta=0.5, w_min=0.5, w_max=3.0).weights(labels, chunk=1)
    np.testing.assert_allclose(clipped, np.clip(np.exp(z / 0.5), 0.5, 3.0), rtol=1e-5)


def test_awr_does_not_depend_on_the_scale_of_the_advantage() -> None:
    gains = np.random.default_rng(2).normal(size=50)
    weight = Awr(beta=1.0).weights(labels_with(*gains), chunk=1)
    scaled = Awr(beta=1.0).weights(labels_with(*(0.1 * gains + 0.3)), chunk=1)
    np.testing.assert_allclose(scaled, weight, rtol=1e-4)


def test_awr_per_task_standardizes_each_task_alone() -> None:
    tasks = np.array([3, 0, 3, 0, 0, 3, 3])
    gains = np.random.default_rng(3).normal(size=7) + tasks
    labels = labels_of(*[(0, gain) for gain in gains], tasks=tasks)
    weight = Awr(beta=0.7, per="task").weights(labels, chunk=1)
    for task in (0, 3):
        rows = labels.task_index == task
        alone = Awr(beta=0.7).weights(labels.select(rows), chunk=1)
        np.testing.assert_allclose(weight[rows], alone, rtol=1e-6)


def test_a_constant_advantage_weighs_every_frame_the_same() -> None:
    labels = labels_of(np.linspace(0, 1, 40, dtype=np.float32))  # equal steps but for rounding
    assert len(set(progress_gain(labels, horizon=4).tolist())) > 1
    assert Awr(beta=0.01).weights(labels, chunk=4).tolist() == [1] * 40


def test_a_tiny_beta_does_not_overflow() -> None:
    weight = Awr(beta=1e-4).weights(labels_with(0, 0, 0.5), chunk=1)
    assert weight.tolist() == [0, 0, 0, 0, 20, 20]


def test_top_awr_subtracts_the_mean_before_the_exponential() -> None:
    labels = labels_with(-0.5, 0.0, 0.1, 0.4)  # of which the mean is 0
    weight = TopAwr(tau=1.5).weights(labels, chunk=1)
    increment = np.repeat([-0.5, 0.0, 0.1, 0.4], 2)
    np.testing.assert_allclose(weight, np.clip(1.5 * np.exp(increment), 0, 2), rtol=1e-6)
    assert weight.dtype == np.float32
    shifted = TopAwr(tau=1.5).weights(labels_with(-0.2, 0.3, 0.4, 0.7), chunk=1)
    np.testing.assert_allclose(shifted, weight, rtol=1e-6)


def test_top_awr_saturates_on_a_published_curve() -> None:
    # The reference repository's golden vector, interpolated over 300 frames, without subtraction.
    log_prob = -np.array(
        [18.75, 17.125, 11, 12, 11.625, 12.125, 10.75, 11.25, 9.5, 9, 9.25, 8.75, 8, 7.625, 6.375]
    )
    progress = np.interp(
        np.arange(300), np.linspace(0, 299, 15), rewards.normalize_episode(log_prob)
    )
    labels = labels_of(progress)
    mean = progress_gain(labels, horizon=1).astype(np.float64).mean()
    weight = TopAwr(tau=2.0 * float(np.exp(mean))).weights(labels, chunk=1)
    assert weight.min() > 1.99
    assert weight.sum() ** 2 > 0.99999 * 300 * (weight**2).sum()


def store(labels: FrameLabels, folder: Path) -> Path:
    """Write a sidecar with these labels."""
    progress, first = labels.progress, [rows.start for rows in labels.episodes()]
    every = np.ones(len(progress), dtype=bool)
    frames = FrameRewards(
        index=labels.index,
        episode_index=labels.episode_index,
        frame_index=labels.index - np.array(first)[labels.episode_index],
        labelled=every,
        log_prob_true=-progress,
        log_prob_false=-progress,
        progress=progress,
        advantage=progress,
        scored=every,
    )
    path = folder / "topreward_progress.parquet"
    write_sidecar(path, frames, fingerprint="f" * 64, provenance={})
    return path


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, FrameLabels]:
    """Labels of 3 episodes; the third stalls, so its deltas are tiny."""
    rng = np.random.default_rng(4)
    labels = labels_of(
        np.clip(np.linspace(0, 1, 40) + rng.normal(0, 0.05, 40), 0, 1),
        np.linspace(0.9, 0.1, 25),
        0.5 + 0.004 * rng.random(30),
    )
    return store(labels, tmp_path), labels


@pytest.mark.parametrize("horizon", [1, 10, 30, 100])
@pytest.mark.parametrize("kappa", [0.01, 0.2])
def test_rabc_is_that_of_lerobot(
    stored: tuple[Path, FrameLabels], horizon: int, kappa: float
) -> None:
    path, labels = stored
    oracle = RABCWeights(path, chunk_size=horizon, kappa=kappa, device=torch.device("cpu"))
    raw = Rabc(kappa=kappa).weights(labels, chunk=horizon)
    assert raw.dtype == np.float32
    deltas = np.array([oracle._compute_delta(i) for i in labels.index], dtype=np.float32)
    np.testing.assert_allclose(raw, oracle._compute_weights(deltas), atol=1e-6)
    assert np.count_nonzero((raw > 0) & (raw < 1)) > 0
    for batch in (labels.index, np.array([3, 90, 41, 3])):
        expected, stats = oracle.compute_batch_weights({"index": torch.from_numpy(batch)})
        chosen = raw[batch]
        normalized = chosen * len(batch) / (chosen.sum(dtype=np.float64) + 1e-6)
        np.testing.assert_allclose(normalized, expected.numpy(), atol=1e-6)
        assert stats["num_zero_weight"] == np.count_nonzero(chosen == 0)


def test_rabc_without_spread_is_that_of_lerobot(tmp_path: Path) -> None:
    # Deltas that differ only by rounding are divided by 4 epsilon: the statistics must be float64.
    labels = labels_of(np.linspace(0, 0.1, 50, dtype=np.float32))
    oracle = RABCWeights(store(labels, tmp_path), chunk_size=1, device=torch.device("cpu"))
    deltas = np.array([oracle._compute_delta(i) for i in range(50)], dtype=np.float32)
    raw = Rabc().weights(labels, chunk=1)
    np.testing.assert_allclose(raw, oracle._compute_weights(deltas), atol=1e-6)


def test_a_filter_keeps_what_is_at_least_the_threshold() -> None:
    labels = labels_with(-0.125, 0.0, 0.25, 0.125)
    kept = Filter(by="advantage", threshold=0.0).weights(labels, chunk=1)
    assert kept.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert kept.dtype == np.float32
    labels = labels_of([0.0, 0.7])  # which is just below 0.7 in float32
    assert Filter(by="advantage", threshold=0.7).weights(labels, chunk=1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [(0.0, [1, 1, 1, 1]), (0.5, [0, 1, 0, 1]), (1.0, [0, 1, 0, 0])],
)
def test_a_filter_keeps_what_is_not_below_the_quantile(
    quantile: float, expected: list[int]
) -> None:
    keep = Filter(by="advantage", quantile=quantile)
    kept = keep.weights(labels_with(0.1, 0.4, 0.2, 0.3), chunk=1)
    assert kept[::2].tolist() == kept[1::2].tolist() == expected
    assert keep.weights(labels_with(0.25, 0.25, 0.25), chunk=1).tolist() == [1] * 6


def test_a_quantile_over_episodes_does_not_count_frames() -> None:
    labels = labels_of([0.5], [1.0] * 4, [0.75] * 2)
    assert Filter(quantile=0.5).weights(labels, chunk=1).tolist() == [0, 1, 1, 1, 1, 1, 1]


def test_uniform_weights_are_ones() -> None:
    assert Uniform().weights(labels_of([0, 0, 1]), chunk=1).tolist() == [1, 1, 1]
