import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.sidecar import fingerprint_of, read_sidecar, write_sidecar

FINGERPRINT = "f" * 64


@pytest.fixture
def rewards() -> FrameRewards:
    progress = np.array([0, 0.5, 1, 0, 0, 0, 0.25, 0.125], dtype=np.float32)
    labelled = np.array([True, True, True, False, False, True, True, True])
    return FrameRewards(
        index=np.arange(8),
        episode_index=np.array([0, 0, 0, 1, 1, 2, 2, 2]),
        frame_index=np.array([0, 1, 2, 0, 1, 0, 1, 2]),
        labelled=labelled,
        log_prob_true=np.where(labelled, progress - 9, 0).astype(np.float32),
        log_prob_false=np.where(labelled, -progress - 1, 0).astype(np.float32),
        progress=progress,
        advantage=progress / 2,
        scored=labelled & (np.arange(8) % 2 == 0),
    )


@pytest.fixture
def path(tmp_path: Path, rewards: FrameRewards) -> Path:
    path = tmp_path / "topreward_progress.parquet"
    write_sidecar(path, rewards, fingerprint=FINGERPRINT, provenance={"model": "tiny", "k": 15})
    return path


def test_the_file_is_what_is_promised(path: Path, rewards: FrameRewards) -> None:
    table = pq.read_table(path)
    kinds = {"index": pa.int64(), "episode_index": pa.int64(), "frame_index": pa.int64()}
    values = ("progress_sparse", "log_prob_true", "log_prob_false", "progress", "advantage")
    expected = {**kinds, **{name: pa.float32() for name in values}, "scored": pa.bool_()}
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == expected
    assert table["index"].to_pylist() == [0, 1, 2, 5, 6, 7]
    assert table["progress_sparse"].equals(table["progress"])
    assert table["log_prob_false"].to_pylist() == [-1, -1.5, -2, -1, -1.25, -1.125]
    header = json.loads(table.schema.metadata[b"lerobot_topreward"])
    assert header == {
        "format": 2,
        "fingerprint": FINGERPRINT,
        "provenance": {"model": "tiny", "k": 15},
    }
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_reading_gives_back_what_was_written(path: Path, rewards: FrameRewards) -> None:
    sidecar, provenance = read_sidecar(path, fingerprint=FINGERPRINT)
    for name in ("index", "episode_index", "frame_index", "log_prob_true", "log_prob_false"):
        np.testing.assert_array_equal(
            getattr(sidecar, name), getattr(rewards, name)[rewards.labelled]
        )
    np.testing.assert_array_equal(sidecar.progress, rewards.progress[rewards.labelled])
    np.testing.assert_array_equal(sidecar.advantage, rewards.advantage[rewards.labelled])
    np.testing.assert_array_equal(sidecar.scored, rewards.scored[rewards.labelled])
    assert sidecar.progress.dtype == np.float32
    assert sidecar.labelled.all()
    assert provenance == {"model": "tiny", "k": 15}
    assert fingerprint_of(path) == FINGERPRINT


def test_another_datasets_sidecar_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"fingerprint 0{12}.*made for f{12}.*label it again"):
        read_sidecar(path, fingerprint="0" * 64)


def test_a_missing_sidecar_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sidecar"):
        read_sidecar(tmp_path / "none.parquet", fingerprint=None)
    assert fingerprint_of(tmp_path / "none.parquet") is None


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "sarm_progress.parquet"
    pq.write_table(pa.table({"index": [0], "progress_sparse": [0.5]}), foreign)
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    for path in (foreign, text):
        with pytest.raises(UserError, match="was not written by lerobot-topreward"):
            read_sidecar(path, fingerprint=None)
        assert fingerprint_of(path) is None


@pytest.mark.parametrize("made", [1, 3])
def test_another_format_is_refused(path: Path, made: int) -> None:
    table = pq.read_table(path)
    header = json.dumps({"format": made, "fingerprint": FINGERPRINT, "provenance": {}})
    pq.write_table(table.replace_schema_metadata({"lerobot_topreward": header}), path)
    with pytest.raises(UserError, match=rf"has format {made}, not 2; label again, which takes sec"):
        read_sidecar(path, fingerprint=FINGERPRINT)
    assert fingerprint_of(path) == FINGERPRINT  # whose it is does not depend on the format


@pytest.mark.parametrize(
    "header",
    [
        {"format": 2, "fingerprint": 7, "provenance": {}},
        {"format": 2, "fingerprint": FINGERPRINT, "provenance": []},
        {"fingerprint": FINGERPRINT},
        [],
        None,
    ],
)
def test_a_header_of_the_wrong_shape_is_refused(path: Path, header: object) -> None:
    table = pq.read_table(path)
    said = json.dumps(header)
    pq.write_table(table.replace_schema_metadata({"lerobot_topreward": said}), path)
    with pytest.raises(UserError, match=r"label again"):
        read_sidecar(path, fingerprint=None)
    assert fingerprint_of(path) is None


def test_a_damaged_sidecar_is_refused(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"x" * 40 + content[44:])
    with pytest.raises(UserError, match=r"cannot be read.*label again"):
        read_sidecar(path, fingerprint=FINGERPRINT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["log_prob_true", "log_prob_false", "progress", "advantage"])
def test_values_that_are_not_finite_are_refused(
    path: Path, rewards: FrameRewards, name: str, value: float
) -> None:
    before = path.read_bytes()
    spoiled = getattr(rewards, name).copy()
    spoiled[[6, 7]] = value
    with pytest.raises(
        ValueError, match=rf"{name} must be finite.*frame 1 of episode 2 and 1 more"
    ):
        write_sidecar(
            path, replace(rewards, **{name: spoiled}), fingerprint=FINGERPRINT, provenance={}
        )
    assert path.read_bytes() == before


def test_lerobots_weighter_reads_it(path: Path, rewards: FrameRewards) -> None:
    import torch
    from lerobot.rewards.sarm.rabc import RABCWeights

    weighter = RABCWeights(path, chunk_size=2, head_mode="sparse", device=torch.device("cpu"))
    labelled = rewards.labelled
    assert weighter.progress_lookup == dict(
        zip(rewards.index[labelled].tolist(), rewards.progress[labelled].tolist(), strict=True)
    )
    weights, stats = weighter.compute_batch_weights({"index": torch.tensor([0, 2, 3, 7])})
    # Progress, none left to make, not labelled (weight 1), at the end of its episode.
    assert weights.shape == (4,)
    assert weights[0] == weights[2] > weights[1]
    assert stats["num_full_weight"] == 2
