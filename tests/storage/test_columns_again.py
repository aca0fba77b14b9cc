"""Labelling a dataset whose output is there already."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.sidecar import SIDECAR_NAME

RecordDataset = Callable[..., Path]
Hashes = Callable[[Path], dict[str, str]]
RewardsFor = Callable[..., FrameRewards]
AssertColumns = Callable[[Path, FrameRewards], None]

write = partial(write_columns, fingerprint="a" * 64, provenance={"a": 1})
load = partial(LeRobotDataset, "local/labelled", video_backend="pyav")


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(6, 4, 7), size=(48, 64), others_files=True)


def test_labelling_again_replaces_the_columns(
    recorded: Path,
    tmp_path: Path,
    hashes: Hashes,
    rewards_for: RewardsFor,
    assert_columns: AssertColumns,
) -> None:
    output = tmp_path / "output"
    write(recorded, rewards_for(recorded), output)
    first = hashes(output)
    (output / "README.md").write_text("# Edited after labelling\n")
    (output / "topreward/key").mkdir()
    (output / "topreward/key/episode_000000.parquet").write_text("scores")
    again = rewards_for(recorded, seed=1)
    write(recorded, again, output)
    assert_columns(output, again)
    second = hashes(output)
    assert (output / "README.md").read_text() == "# Edited after labelling\n"
    assert (output / "topreward/key/episode_000000.parquet").read_text() == "scores"
    changed = {name for name in first if first[name] != second[name]}
    rewritten = {name for name in first if name.startswith(("data/", "meta/episodes/"))}
    manifest = "topreward/written.json"
    assert changed == rewritten | {"meta/stats.json", "README.md", SIDECAR_NAME, manifest}
    # An earlier output is a source like any other: its columns are replaced, its scores stay.
    write(output, rewards_for(recorded), tmp_path / "third")
    third = hashes(tmp_path / "third")
    assert {name for name in third if third[name] != first[name]} == {"README.md"}
    load(tmp_path / "third")


def test_in_place_changes_no_linked_copy(
    recorded: Path,
    tmp_path: Path,
    hashes: Hashes,
    rewards_for: RewardsFor,
    assert_columns: AssertColumns,
) -> None:
    copy, child = tmp_path / "copy", tmp_path / "child"
    write(recorded, rewards_for(recorded), copy)
    write(copy, rewards_for(recorded), child)
    kept = hashes(child)
    again = rewards_for(recorded, seed=2)
    write(copy, again, copy)
    assert_columns(copy, again)
    item: Any = load(copy)[3]
    assert item["topreward.progress"].item() == again.progress[3]
    assert hashes(child) == kept
