"""What a labelled copy of a dataset holds, beside what it held before."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.records import FEATURES, FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, read_sidecar

RecordDataset = Callable[..., Path]
Hashes = Callable[[Path], dict[str, str]]
RewardsFor = Callable[..., FrameRewards]
ColumnsOf = Callable[[FrameRewards], dict[str, np.ndarray]]
AssertColumns = Callable[[Path, FrameRewards], None]
FINGERPRINT = "a" * 64

write = partial(write_columns, fingerprint=FINGERPRINT, provenance={"a": 1})
load = partial(LeRobotDataset, "local/labelled", video_backend="pyav")


@pytest.fixture(scope="module")
def sources(record_dataset: RecordDataset) -> dict[str, Path]:
    """Three kinds of datasets, none of which any test may change."""
    return {
        "videos": record_dataset(lengths=(6, 4, 7), size=(48, 64), others_files=True),
        "images": record_dataset(
            lengths=(5, 3), size=(24, 32), cameras=("front",), video=False, others_files=True
        ),
        "files": record_dataset(
            lengths=(80, 81, 82, 83, 40), cameras=(), state=900, small_files=True, others_files=True
        ),
    }


@pytest.fixture(scope="module", params=["videos", "images", "files"])
def labelled(
    request: pytest.FixtureRequest,
    sources: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    hashes: Hashes,
    rewards_for: RewardsFor,
) -> Iterator[tuple[Path, Path, FrameRewards]]:
    """A source, its labelled copy and its rewards; the source must come out as it went in."""
    source = sources[request.param]
    before = hashes(source)
    output = tmp_path_factory.mktemp("labelled") / "output"
    rewards = rewards_for(source)
    write(source, rewards, output)
    yield source, output, rewards
    assert hashes(source) == before


def test_lerobot_loads_the_output(
    labelled: tuple[Path, Path, FrameRewards], columns_of: ColumnsOf
) -> None:
    source, output, rewards = labelled
    before, after = load(source), load(output)
    assert len(after) == len(before) == len(rewards.index)
    assert {name: after.meta.features[name] for name in FEATURES} == {
        name: {**feature, "shape": (1,)} for name, feature in FEATURES.items()
    }
    for i in (0, len(after) // 2, len(after) - 1):
        item: Any = after[i]
        original: Any = before[i]
        for name, values in columns_of(rewards).items():
            assert item[name].item() == values[i]
        for name, value in original.items():
            same = item[name] == value
            assert same if isinstance(value, str) else same.all()


def test_the_data_is_otherwise_the_same(
    labelled: tuple[Path, Path, FrameRewards], assert_columns: AssertColumns
) -> None:
    source, output, rewards = labelled
    assert_columns(output, rewards)
    for before in sorted(source.glob("data/*/*.parquet")):
        after = output / before.relative_to(source)
        a, b = pq.ParquetFile(before), pq.ParquetFile(after)
        assert a.num_row_groups == b.num_row_groups
        for group in range(a.num_row_groups):
            assert b.read_row_group(group).drop_columns(list(FEATURES)) == a.read_row_group(group)
        named = json.loads(b.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        assert list(named) == b.schema_arrow.names


def test_plain_datasets_loads_the_output(
    labelled: tuple[Path, Path, FrameRewards], tmp_path: Path
) -> None:
    _, output, rewards = labelled
    table = datasets.load_dataset(
        "parquet", data_dir=str(output / "data"), split="train", cache_dir=str(tmp_path)
    )
    assert isinstance(table, datasets.Dataset)
    assert table.features["topreward.labelled"] == datasets.Value("bool")
    assert table.features["topreward.progress"] == datasets.Value("float32")
    np.testing.assert_array_equal(table["topreward.progress"], rewards.progress)


def test_only_what_must_change_is_written_anew(
    labelled: tuple[Path, Path, FrameRewards], hashes: Hashes
) -> None:
    source, output, _ = labelled
    before, after = hashes(source), hashes(output)
    visible = {name for name in before if not name.startswith(".")}
    assert set(after) == visible | {SIDECAR_NAME, "topreward/written.json"}
    changed = {name for name in visible if before[name] != after[name]}
    rewritten = {name for name in visible if name.startswith(("data/", "meta/episodes/"))}
    assert changed == rewritten | {"meta/stats.json", "meta/info.json"}
    for name in visible:
        assert not (source / name).samefile(output / name), name
    assert [path.name for path in (output / "topreward").iterdir()] == ["written.json"]


def test_the_source_has_several_files_or_this_proves_little(sources: dict[str, Path]) -> None:
    files = [path.as_posix() for path in sources["files"].glob("data/*/*.parquet")]
    assert any("chunk-000/file-001" in name for name in files)
    assert any("chunk-001/file-000" in name for name in files)
    assert pq.ParquetFile(min(files)).num_row_groups == 2
    assert list(sources["videos"].glob("videos/*/*/*.mp4"))


def test_the_sidecar_agrees_with_the_columns(labelled: tuple[Path, Path, FrameRewards]) -> None:
    _, output, rewards = labelled
    sidecar, provenance = read_sidecar(output / SIDECAR_NAME, fingerprint=FINGERPRINT)
    np.testing.assert_array_equal(sidecar.index, rewards.index[rewards.labelled])
    np.testing.assert_array_equal(sidecar.progress, rewards.progress[rewards.labelled])
    assert provenance == {"a": 1}


def test_statistics_are_those_that_lerobot_records(
    record_dataset: RecordDataset, rewards_for: RewardsFor, columns_of: ColumnsOf
) -> None:
    lengths = (40, 1, 25)  # an episode of one frame takes another path through LeRobot
    source = record_dataset(lengths=lengths, cameras=())
    rewards = rewards_for(source)
    oracle = record_dataset(lengths=lengths, extra=columns_of(rewards), cameras=())
    write(source, rewards, source)
    ours, theirs = (
        pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
        for root in (source, oracle)
    )
    assert set(ours.column_names) == set(theirs.column_names)
    for name in ours.column_names:
        assert ours[name].type == theirs[name].type, name
        assert ours[name].to_pylist() == theirs[name].to_pylist(), name
    stats, expected = (
        json.loads((root / "meta/stats.json").read_text()) for root in (source, oracle)
    )
    assert set(stats) == set(expected)
    for name in FEATURES:
        for key, values in expected[name].items():
            np.testing.assert_allclose(stats[name][key], values, rtol=1e-6, atol=1e-9)
    assert load(source).meta.features == load(oracle).meta.features


def test_deleting_episodes_keeps_the_columns(
    labelled: tuple[Path, Path, FrameRewards], tmp_path: Path, columns_of: ColumnsOf
) -> None:
    _, output, rewards = labelled
    dataset = delete_episodes(load(output), [0], output_dir=tmp_path / "rest", repo_id="local/rest")
    keep = rewards.episode_index != 0
    table = pq.read_table(dataset.root / "data")
    for name, values in columns_of(rewards).items():
        np.testing.assert_array_equal(table[name].to_numpy(), values[keep])
        assert dataset.meta.stats is not None
        np.testing.assert_allclose(dataset.meta.stats[name]["mean"], values[keep].mean(), rtol=1e-4)
        np.testing.assert_allclose(dataset.meta.stats[name]["max"], values[keep].max())


def test_a_rechunked_source_leaves_no_stale_data(
    sources: dict[str, Path],
    record_dataset: RecordDataset,
    tmp_path: Path,
    rewards_for: RewardsFor,
    assert_columns: AssertColumns,
) -> None:
    before = sources["files"]
    write(before, rewards_for(before), tmp_path / "output")
    source = record_dataset(lengths=(3, 2), cameras=())
    rewards = rewards_for(source)
    write(source, rewards, tmp_path / "output")
    assert_columns(tmp_path / "output", rewards)
    assert len(load(tmp_path / "output")) == 5
