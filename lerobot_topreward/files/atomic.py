"""A file that is written whole or not at all, and whose place is checked before the work begins."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.transaction import remove, sync, work_folder


@dataclass(frozen=True, slots=True)
class Draft:
    """A file beside the one that it is to replace."""

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
            raise UserError(f"{self.option} {self.target} cannot be written: {what}") from error


@contextmanager
def drafted(target: Path, *, option: str, make_folder: bool = False) -> Iterator[Draft]:
    """Begin a file that takes its place at the end, when all went well.

    Args:
        target: the file.
        option: that named it.
        make_folder: make its folder where that is missing.

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


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Keep a second run away from an output folder, also when this one dies.

    Raises:
        UserError: another run holds it, or the folder cannot be written to.
    """
    work = work_folder(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
        if (work / ".lock").is_symlink():
            raise UserError(f"{work / '.lock'} must not be a link; remove it and run again")
        lock = FileLock(work / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"output folder {output} is in use by another run; wait for it to end, or choose "
            "another --output"
        ) from None
    except OSError as error:
        raise UserError(
            f"output folder {output} must be writable; {error.strerror}. Choose another --output"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def full_disk_reported(folder: Path) -> Iterator[None]:
    """Turn a full disk into a message: what was written before is whole.

    Raises:
        UserError: there is no room on the disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of {folder} is full; every episode scored so far is kept. Make room and run "
            "the same command again"
        ) from error
