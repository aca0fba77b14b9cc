"""All-or-nothing changes to a folder of files: stage, journal, move.

::

    <output>/topreward/.staging-XXXX/<path>   the new files, complete and on the disk
    <output>/topreward/commit.json            {"staging", "moves": [path], "stale": [path]}

Before the journal exists the old files are untouched and the staging folder is rubbish. Once it
exists the new files win: `finish_interrupted` repeats its moves, in its order, as often as it takes.
One process at a time may work on an output folder; whoever runs the stages holds its lock.

A folder may come from a stranger, journal and all: what it names is checked before anything moves.
"""

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_json_object

if sys.platform == "linux":
    import fcntl

WORK_FOLDER = "topreward"  # of the output: ours alone, raw scores included
MANIFEST = Path(WORK_FOLDER, "written.json")  # the only file in there that a commit may move
DATASET_PARTS = ("data", "meta", "videos", "images")  # beside them a person may keep more
_STAGING_PREFIX = ".staging-"
_JOURNAL = "commit.json"

# What `link` says where hard links cannot be made: another device, a file system without them,
# somebody else's file (protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


_FICLONE = 0x40049409  # of linux/fs.h


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _clone(source: Path, target: Path) -> None:
    """Copy a file whose bytes stay shared until one of the two is written to."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with source.open("rb") as origin, target.open("wb") as copy:
        fcntl.ioctl(copy.fileno(), _FICLONE, origin.fileno())


@dataclass(frozen=True, slots=True)
class FileOps:
    """The file operations that can fail or be cut off; tests hand in such ones."""

    replace: Callable[[Path, Path], object] = os.replace
    link: Callable[[Path, Path], object] = os.link
    clone: Callable[[Path, Path], object] = _clone
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
    work = work_folder(output)
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
        staging: from `staging_folder`.
        moves: paths relative to both, in the order of their moves.
        stale: paths relative to the output, to be removed first.
        ops: file operations.

    Raises:
        OSError: nothing has been changed.
        UserError: interrupted half way; `finish_interrupted` will complete it.
    """
    folders = {staging / parent for path in moves for parent in path.parents}
    for staged in (*(staging / path for path in moves), *folders):
        sync(staged)
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
        UserError: it cannot be completed now, or not at all since a file was removed by hand, or
            the journal is not one of ours.
    """
    work = work_folder(output)
    path = work / _JOURNAL
    pending = os.path.lexists(path)
    if pending:
        journal = _read_journal(output, path)
        try:
            _redo(output, journal, ops=ops or FileOps())
            path.unlink()
            sync(work)
        except OSError as error:
            raise UserError(
                f"writing to {output} stopped half way: {error}. Nothing is lost; mend that and "
                "run again, which completes it"
            ) from error
    # Only after the journal has gone: a crash in between leaves rubbish, never a lost file.
    for staging in work.glob(_STAGING_PREFIX + "*"):
        remove(staging)
    return pending


def work_folder(output: Path) -> Path:
    """Locate our own folder in an output, whether or not it exists.

    Raises:
        UserError: it is a link, and what is written there would land elsewhere.
    """
    work = output / WORK_FOLDER
    if work.is_symlink() or (work.exists() and not work.is_dir()):
        raise UserError(f"{work} must be a folder, not a link or a file; remove it and run again")
    return work


@dataclass(frozen=True, slots=True)
class _Journal:
    staging: Path
    moves: tuple[str, ...]  # relative to the output and to staging
    stale: tuple[str, ...]  # relative to the output


def _read_journal(output: Path, path: Path) -> _Journal:
    advice = f"Delete {path} and run again; raw scores are kept"
    record = read_json_object(path, advice=advice)
    try:
        return _checked(output, record)
    except (ValueError, RuntimeError, OSError) as error:  # RuntimeError: links in a circle
        raise UserError(f"{path} is not what labelling writes: {error}. {advice}") from None


def _checked(output: Path, record: dict[str, Any]) -> _Journal:
    lists = {name: record.get(name) for name in ("moves", "stale")}
    name = record.get("staging")
    if record.keys() != {"staging", *lists} or not all(
        isinstance(paths, list) and all(isinstance(path, str) for path in paths)
        for paths in lists.values()
    ):
        raise ValueError("it must hold staging and the lists of paths moves and stale")
    if not isinstance(name, str) or Path(name).name != name or not name.startswith(_STAGING_PREFIX):
        raise ValueError(f"{name!r} is no staging folder")
    journal = _Journal(output / WORK_FOLDER / name, tuple(record["moves"]), tuple(record["stale"]))
    if journal.staging.is_symlink() or not journal.staging.is_dir():
        raise ValueError(f"{name} is no folder beside it")
    for path in journal.moves:
        _check_inside(output, path)
        staged = journal.staging / path
        if not staged.parent.resolve().is_relative_to(journal.staging.resolve()):
            raise ValueError(f"{path!r} leaves the staging folder")
        if (mode := _mode(staged)) is not None and not stat.S_ISREG(mode):
            raise ValueError(f"{path!r} is not a regular file there")
    for path in journal.stale:
        _check_inside(output, path)
    return journal


def _check_inside(output: Path, path: str) -> None:
    """Refuse a path whose file, all links on the way followed, would not lie in the output."""
    relative, root = Path(path), output.resolve()
    folder = (root / relative).parent.resolve()
    os.fsencode(path)  # a ValueError for what no file can be named
    plain = relative.name and not relative.is_absolute() and "\0" not in path
    if not plain or ".." in relative.parts or not folder.is_relative_to(root):
        raise ValueError(f"{path!r} leaves the output folder")
    target = folder / relative.name
    inside = target.relative_to(root)
    if inside.parts[0] == WORK_FOLDER and inside != MANIFEST:
        raise ValueError(f"{path!r} is among the raw scores")
    if (mode := _mode(target)) is not None and stat.S_ISDIR(mode):
        raise ValueError(f"{path!r} is a folder")


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _redo(output: Path, journal: _Journal, *, ops: FileOps) -> None:
    for path in journal.stale:
        (output / path).unlink(missing_ok=True)
    for path in journal.moves:
        source, target = journal.staging / path, output / path
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            ops.replace(source, target)
        elif not target.exists():
            raise UserError(
                f"an interrupted write to {output} cannot be completed: {source} is gone. "
                f"Delete {output / WORK_FOLDER / _JOURNAL} and label again; raw scores are kept"
            )
    # A folder that a move has made is an entry of its parent, up to the output itself.
    changed = (*journal.moves, *journal.stale)
    parents = {parent for path in changed for parent in Path(path).parents}
    for folder in sorted(output / parent for parent in parents):
        if folder.is_dir():
            sync(folder)


def dataset_files(root: Path, *, parts: Collection[str] | None = None) -> list[Path]:
    """List the files of a dataset that a copy of it holds: no hidden folders, no raw scores.

    Links to files of the dataset stand for them, as do those of the Hub's cache into its own blobs.

    Args:
        root: the dataset's folder.
        parts: which entries of it; everything when None.

    Returns:
        Paths relative to it, sorted within each folder.

    Raises:
        UserError: names a link that leaves the dataset or leads to a folder, or a file that is
            not a regular one.
    """
    root = root.resolve()
    found: list[Path] = []
    for folder, folders, names in root.walk():
        if folder == root:
            folders[:], names = (
                [n for n in given if n != WORK_FOLDER and (parts is None or n in parts)]
                for given in (folders, names)
            )
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            check_file(folder / name, root)
            found.append((folder / name).relative_to(root))
    return found


def check_file(path: Path, root: Path) -> None:
    """Refuse a file that does not lie within a dataset, its links followed, or is no regular file.

    Args:
        path: the file; something is there.
        root: the dataset's folder, resolved. A snapshot in the Hub's cache may lead to its blobs.

    Raises:
        UserError: says which and why.
    """
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        raise UserError(
            f"{path} is a link to nothing; remove it, or put the file itself there"
        ) from None
    allowed = [root]
    if root.parent.match("datasets--*/snapshots"):
        allowed.append(root.parents[1] / "blobs")
    if not any(target.is_relative_to(folder) for folder in allowed):
        raise UserError(
            f"{path} leads out of the dataset, to {target}; remove it, or put the file itself there"
        )
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UserError(f"{path} must be a regular file; it is {what}. Remove it")


def place(source: Path, target: Path, *, link: bool, ops: FileOps) -> None:
    """Stage an unchanged file, sharing its bytes on the disk where that is safe or asked for.

    Args:
        source: the file; a symbolic link, as in the Hub's cache, stands for its target.
        target: where it goes; its folder is made.
        link: make a hard link where possible: whoever edits one of the two files in place edits
            both.
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
    try:
        ops.clone(source, target)
        shutil.copystat(source, target)
    except OSError:
        ops.copy(source, target)


def can_clone(source: Path, folder: Path, *, ops: FileOps) -> bool:
    """Try whether copies of a file into a folder share its bytes until they are changed."""
    probe = folder / ".probe"
    try:
        ops.clone(source, probe)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


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
    remove(path)
    path.write_text(text, encoding="utf-8")
    sync(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder if it is there; what a link leads to stays.

    A draft begins with this: written through a link, it would land in somebody else's file.
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
