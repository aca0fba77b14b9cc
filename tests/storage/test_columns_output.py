"""Where labels may be written: room, folders, permissions, and what is refused."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import FileOps
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.output import check_output

RecordDataset = Callable[..., Path]
Hashes = Callable[[Path], dict[str, str]]
RewardsFor = Callable[..., FrameRewards]
FINGERPRINT = "a" * 64

write = partial(write_columns, fingerprint=FINGERPRINT, provenance={"a": 1})
load = partial(LeRobotDataset, "local/labelled", video_backend="pyav")


def test_a_full_disk_changes_nothing(small: Path, tmp_path: Path, rewards_for: RewardsFor) -> None:
    def copy(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "output"
    for ops in (FileOps(copy=copy), FileOps(free_bytes=lambda folder: 10)):
        with pytest.raises(UserError, match=r"not enough disk space in .*output: about 0.\d MB"):
            write(small, rewards_for(small), output, ops=ops)
        assert [path.name for path in output.rglob("*")] == ["topreward"]


@pytest.fixture
def other_device(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm as a second device")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_another_device_gets_copies_and_is_asked_for_their_room(
    record_dataset: RecordDataset, other_device: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    source = record_dataset(lengths=(6, 4, 7), size=(48, 64))
    videos = sum(path.stat().st_size for path in source.rglob("*.mp4"))
    needed = []
    for output in (other_device / "output", tmp_path / "output"):
        with pytest.raises(UserError, match="not enough disk space") as caught:
            write(source, rewards_for(source), output, ops=FileOps(free_bytes=lambda folder: 0))
        needed.append(float(str(caught.value).partition("about ")[2].split()[0]))
    assert needed[0] - needed[1] == pytest.approx(videos / 1e6, abs=0.11)  # rounded to 0.1 MB
    output = other_device / "output"
    write(source, rewards_for(source), output)
    assert len(load(output)) == len(load(source))
    first = {path: path.stat().st_ino for path in output.rglob("*.mp4")}
    write(source, rewards_for(source, seed=1), output)
    assert first == {path: path.stat().st_ino for path in output.rglob("*.mp4")}


def test_a_foreign_folder_is_left_alone(
    small: Path, tmp_path: Path, hashes: Hashes, rewards_for: RewardsFor
) -> None:
    for i in range(4):
        (tmp_path / f"holiday-{i}.jpg").write_text("photo")
    before = hashes(tmp_path)
    message = r"is not empty: it holds holiday-0.jpg, .*, \.\.\., which .* another output folder"
    with pytest.raises(UserError, match=message):
        write(small, rewards_for(small), tmp_path)
    assert hashes(tmp_path) == before


def test_another_datasets_output_is_left_alone(
    small: Path, tmp_path: Path, hashes: Hashes, rewards_for: RewardsFor
) -> None:
    write(small, rewards_for(small), tmp_path / "output", provenance={"dataset": "cups"})
    before = hashes(tmp_path / "output")
    with pytest.raises(
        UserError, match=r"labels of cups \(fingerprint a{12}\).*with bowls \(fingerprint b{12}\)"
    ):
        write(
            small,
            rewards_for(small),
            tmp_path / "output",
            fingerprint="b" * 64,
            provenance={"dataset": "bowls"},
        )
    assert hashes(tmp_path / "output") == before


def test_an_output_that_holds_only_scores_is_ours(
    small: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    (tmp_path / "topreward/key").mkdir(parents=True)
    check_output(small, tmp_path, fingerprint=FINGERPRINT, dataset="cups")
    write(small, rewards_for(small), tmp_path)
    assert (tmp_path / "topreward/key").is_dir()


@pytest.mark.parametrize("place", ["within/it", "around"])
def test_output_and_source_may_not_nest(small: Path, place: str, rewards_for: RewardsFor) -> None:
    output = small / place if place == "within/it" else small.parent
    with pytest.raises(UserError, match="must not lie within the dataset"):
        write(small, rewards_for(small), output)


def test_an_output_is_made_with_its_parents(
    small: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    write(small, rewards_for(small), tmp_path / "a" / "b")
    assert len(load(tmp_path / "a" / "b")) == len(load(small))
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(UserError, match=r"cannot be written: .* is not a folder"):
            write(small, rewards_for(small), output)


def test_a_read_only_parent_is_refused(
    small: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(UserError, match=r"output cannot be written: .*locked is not writable"):
        write(small, rewards_for(small), locked / "output")


def test_the_hubs_cache_is_not_labelled_in_place(
    recorded_small: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    repo = tmp_path / "datasets--me--robot"
    small = shutil.copytree(recorded_small, repo / "snapshots" / ("0" * 40))
    blob = repo / "blobs/hash"
    blob.parent.mkdir()
    (small / "meta/info.json").rename(blob)
    (small / "meta/info.json").symlink_to("../../../blobs/hash")
    with pytest.raises(UserError, match="belongs to the Hub's cache"):
        write(small, rewards_for(small), small)
    write(small, rewards_for(small), tmp_path / "output")
    assert "topreward" not in blob.read_text()


def test_rewards_of_other_frames_are_refused(
    small: Path, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    rewards = rewards_for(small)
    short = rewards.take(slice(-1))
    moved = replace(rewards, episode_index=rewards.episode_index + 1)
    spoiled = replace(rewards, progress=np.full_like(rewards.progress, np.nan))
    for wrong, message in (
        (short, "11 rewards for a dataset of 12 frames"),
        (moved, "not those of the dataset's frames: episode_index differs"),
        (spoiled, "progress must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            write(small, wrong, tmp_path / "output")
    assert not (tmp_path / "output/meta").exists()
