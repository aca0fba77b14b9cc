import numpy as np
import pytest

from lerobot_topreward.curate.trim import movement_thresholds, moving_span, widen

LIMIT = np.array([0.5])


def signal(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


@pytest.mark.parametrize(
    ("values", "margin", "expected"),
    [
        ((0, 0, 0, 1, 2, 3, 3, 3), 0, range(3, 5)),
        ((0, 0, 0, 1, 2, 3, 3, 3), 1, range(2, 6)),
        ((0, 0, 0, 1, 2, 3, 3, 3), 9, range(0, 8)),
        ((0, 1, 2, 3), 0, range(1, 3)),
        ((0, 0.1, -0.1, 0.2, 0), 0, range(0, 5)),  # it only trembles: nothing is known
        ((4,), 0, range(0, 1)),
        ((0, 0, 5, 5), 0, range(1, 3)),  # a jump: the frames on both sides of it
        ((0, 0.3, 0.6, 0.9), 0, range(1, 3)),  # a slow drift
        ((0, 0, 1, 0, 0), 0, range(2, 3)),  # there and back
    ],
)
def test_what_stands_still_at_the_ends_is_left_out(
    values: tuple[float, ...], margin: int, expected: range
):
    assert moving_span(signal(*values), LIMIT, margin=margin) == expected


def test_any_signal_that_moves_counts():
    signals = np.array([[0, 0, 0, 1, 1, 1], [0, 5, 5, 5, 5, 0]], dtype=float).T
    assert moving_span(signals, np.array([0.5, 0.5]), margin=0) == range(1, 5)
    assert moving_span(signals, np.array([0.5, 9.0]), margin=0) == range(2, 4)


def test_a_movement_is_more_than_a_share_of_the_range_and_more_than_noise():
    rng = np.random.default_rng(0)
    still = np.zeros(100)
    ramp = np.concatenate([np.zeros(60), np.linspace(0, 10, 40)])
    trembling = rng.normal(size=100)
    limits = movement_thresholds(np.stack([still, ramp, trembling], axis=1), np.zeros(100, int))
    assert limits[0] == 0
    assert limits[1] == pytest.approx(0.2)
    assert limits[2] > 2 * trembling.std()


def test_a_change_from_one_episode_to_the_next_is_no_movement():
    signals = signal(0, 0.01, 0.02, 9, 9.01, 9.02)
    limits = movement_thresholds(signals, np.array([0, 0, 0, 1, 1, 1]))
    assert limits[0] == pytest.approx(0.02 * 9.02)
    assert movement_thresholds(signal(1, 2), np.array([0, 1]))[0] == pytest.approx(0.02)


def test_ends_move_outwards_to_scored_frames():
    scored = np.array([0, 5, 10, 15, 19])
    assert widen(range(7, 12), scored) == range(5, 16)
    assert widen(range(5, 16), scored) == range(5, 16)
    assert widen(range(0, 20), scored) == range(0, 20)
    assert widen(range(2, 18), np.array([4, 9, 14])) == range(0, 18)
