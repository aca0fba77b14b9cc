"""How often frames are drawn, and what batches are then worth."""

import numpy as np
import pytest
from frame_labels import labels_of

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.draws import (
    draw_counts,
    expected_counts,
    may_be_drawn,
    measure_batches,
    worth_by_loss,
    worth_by_sampling,
)
from lerobot_topreward.train.records import FrameWeights


def random_weights(seed: int, frames: int = 500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(size=frames) * 2).astype(np.float32)
    weights[rng.random(frames) < 0.3] = 0
    return weights


@pytest.mark.parametrize("seed", range(5))
def test_every_count_is_the_expected_one_up_or_down(seed: int) -> None:
    expected = expected_counts(random_weights(seed))
    for offset in (0.0, 0.3, np.nextafter(1, 0)):
        counts = draw_counts(expected, offset)
        assert counts.sum() == 500
        assert (counts >= np.floor(expected)).all()
        assert (counts <= np.ceil(expected)).all()
        assert not counts[expected == 0].any()


def test_counts_average_to_the_expected_ones() -> None:
    expected = expected_counts(random_weights(0))
    # Offsets spaced evenly over 0..1: the mean is the integral over the offset, to their spacing.
    offsets = (np.arange(4000) + 0.5) / 4000
    mean = np.mean([draw_counts(expected, offset) for offset in offsets], axis=0)
    np.testing.assert_allclose(mean, expected, atol=1 / 4000)


@pytest.mark.parametrize("value", [0.1, 1.0, 1 / 3, 7e-5])
def test_equal_weights_draw_every_frame_once(value: float) -> None:
    expected = expected_counts(np.full(100_003, value, dtype=np.float32))
    for offset in (0.0, 0.5, np.nextafter(1, 0)):
        assert (draw_counts(expected, offset) == 1).all()


def test_the_last_draw_is_never_beyond_the_end() -> None:
    """The fractions do not sum to a whole number exactly, and an offset may be nearly 1."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        weights = rng.random(rng.integers(2, 60)).astype(np.float32)
        weights[-1] = 0
        counts = draw_counts(expected_counts(weights), np.nextafter(1, 0))
        assert counts.sum() == len(weights)
        assert counts[-1] == 0


def test_half_the_frames_twice() -> None:
    expected = expected_counts(np.array([0, 3, 0, 3], dtype=np.float32))
    assert draw_counts(expected, 0.7).tolist() == [0, 2, 0, 2]


def test_the_expected_gradient_is_that_of_weighted_losses() -> None:
    weights = random_weights(3, frames=60)
    gradients = np.random.default_rng(1).normal(size=(60, 4))
    by_loss = np.mean(weights[:, None] / weights.mean() * gradients, axis=0)
    # Every frame of an epoch has the same chance to be in a batch.
    expected = expected_counts(weights)
    offsets = (np.arange(5000) + 0.5) / 5000
    epochs = [draw_counts(expected, offset) @ gradients / 60 for offset in offsets]
    np.testing.assert_allclose(expected @ gradients / 60, by_loss, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.mean(epochs, axis=0), by_loss, atol=1e-3)


def test_the_worth_of_a_batch_is_measured_right() -> None:
    """Against the sum of squared shares in batches that are really drawn."""
    weights = random_weights(4, frames=200)
    expected = expected_counts(weights)
    rng = np.random.default_rng(0)
    squares = {"loss": [], "sampling": []}
    for _ in range(4000):
        chosen = rng.permutation(200)[:16]
        squares["loss"].append(np.sum((expected[chosen] / 16) ** 2))
        drawn = rng.permutation(np.repeat(np.arange(200), draw_counts(expected, rng.random())))
        squares["sampling"].append(np.sum((np.bincount(drawn[:16]) / 16) ** 2))
    by_loss, by_sampling = (1 / np.mean(squares[name]) for name in ("loss", "sampling"))
    assert worth_by_loss(expected, batch=16) == pytest.approx(by_loss, rel=0.05)
    assert worth_by_sampling(expected, batch=16) == pytest.approx(by_sampling, rel=0.02)
    assert by_loss < 0.5 * by_sampling


def test_a_batch_of_equal_frames_is_worth_its_size() -> None:
    equal = np.ones(50)
    assert worth_by_loss(equal, batch=8) == pytest.approx(8)
    assert worth_by_sampling(equal, batch=8) == pytest.approx(8)
    assert worth_by_sampling(np.ones(1), batch=8) == pytest.approx(1)


def test_the_last_frames_are_not_drawn() -> None:
    labels = labels_of([0, 0, 0, 1], [0, 1], [0, 0, 1])
    chosen = may_be_drawn(labels, drop_last=2)
    assert chosen.tolist() == [True, True, False, False, False, False, True, False, False]
    weight = np.array([1, 0, 9, 9, 9, 9, 3, 9, 9], dtype=np.float32)
    weights = FrameWeights(labels.index, weight, weight, np.zeros(9, dtype=bool))
    worth = measure_batches(labels, weights, drop_last=2, batch=4)
    assert worth.frames == 3
    assert worth.by_loss == pytest.approx(4 * 4**2 / (3 * (1 + 9)))
    assert worth.distinct == pytest.approx(1 * 3 / 4 + 1)
    with pytest.raises(UserError, match="none of the 0 frames that can be drawn weighs anything"):
        measure_batches(labels, weights, drop_last=4, batch=4)
