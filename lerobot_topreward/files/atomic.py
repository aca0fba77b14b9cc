"""Files that are written whole or not at all, and what can stand in their way: locks, full disks."""

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lerobot_topreward.errors import UserError

if sys.platform != "win32":
    import fcntl

WORK_FOLDER = "topreward"  # of an output: for our files only, raw scores included
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_FICLONE = 0x40049409  # of linux/fs.h


def _clone(source: Path, target: Path) -> None:
    """Copy a file whose bytes stay shared until one of the two is written to."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with source.open("rb") as origin, target.open("wb") as copy:
        fcntl.ioctl(copy.fileno(), _FICLONE, origin.fileno())


def _count_free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class FileOps:
    """The file operations that can fail or be cut off; tests hand in such ones."""

    replace: Callable[[Path, Path], object] = os.replace
    link: Callable[[Path, Path], object] = os.link
    clone: Callable[[Path, Path], object] = _clone
    copy: Callable[[Path, Path], object] = shutil.copy2
    free_bytes: Callable[[Path], int] = _count_free_bytes


DISK = FileOps()  # the real ones


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Give a place to write a file at; it replaces the target when the block ends without an error.

    Whoever reads the target sees the old file or the new one, never half of one, even when the
    process is killed or the power fails. The folder of the target must exist.
    """
    draft = target.with_name(f".{target.name}.partial")
    remove(draft)
    try:
        yield draft
        sync(draft)  # or a power cut could leave the new name with no bytes behind it
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    sync(target.parent)


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder if it is there; what a link leads to stays.

    A draft begins with this: written through a link, it would change the file that the link leads to.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that a user named, before it is written."""

    option: str  # that named the file
    target: Path
    path: Path  # where to write

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Turn whatever goes wrong while writing into a user's mistake.

        Raises:
            UserError: it cannot be written.
        """
        try:
            yield self.path
        except OSError as error:
            what = error.strerror or error
            raise UserError(f"`{self.option}={self.target}` cannot be written: {what}") from error


@contextmanager
def open_draft(target: Path, *, option: str, make_folder: bool = False) -> Iterator[Draft]:
    """Check that a file named by an option can be written, and replace it when the block ends well.

    Raises:
        UserError: it cannot be written.
    """
    target = target.expanduser().absolute()
    draft = Draft(option, target, target.with_name(f".{target.name}.partial"))
    with draft.writing():
        if make_folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        if target.exists() and not target.is_file():  # /dev/null would become a file
            raise OSError(None, "it is a device or a pipe, and must be a file")
        remove(draft.path)
        draft.path.touch()
    try:
        yield draft
        with draft.writing():
            sync(draft.path)
            os.replace(draft.path, target)
    finally:
        draft.path.unlink(missing_ok=True)


def work_folder(output: Path) -> Path:
    """Locate our own folder in an output, whether or not it exists.

    Raises:
        UserError: it is a link, and what is written there would land elsewhere.
    """
    work = output / WORK_FOLDER
    if work.is_symlink() or (work.exists() and not work.is_dir()):
        raise UserError(f"{work} must be a folder, not a link or a file; remove it and run again")
    return work


@contextmanager
def output_lock(output: Path, *, shared: bool = False, wait_s: float = 0) -> Iterator[None]:
    """Keep a second run away from an output folder, also when this one dies.

    Args:
        output: the folder.
        shared: runs that only add shards to a store, each of episodes of its own, may do so beside
            each other; one that writes anything else keeps all of them away, and they it.
        wait_s: for another run to end, seconds.

    Raises:
        UserError: another run holds it, or the folder cannot be written to.
    """
    work = work_folder(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
        if (work / ".lock").is_symlink():
            raise UserError(f"{work / '.lock'} must not be a link; remove it and run again")
        release = _lock(work / ".lock", shared=shared, wait_s=wait_s)
    except Timeout:
        raise UserError(
            f"output folder {output} is in use by another run; wait for it to end, or choose "
            "another `output`"
        ) from None
    except OSError as error:
        raise UserError(
            f"output folder {output} must be writable; {error.strerror}. Choose another `output`"
        ) from error
    try:
        yield
    finally:
        release()


def _lock(path: Path, *, shared: bool, wait_s: float) -> Callable[[], object]:
    if not shared:
        lock = FileLock(path)
        lock.acquire(timeout=wait_s)
        return lock.release
    if sys.platform == "win32":
        raise UserError("Windows has no locks that processes share; score in one process")
    # FileLock holds a file by flock, which knows shared locks, too.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return lambda: os.close(descriptor)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Timeout(str(path)) from None
            time.sleep(0.1)
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def report_full_disk(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk into a message.

    Raises:
        UserError: there is no room on the disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise UserError(
            f"the disk of {folder} is full; every episode scored so far is kept. Make room and "
            "run the same command again"
        ) from error


@contextmanager
def require_space(folder: Path, *, needed: int, ops: FileOps = DISK) -> Iterator[None]:
    """Refuse to start without room on the disk, and say so when it runs out all the same.

    The folder must exist; `needed` are the bytes to be written, estimated.

    Raises:
        UserError: not enough room, before or during the work inside.
    """
    try:
        if ops.free_bytes(folder) < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise UserError(
            f"not enough disk space in {folder}: about {needed / 1e6:.1f} MB needed, "
            f"{ops.free_bytes(folder) / 1e6:.1f} MB available. Nothing was lost and no file was "
            "changed; make room or choose another output folder, then run again"
        ) from error
