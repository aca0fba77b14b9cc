"""Commands and readings as the page keeps them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lerobot_topreward.data.recording import open_recorded
from lerobot_topreward.records import EpisodeRecording
from lerobot_topreward.report.signals import UNKNOWN, read_signals, to_bytes

RecordDataset = Callable[..., Path]
ROOM = 10**6


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(12, 300, 1), cameras=())


def test_bytes_are_as_near_as_they_can_be(recorded: Path) -> None:
    found = read_signals(recorded, repo_id="local/cups", episodes=[0, 1, 2], budget=ROOM)
    assert found is not None
    assert sorted(found.values) == [0, 1, 2]
    assert any(name.startswith("action.") for name in found.names)
    assert any(name.startswith("observation.state.") for name in found.names)
    dataset = open_recorded(recorded, repo_id="local/cups", option="x")
    columns = [dataset.signals.names.index(name) for name in found.names]
    for episode, recording in dataset.episodes([0, 1, 2]):
        assert isinstance(recording, EpisodeRecording)
        points = found.values[episode]
        assert points.shape[1] == min(200, len(recording.values))
        rows = np.round(np.linspace(0, len(recording.values) - 1, points.shape[1])).astype(int)
        span = (found.high - found.low)[:, np.newaxis]
        read = found.low[:, np.newaxis] + span * points / (UNKNOWN - 1)
        np.testing.assert_allclose(
            read, recording.values[rows][:, columns].T, atol=float(span.max()) / 253
        )


def test_what_is_not_finite_is_unknown_and_the_widest_range_does_not_overflow() -> None:
    most = float(np.finfo(np.float64).max)
    rows = np.array([[-most, np.nan, most, np.inf, 0]])
    found = to_bytes(rows, np.array([-most]), np.array([most]))
    assert found.tolist() == [[0, UNKNOWN, UNKNOWN - 1, UNKNOWN, (UNKNOWN - 1) // 2]]
    still = to_bytes(np.full((1, 3), 7.0), np.array([7.0]), np.array([7.0]))
    assert still.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("budget", [0, 900])
def test_without_room_there_are_none(recorded: Path, budget: int) -> None:
    assert read_signals(recorded, repo_id="x", episodes=[0, 1, 2], budget=budget) is None


def test_what_cannot_be_read_is_left_out(recorded: Path, tmp_path: Path) -> None:
    assert read_signals(tmp_path, repo_id="x", episodes=[0], budget=ROOM) is None
    found = read_signals(recorded, repo_id="x", episodes=[0, 99], budget=ROOM)
    assert found is not None
    assert sorted(found.values) == [0]
