"""A commit that stops after any of its steps is finished later, or has changed nothing."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.files.atomic import FileOps
from lerobot_topreward.files.transaction import finish_interrupted
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns

Hashes = Callable[[Path], dict[str, str]]
RewardsFor = Callable[..., FrameRewards]
AssertColumns = Callable[[Path, FrameRewards], None]

write = partial(write_columns, fingerprint="a" * 64, provenance={"a": 1})
load = partial(LeRobotDataset, "local/labelled", video_backend="pyav")


class Stop(BaseException):
    """Stands in for kill -9 within a process: nobody catches it."""


def stop_after(steps: int) -> tuple[FileOps, list[str]]:
    moved: list[str] = []

    def move(source: Path, target: Path) -> None:
        if len(moved) == steps:
            raise Stop
        moved.append(target.name)
        os.replace(source, target)

    return FileOps(replace=move), moved


# The journal, README.md, tasks.parquet, truth.parquet, data, episodes, stats, the sidecar, the
# manifest, info.
STEPS = 10


@pytest.mark.parametrize("steps", range(STEPS))
def test_an_interrupted_fresh_output_is_no_dataset_until_finished(
    small: Path, tmp_path: Path, steps: int, rewards_for: RewardsFor, assert_columns: AssertColumns
) -> None:
    output, rewards = tmp_path / "output", rewards_for(small)
    ops, _ = stop_after(steps)
    with pytest.raises(Stop):
        write(small, rewards, output, ops=ops)
    assert not (output / "meta/info.json").exists()
    assert finish_interrupted(output) is (steps > 0)
    if steps:
        assert_columns(output, rewards)
        assert len(load(output)) == len(rewards.index)
    left = [path.name for path in (output / "topreward").iterdir()]
    assert left == (["written.json"] if steps else [])
    write(small, rewards, output)
    assert_columns(output, rewards)


@pytest.mark.parametrize("steps", range(STEPS - 4))
def test_interrupted_in_place_is_old_or_becomes_new(
    small: Path, steps: int, hashes: Hashes, rewards_for: RewardsFor, assert_columns: AssertColumns
) -> None:
    write(small, rewards_for(small), small)
    before, again = hashes(small), rewards_for(small, seed=1)
    ops, moved = stop_after(steps)
    with pytest.raises(Stop):
        write(small, again, small, ops=ops)
    assert len(moved) == steps
    if steps == 0:
        assert hashes(small) == before
    assert finish_interrupted(small) is (steps > 0)
    assert_columns(small, again if steps else rewards_for(small))
    load(small)
    write(small, again, small)
    done = hashes(small)
    assert done.keys() == before.keys()
    assert done["truth.parquet"] == before["truth.parquet"]


def test_the_list_of_steps_is_complete(
    small: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    ops, moved = stop_after(100)
    write(small, rewards_for(small), tmp_path / "output", ops=ops)
    assert len(moved) == STEPS
    assert moved[0] == "commit.json"
    assert moved[-1] == "info.json"
