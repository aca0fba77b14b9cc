import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import FileOps, require_space, write_file
from lerobot_topreward.files.copying import copy_file
from lerobot_topreward.files.transaction import commit, finish_interrupted, staging_folder

NAMES = ("data/a.txt", "data/deep/b.txt", "info.txt")

WRITER = """
import os, signal, sys
from pathlib import Path
from lerobot_topreward.files.atomic import FileOps, write_file
from lerobot_topreward.files.transaction import commit, staging_folder

output, last, *names = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
moved = 0

def replace(source, target):
    global moved
    if moved == last:
        os.kill(os.getpid(), signal.SIGKILL)
    moved += 1
    os.replace(source, target)

with staging_folder(output) as staging:
    for name in names:
        write_file(staging / name, "new")
    commit(output, staging, [Path(name) for name in names], stale=[Path("old.txt")],
           ops=FileOps(replace=replace))
"""


class Stop(BaseException):
    """Stands in for kill -9 within a process: nobody catches it."""


def stop_after(steps: int) -> FileOps:
    done = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal done
        if done == steps:
            raise Stop
        done += 1
        os.replace(source, target)

    return FileOps(replace=replace)


def write_all(output: Path, text: str, ops: FileOps) -> None:
    with staging_folder(output) as staging:
        for name in NAMES:
            write_file(staging / name, text)
        commit(output, staging, [Path(name) for name in NAMES], ops=ops)


def contents(output: Path) -> dict[str, str]:
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): path.read_text() for path in files}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for name in (*NAMES, "old.txt", "other.txt", "topreward/key/shard.txt"):
        write_file(tmp_path / name, "old")
    return tmp_path


@pytest.mark.parametrize("last", range(len(NAMES) + 2))
def test_a_killed_writer_leaves_the_old_files_or_what_becomes_the_new_ones(
    output: Path, last: int
) -> None:
    before = contents(output)
    command = [sys.executable, "-c", WRITER, str(output), str(last), *NAMES]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    killed = last <= len(NAMES)
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    if last == 0:
        assert {name: contents(output)[name] for name in before} == before
    assert finish_interrupted(output) is (0 < last <= len(NAMES))
    new = {name: "old" for name in before if name != "old.txt"} | dict.fromkeys(NAMES, "new")
    assert contents(output) == (before if last == 0 else new)
    assert not finish_interrupted(output)


@pytest.mark.parametrize("first", range(1, len(NAMES) + 1))
@pytest.mark.parametrize("second", range(len(NAMES)))
def test_finishing_may_be_interrupted_as_well(output: Path, first: int, second: int) -> None:
    with pytest.raises(Stop):
        write_all(output, "new", stop_after(first))
    left = len(NAMES) - (first - 1)
    if second < left:
        with pytest.raises(Stop):
            finish_interrupted(output, ops=stop_after(second))
    finish_interrupted(output)
    assert [contents(output)[name] for name in NAMES] == ["new"] * len(NAMES)
    assert contents(output)["topreward/key/shard.txt"] == "old"
    assert sorted(path.name for path in (output / "topreward").iterdir()) == ["key"]


def test_an_error_while_staging_leaves_nothing_behind(output: Path) -> None:
    before = contents(output)

    def stage() -> None:
        with staging_folder(output) as staging:
            write_file(staging / "data/a.txt", "new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage()
    assert contents(output) == before
    assert [path.name for path in (output / "topreward").iterdir()] == ["key"]


def test_a_failing_move_asks_to_run_again(output: Path) -> None:
    def fail(source: Path, target: Path) -> None:
        if target.name == "b.txt":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.replace(source, target)

    with pytest.raises(UserError, match=r"stopped half way.*Nothing is lost.*run again"):
        write_all(output, "new", FileOps(replace=fail))
    assert finish_interrupted(output)
    assert [contents(output)[name] for name in NAMES] == ["new"] * len(NAMES)


def test_a_commit_whose_files_are_gone_says_so(output: Path) -> None:
    with pytest.raises(Stop):
        write_all(output, "new", stop_after(2))
    (staging,) = (output / "topreward").glob(".staging-*")
    (staging / "info.txt").unlink()
    (output / "info.txt").unlink()
    with pytest.raises(UserError, match=r"info.txt is gone. Delete .*commit.json"):
        finish_interrupted(output)


def test_nothing_to_finish_where_there_is_no_folder(tmp_path: Path) -> None:
    assert not finish_interrupted(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    write_all(tmp_path / "a" / "fresh", "new", FileOps())
    assert set(contents(tmp_path / "a" / "fresh")) == set(NAMES)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/b must be writable; Not a directory"):
        write_all(tmp_path / "file" / "b", "new", FileOps())


def fail_with(number: int) -> Callable[[Path, Path], None]:
    def fail(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_link_shares_the_bytes_and_a_copy_does_not(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    write_file(source, "bytes")
    copy_file(source, tmp_path / "linked", link=True, ops=FileOps())
    copy_file(source, tmp_path / "copied", link=False, ops=FileOps())
    assert (tmp_path / "linked").samefile(source)
    assert not (tmp_path / "copied").samefile(source)
    assert (tmp_path / "copied").read_text() == "bytes"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_what_cannot_be_linked_is_copied(tmp_path: Path, number: int) -> None:
    source = tmp_path / "source.bin"
    write_file(source, "bytes")
    copy_file(source, tmp_path / "target", link=True, ops=FileOps(link=fail_with(number)))
    assert (tmp_path / "target").read_text() == "bytes"
    assert not (tmp_path / "target").samefile(source)


def test_a_symbolic_link_stands_for_its_target(tmp_path: Path) -> None:
    # The Hub's cache: snapshots/COMMIT/video.mp4 -> ../../blobs/HASH
    write_file(tmp_path / "blobs/hash", "bytes")
    (tmp_path / "video.mp4").symlink_to("blobs/hash")
    copy_file(tmp_path / "video.mp4", tmp_path / "out" / "video.mp4", link=True, ops=FileOps())
    assert not (tmp_path / "out" / "video.mp4").is_symlink()
    assert (tmp_path / "out" / "video.mp4").samefile(tmp_path / "blobs/hash")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_is_needed(tmp_path: Path, number: int) -> None:
    ops = FileOps(free_bytes=lambda folder: 5_000_000)
    message = r"about 3.0 MB needed, 5.0 MB available. Nothing was lost"
    with (
        pytest.raises(UserError, match=message),
        require_space(tmp_path, needed=3_000_000, ops=ops),
    ):
        raise OSError(number, os.strerror(number))


def test_too_little_room_is_seen_before_the_work(tmp_path: Path) -> None:
    ops = FileOps(free_bytes=lambda folder: 1_000_000)
    with (
        pytest.raises(UserError, match=r"about 3.0 MB needed, 1.0 MB available"),
        require_space(tmp_path, needed=3_000_000, ops=ops),
    ):
        pytest.fail("the work was begun")


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="Input/output error"),
        require_space(tmp_path, needed=0, ops=FileOps()),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
