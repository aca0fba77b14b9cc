from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.rewards.sarm.rabc import RABCWeights

from lerobot_topreward import rewards
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.sidecar import write_sidecar
from lerobot_topreward.train import schemes


def bounds_of(*lengths: int) -> np.ndarray:
    stop = np.cumsum(lengths)
    return np.stack([stop - lengths, stop], axis=1)


def float32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("horizon", [1, 2, 5, 100])
def test_the_sliding_gain_is_the_advantage_of_every_run(horizon: int) -> None:
    lengths = (1, 2, 6, 3, 9)
    progress = np.random.default_rng(0).random(sum(lengths)).astype(np.float32)
    gain = schemes.chunk_gain(progress, bounds_of(*lengths), horizon=horizon)
    expected = [
        rewards.advantage(progress[start:stop], horizon=horizon)
        for start, stop in bounds_of(*lengths)
    ]
    np.testing.assert_array_equal(gain, np.concatenate(expected))
    assert gain.dtype == np.float32


def test_the_shrinking_gain_is_clamped_to_the_last_frame_of_the_run() -> None:
    progress = np.array([0.0, 0.1, 0.3, 0.6, 0.5, 1.0])
    gain = schemes.chunk_gain(progress, bounds_of(4, 2), horizon=2, tail="shrink")
    np.testing.assert_allclose(gain, [0.3, 0.5, 0.3, 0, 0.5, 0])
    slid = schemes.chunk_gain(progress, bounds_of(4, 2), horizon=2, tail="slide")
    np.testing.assert_allclose(slid, [0.3, 0.5, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("bounds", "horizon", "message"),
    [
        (bounds_of(4), 0, "horizon must be >= 1 frame; got 0"),
        (bounds_of(3), 1, "cover rows"),
        (np.array([[0, 2], [3, 4]]), 1, "cover rows"),
        (bounds_of(4, 0), 1, "must have a frame"),
    ],
)
def test_runs_must_cover_the_rows(bounds: np.ndarray, horizon: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schemes.chunk_gain(np.zeros(4), bounds, horizon=horizon)


def test_the_action_between_two_prefixes_gets_the_progress_between_them() -> None:
    # Prefixes end at rows 1, 3, 4 of the first run and at the only row of the second.
    progress = np.array([0.2, 0.2, 0.3, 0.4, 1.0, 1.0, 0.7])
    ends = np.array([False, True, False, True, True, False, True])
    gain = schemes.prefix_gain(progress, bounds_of(6, 1), prefix_end=ends)
    np.testing.assert_allclose(gain, [0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0])


def test_prefixes_on_every_frame_give_the_gain_of_the_next_frame() -> None:
    progress = np.random.default_rng(1).random(12)
    every = np.ones(12, dtype=bool)
    np.testing.assert_array_equal(
        schemes.prefix_gain(progress, bounds_of(7, 5), prefix_end=every),
        schemes.chunk_gain(progress, bounds_of(7, 5), horizon=1),
    )


def test_a_run_without_a_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="run 1 has none"):
        schemes.prefix_gain(np.zeros(4), bounds_of(2, 2), prefix_end=np.arange(4) < 2)


def test_success_is_the_mean_of_the_last_three_prefixes_where_they_are_known() -> None:
    log_prob = -np.arange(12, dtype=np.float32)
    ends = np.zeros(12, dtype=bool)
    ends[[0, 2, 3, 5, 8]] = True  # four prefixes, then one, then none that is known
    score = schemes.success_score(log_prob, bounds_of(6, 4, 2), prefix_end=ends, window=1)
    np.testing.assert_allclose(score, [-(2 + 3 + 5) / 3, -8, -11])


def test_success_without_prefixes_is_the_mean_of_the_last_frames() -> None:
    log_prob = -np.arange(7, dtype=np.float32)
    score = schemes.success_score(log_prob, bounds_of(5, 2), prefix_end=None, window=3)
    np.testing.assert_allclose(score, [-3, -5.5])


def test_awr_is_the_exponential_of_the_standardised_advantage() -> None:
    advantage = float32(-0.1, 0.0, 0.1, 0.4)
    z = (advantage - advantage.mean()) / advantage.std()
    weight = schemes.awr(advantage, beta=0.5, w_min=0.0, w_max=100.0)
    np.testing.assert_allclose(weight, np.exp(z / 0.5), rtol=1e-5)
    assert weight.dtype == np.float32
    clipped = schemes.awr(advantage, beta=0.5, w_min=0.5, w_max=3.0)
    np.testing.assert_allclose(clipped, np.clip(np.exp(z / 0.5), 0.5, 3.0), rtol=1e-5)


def test_awr_does_not_depend_on_the_scale_of_the_advantage() -> None:
    advantage = np.random.default_rng(2).normal(size=50)
    weight = schemes.awr(advantage, beta=1.0, w_min=0.0, w_max=20.0)
    scaled = schemes.awr(0.01 * advantage + 0.3, beta=1.0, w_min=0.0, w_max=20.0)
    np.testing.assert_allclose(scaled, weight, rtol=1e-5)


def test_awr_per_task_standardises_each_task_alone() -> None:
    groups = np.array([3, 0, 3, 0, 0, 3, 3])
    advantage = np.random.default_rng(3).normal(size=7) + groups
    weight = schemes.awr(advantage, beta=0.7, w_min=0.0, w_max=20.0, groups=groups)
    for task in (0, 3):
        alone = schemes.awr(advantage[groups == task], beta=0.7, w_min=0.0, w_max=20.0)
        np.testing.assert_allclose(weight[groups == task], alone, rtol=1e-6)


def test_a_constant_advantage_weighs_every_frame_the_same() -> None:
    line = np.linspace(0, 1, 40, dtype=np.float32)  # equal steps but for rounding
    gain = schemes.chunk_gain(line, bounds_of(40), horizon=4)
    assert len(set(gain.tolist())) > 1
    assert schemes.awr(gain, beta=0.01, w_min=0.0, w_max=20.0).tolist() == [1] * 40
    assert schemes.top_awr(gain, tau=2, delta_max=2, centre="weight").tolist() == [0] * 40


def test_a_tiny_beta_does_not_overflow() -> None:
    weight = schemes.awr(float32(0, 0, 1), beta=1e-4, w_min=0.0, w_max=20.0)
    assert weight.tolist() == [0, 0, 20]


def test_top_awr_is_equation_three() -> None:
    increment = float32(-0.5, 0.0, 0.1, 0.4)
    weight = schemes.top_awr(increment, tau=2.0, delta_max=2.0, centre="none")
    np.testing.assert_allclose(weight, [2 * np.exp(-0.5), 2, 2, 2], rtol=1e-6)
    assert weight.dtype == np.float32


def test_top_awr_subtracts_the_mean_before_or_after_the_exponential() -> None:
    increment = float32(-0.5, 0.0, 0.1, 0.4)
    centred = schemes.top_awr(increment, tau=1.5, delta_max=2.0, centre="increment")
    np.testing.assert_allclose(centred, np.clip(1.5 * np.exp(increment), 0, 2), rtol=1e-6)
    shifted = schemes.top_awr(increment + 0.3, tau=1.5, delta_max=2.0, centre="increment")
    np.testing.assert_allclose(shifted, centred, rtol=1e-6)
    value = 1.5 * np.exp(increment)
    weight = schemes.top_awr(increment, tau=1.5, delta_max=0.5, centre="weight")
    np.testing.assert_allclose(weight, np.clip(value - value.mean(), 0, 0.5), rtol=1e-5)
    assert weight.tolist()[0] == 0


def test_the_papers_defaults_saturate_on_a_published_curve() -> None:
    # The reference repository's golden vector, interpolated over 300 frames.
    log_prob = -np.array(
        [18.75, 17.125, 11, 12, 11.625, 12.125, 10.75, 11.25, 9.5, 9, 9.25, 8.75, 8, 7.625, 6.375]
    )
    progress = np.interp(
        np.arange(300), np.linspace(0, 299, 15), rewards.normalize_episode(log_prob)
    )
    gain = schemes.chunk_gain(progress, bounds_of(300), horizon=1)
    weight = schemes.top_awr(gain, tau=2.0, delta_max=2.0, centre="none")
    assert weight.min() > 1.99
    assert weight.sum() ** 2 > 0.99999 * 300 * (weight**2).sum()


@pytest.fixture
def sidecar(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Labels of 3 episodes and their bounds; the third stalls, so its deltas are tiny."""
    rng = np.random.default_rng(4)
    lengths = (40, 25, 30)
    progress = np.concatenate(
        [
            np.clip(np.linspace(0, 1, 40) + rng.normal(0, 0.05, 40), 0, 1),
            np.linspace(0.9, 0.1, 25),
            0.5 + 0.004 * rng.random(30),
        ]
    ).astype(np.float32)
    frames = FrameRewards(
        index=np.arange(len(progress)),
        episode_index=np.repeat(np.arange(3), lengths),
        frame_index=np.concatenate([np.arange(length) for length in lengths]),
        labelled=np.ones(len(progress), dtype=bool),
        log_prob_true=-progress,
        log_prob_false=-progress,
        progress=progress,
        advantage=progress,
        scored=np.ones(len(progress), dtype=bool),
    )
    path = tmp_path / "topreward_progress.parquet"
    write_sidecar(path, frames, fingerprint="f" * 64, provenance={})
    return path, progress, bounds_of(*lengths)


@pytest.mark.parametrize("horizon", [1, 10, 30, 100])
@pytest.mark.parametrize("kappa", [0.01, 0.2])
def test_rabc_is_that_of_lerobot(
    sidecar: tuple[Path, np.ndarray, np.ndarray], horizon: int, kappa: float
) -> None:
    path, progress, bounds = sidecar
    oracle = RABCWeights(path, chunk_size=horizon, kappa=kappa, device=torch.device("cpu"))
    gain = schemes.chunk_gain(progress.astype(np.float64), bounds, horizon=horizon, tail="shrink")
    raw = schemes.rabc(gain, kappa=kappa, epsilon=1e-6)
    assert raw.dtype == np.float32
    deltas = np.array([oracle._compute_delta(i) for i in range(len(progress))], dtype=np.float32)
    np.testing.assert_allclose(raw, oracle._compute_weights(deltas), atol=1e-6)
    assert np.count_nonzero((raw > 0) & (raw < 1)) > 0
    for batch in (np.arange(len(progress)), np.array([3, 90, 41, 3])):
        expected, stats = oracle.compute_batch_weights({"index": torch.from_numpy(batch)})
        chosen = raw[batch]
        normalised = chosen * len(batch) / (chosen.sum(dtype=np.float64) + 1e-6)
        np.testing.assert_allclose(normalised, expected.numpy(), atol=1e-6)
        assert stats["num_zero_weight"] == np.count_nonzero(chosen == 0)


def test_rabc_without_spread_is_that_of_lerobot(tmp_path: Path) -> None:
    # Deltas that differ only by rounding are divided by 4 epsilon: the statistics must be float64.
    progress = np.linspace(0, 0.1, 50, dtype=np.float32)
    frames = FrameRewards(
        *(np.arange(50), np.zeros(50, dtype=np.int64), np.arange(50), np.ones(50, dtype=bool)),
        *(-progress, -progress, progress, progress, np.ones(50, dtype=bool)),
    )
    path = tmp_path / "sidecar.parquet"
    write_sidecar(path, frames, fingerprint="f" * 64, provenance={})
    oracle = RABCWeights(path, chunk_size=1, device=torch.device("cpu"))
    gain = schemes.chunk_gain(progress.astype(np.float64), bounds_of(50), horizon=1, tail="shrink")
    deltas = np.array([oracle._compute_delta(i) for i in range(50)], dtype=np.float32)
    np.testing.assert_allclose(
        schemes.rabc(gain, kappa=0.01, epsilon=1e-6), oracle._compute_weights(deltas), atol=1e-6
    )


def test_rabc_with_a_sliding_tail_keeps_the_last_chunk() -> None:
    line = np.linspace(0, 1, 60)
    gains = {
        tail: schemes.chunk_gain(line, bounds_of(60), horizon=50, tail=tail)
        for tail in ("shrink", "slide")
    }
    last = {tail: schemes.rabc(gain, kappa=0.5, epsilon=1e-6)[-20:] for tail, gain in gains.items()}
    assert last["shrink"].max() < 0.6
    assert last["slide"].tolist() == [1] * 20


def test_a_filter_keeps_what_is_at_least_the_threshold() -> None:
    kept = schemes.filter_weights(float32(-0.1, 0.0, 0.2, 0.1), threshold=0.0)
    assert kept.tolist() == [0, 1, 1, 1]
    assert kept.dtype == np.float32


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [(0.0, [1, 1, 1, 1]), (0.5, [0, 1, 0, 1]), (1.0, [0, 1, 0, 0])],
)
def test_a_filter_keeps_what_is_not_below_the_quantile(
    quantile: float, expected: list[int]
) -> None:
    score = float32(0.1, 0.4, 0.2, 0.3)
    assert schemes.filter_weights(score, quantile=quantile).tolist() == expected
    assert schemes.filter_weights(np.full(3, 0.7), quantile=quantile).tolist() == [1, 1, 1]


def test_a_quantile_over_episodes_does_not_count_frames() -> None:
    score = np.array([-3.0, -1.0, -2.0])
    kept = schemes.filter_weights(score, quantile=0.5, lengths=np.array([1, 4, 2]))
    assert kept.tolist() == [0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("given", [{}, {"threshold": 0.0, "quantile": 0.5}])
def test_a_filter_needs_one_limit(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of threshold and quantile"):
        schemes.filter_weights(np.zeros(3), **given)


def test_weights_are_scaled_to_a_mean_of_one() -> None:
    scaled = schemes.mean_one(float32(0, 1, 2, 5))
    assert scaled.tolist() == [0, 0.5, 1, 2.5]
    assert scaled.dtype == np.float32
    assert schemes.uniform(3).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="mean of the weights must be > 0"):
        schemes.mean_one(np.zeros(3))
