"""A file of training weights is read back as it was written, and refused where it does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.weights import TrainingWeights, read_weights, write_weights

FINGERPRINT = "f" * 64
FRAMES = 10
WEIGHTS = TrainingWeights(
    np.array([0, 1, 4, 9]), np.array([0, 0.5, 1.5, 2], dtype=np.float32), "awr: over 4 frames"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "act_weights.parquet"
    write_weights(path, WEIGHTS, fingerprint=FINGERPRINT)
    return path


def test_reading_gives_back_what_was_written(path: Path) -> None:
    found = read_weights(path, fingerprint=FINGERPRINT, frames=FRAMES)
    np.testing.assert_array_equal(found.index, WEIGHTS.index)
    np.testing.assert_array_equal(found.weight, WEIGHTS.weight)
    assert found.title == WEIGHTS.title
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def _columns(index: Any = (0, 1), weight: Any = (1, 1)) -> Callable[[pa.Schema], pa.Table]:
    return lambda schema: pa.table({"index": index, "weight": weight}, schema=schema)


def _header(**changes: Any) -> Callable[[pa.Schema], pa.Table]:
    header = {"format": 1, "fingerprint": FINGERPRINT, "title": "x"} | changes
    made = {b"lerobot_topreward_weights": json.dumps(header).encode()}
    return lambda schema: _columns()(schema.with_metadata(made))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_header(fingerprint="0" * 64), "must belong to this dataset .*made for 0{12}"),
        (_header(format=2), "not of format 1"),
        (_header(title=None), "not of format 1"),
        (_header(fingerprint=3), "not of format 1"),
        (lambda schema: _columns()(schema.remove_metadata()), "was not written by"),
        (lambda schema: pa.table({"index": [0]}, metadata=schema.metadata), "index and weight"),
        (_columns(weight=[1, None]), "index and weight"),
        (_columns([], []), "a row per frame"),
        (_columns([0, FRAMES]), "its 2 rows are not among the dataset's 10 frames"),
        (_columns([-1, 0]), "a row per frame"),
        (_columns([1, 1]), "a row per frame"),
        (_columns([1, -(2**63)]), "a row per frame"),
        (_columns(weight=[1, np.nan]), ">= 0 and finite; that of frame 1 is nan"),
        (_columns(weight=[np.inf, 1]), ">= 0 and finite; that of frame 0 is inf"),
        (_columns(weight=[1, -0.5]), ">= 0 and finite; that of frame 1 is -0.5"),
    ],
)
def test_what_does_not_fit_is_refused(
    path: Path, make: Callable[[pa.Schema], pa.Table], message: str
) -> None:
    pq.write_table(make(pq.read_schema(path)), path)
    with pytest.raises(UserError, match=message):
        read_weights(path, fingerprint=FINGERPRINT, frames=FRAMES)


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"x" * 100])
def test_what_is_no_such_file_is_refused(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"`weights=.*Write it again: lerobot-topreward train"):
        read_weights(path, fingerprint=FINGERPRINT, frames=FRAMES)


def test_a_damaged_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(b"x" * 60 + whole[60:])  # its header, at the end, can still be read
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(path, fingerprint=FINGERPRINT, frames=FRAMES)
