"""Labelling a dataset whose output is there already."""

import shutil
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
    assert {name for name in third if third[name] != first[name]} == {"README.md", manifest}
    load(tmp_path / "third")


def test_what_is_there_already_is_not_written_again(
    recorded: Path, tmp_path: Path, rewards_for: RewardsFor, hashes: Hashes
) -> None:
    source, output = shutil.copytree(recorded, tmp_path / "source"), tmp_path / "output"
    rewards = rewards_for(source)

    def write_again(**changes: Any) -> set[str]:
        """Write, and name the files of the output that are others than before."""
        before = {path: path.stat().st_ino for path in output.rglob("*") if path.is_file()}
        write(source, rewards, output, **changes)
        after = {path: path.stat().st_ino for path in output.rglob("*") if path.is_file()}
        return {str(p.relative_to(output)) for p in after if after[p] != before.get(p)}

    write(source, rewards, output)
    assert write_again() == set()
    first = hashes(output)
    columns = {name for name in first if name.startswith(("data/", "meta/episodes/"))}
    assert columns <= write_again(provenance={"a": 2})
    assert columns <= write_again()
    assert hashes(output) == first

    # A sidecar that is gone or was changed is made again, and one that is not wanted goes.
    (output / SIDECAR_NAME).unlink()
    assert SIDECAR_NAME in write_again()
    (output / SIDECAR_NAME).write_bytes(b"somebody's")
    assert SIDECAR_NAME in write_again()
    assert hashes(output) == first
    write_again(sidecar=False)
    assert not (output / SIDECAR_NAME).exists()
    assert write_again(sidecar=False) == set()
    write_again()

    # A source that was changed is read again, and told to overwrite, it does.
    info = source / "meta/info.json"
    info.write_text(info.read_text().replace('"robot_type": null', '"robot_type": "so101"'))
    assert "meta/info.json" in write_again()
    assert columns <= write_again(overwrite=True)


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
