"""All-or-nothing changes to a folder of files: stage, journal, move.

::

    <output>/topreward/.staging-XXXX/<path>   the new files, complete and on the disk
    <output>/topreward/commit.json            {"staging", "moves": [path], "stale": [path]}

Before the journal exists the old files are untouched and the staging folder is rubbish. Once it
exists the new files win: `finish_interrupted` repeats its moves, in its order, as often as it takes.
One process at a time may work on an output folder; whoever runs the stages holds its lock.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lerobot_topreward.errors import UserError

WORK_FOLDER = "topreward"  # of the output: ours alone, raw scores included
_STAGING_PREFIX = ".staging-"
_JOURNAL = "commit.json"

# What `link` says where hard links cannot be made: another device, a file system without them,
# somebody else's file (protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class FileOps:
    """The file operations that can fail or be cut off; tests hand in such ones."""

    replace: Callable[[Path, Path], object] = os.replace
    link: Callable[[Path, Path], object] = os.link
    copy: Callable[[Path, Path], object] = shutil.copy2
    free_bytes: Callable[[Path], int] = _free_bytes


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Make a staging folder, and remove it unless a commit of it is under way.

    Args:
        output: the folder to change; made when it is missing.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    work = output / WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=work))
    except OSError as error:
        raise UserError(
            f"output folder {output} must be writable; {error.strerror}. Choose another one"
        ) from error
    try:
        yield staging
    except BaseException:
        if not (work / _JOURNAL).exists():
            shutil.rmtree(staging, ignore_errors=True)
        raise


def commit(
    output: Path,
    staging: Path,
    moves: Sequence[Path],
    *,
    stale: Sequence[Path] = (),
    ops: FileOps,
) -> None:
    """Make staged files take the place of the old ones, whatever interrupts it.

    Args:
        output: the folder to change.
        staging: from `staging_folder`, its files synced.
        moves: paths relative to both, in the order of their moves.
        stale: paths relative to the output, to be removed first.
        ops: file operations.

    Raises:
        OSError: nothing has been changed.
        UserError: interrupted half way; `finish_interrupted` will complete it.
    """
    for folder in {staging / path.parent for path in moves}:
        sync(folder)
    work = output / WORK_FOLDER
    draft = staging / _JOURNAL
    record = {
        "staging": staging.name,
        "moves": [path.as_posix() for path in moves],
        "stale": [path.as_posix() for path in stale],
    }
    draft.write_text(json.dumps(record))
    sync(draft)
    ops.replace(draft, work / _JOURNAL)
    sync(work)
    finish_interrupted(output, ops=ops)


def finish_interrupted(output: Path, *, ops: FileOps | None = None) -> bool:
    """Complete a commit that was cut off and discard what never became one.

    To be called before anything in the folder is read.

    Args:
        output: a folder, or the place of one that does not exist yet.
        ops: file operations; the real ones when None.

    Returns:
        Whether a commit was completed.

    Raises:
        UserError: it cannot be completed now, or not at all since a file was removed by hand.
    """
    work = output / WORK_FOLDER
    journal = work / _JOURNAL
    pending = journal.exists()
    if pending:
        try:
            _redo(output, json.loads(journal.read_text()), ops=ops or FileOps())
            journal.unlink()
            sync(work)
        except OSError as error:
            raise UserError(
                f"writing to {output} stopped half way: {error}. Nothing is lost; mend that and "
                "run again, which completes it"
            ) from error
    # Only after the journal has gone: a crash in between leaves rubbish, never a lost file.
    for staging in work.glob(_STAGING_PREFIX + "*"):
        shutil.rmtree(staging)
    return pending


def _redo(output: Path, record: dict, *, ops: FileOps) -> None:
    staging = output / WORK_FOLDER / record["staging"]
    for path in record["stale"]:
        (output / path).unlink(missing_ok=True)
    for path in record["moves"]:
        source, target = staging / path, output / path
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            ops.replace(source, target)
        elif not target.exists():
            raise UserError(
                f"an interrupted write to {output} cannot be completed: {source} is gone. "
                f"Delete {output / WORK_FOLDER / _JOURNAL} and label again; raw scores are kept"
            )
    # A folder that a move has made is an entry of its parent, up to the output itself.
    parents = {parent for path in record["moves"] for parent in Path(path).parents}
    for folder in {output / parent for parent in parents}:
        sync(folder)


def place(source: Path, target: Path, *, link: bool, ops: FileOps) -> None:
    """Stage an unchanged file: hard-linked when asked for and possible, else copied.

    Args:
        source: the file; a symbolic link, as in the Hub's cache, stands for its target.
        target: where it goes; its folder is made.
        link: share the bytes on the disk. Only for files that no tool edits in place.
        ops: file operations.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    if link:
        try:
            ops.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            return
    ops.copy(source, target)
    sync(target)


@contextmanager
def space_reported(output: Path, *, needed: int, ops: FileOps) -> Iterator[None]:
    """Refuse to start without room on the disk, and say so when it runs out all the same.

    Args:
        output: an existing folder on the disk in question.
        needed: bytes to be written, estimated.
        ops: file operations.

    Raises:
        UserError: not enough room, before or during the work inside.
    """
    try:
        if ops.free_bytes(output) < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise UserError(
            f"not enough disk space in {output}: about {needed / 1e6:.1f} MB needed, "
            f"{ops.free_bytes(output) / 1e6:.1f} MB available. Nothing was lost and no file was "
            "changed; make room or choose another output folder, then run again"
        ) from error


def write_file(path: Path, text: str) -> None:
    """Write a new text file that is on the disk when this returns; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
