"""All-or-nothing changes to a folder of files: stage, journal, move.

::

    <output>/topreward/.staging-XXXX/<path>   the new files, complete and on the disk
    <output>/topreward/commit.json            {"staging", "moves": [path], "stale": [path]}

A dataset is many files, and no file system replaces many at once. So a commit has two steps:

1. All new files are written into the staging folder. Whoever is killed here has changed nothing:
   the old files are untouched and the staging folder is rubbish, removed by the next run.
2. The journal is written, which is one rename and so happens or does not. From here on the new
   files win. Each is moved over the old one; whoever is killed here leaves a mixture, and the next
   run reads the journal and repeats the moves. Moving again is harmless: a file that has been moved
   is missing in the staging folder and present in the output, and is passed over.

The order on the disk matters as much as the order in time: every new file is synced before the
journal, and the journal before the first move.

One process at a time may work on an output folder: whoever runs the two steps holds its lock.
A folder, its journal included, may come from anybody: what the journal names is checked before
anything moves.
"""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import (
    DISK,
    WORK_FOLDER,
    FileOps,
    remove,
    sync,
    work_folder,
)
from lerobot_topreward.files.jsonable import read_json_object

MANIFEST = Path(WORK_FOLDER, "written.json")  # the only file in there that a commit may move
_STAGING_PREFIX = ".staging-"
_JOURNAL = "commit.json"


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Make a staging folder, and remove it unless a commit of it is under way.

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
    ops: FileOps = DISK,
) -> None:
    """Make staged files take the place of the old ones, whatever interrupts it.

    `moves` are paths relative to the staging folder and to the output, in the order of their moves;
    `stale` are files of the output to be removed first.

    Raises:
        OSError: nothing has been changed.
        UserError: interrupted half way; `finish_interrupted` will complete it.
    """
    # All bytes first, then the names in their folders.
    folders = {staging / parent for path in moves for parent in path.parents}
    for staged in (*(staging / path for path in moves), *folders):
        sync(staged)
    draft, work = staging / _JOURNAL, output / WORK_FOLDER
    record = {
        "staging": staging.name,
        "moves": [path.as_posix() for path in moves],
        "stale": [path.as_posix() for path in stale],
    }
    draft.write_text(json.dumps(record))
    sync(draft)
    ops.replace(draft, work / _JOURNAL)  # the commit: before this line all is old, after it all new
    sync(work)
    finish_interrupted(output, ops=ops)


def finish_interrupted(output: Path, *, ops: FileOps = DISK) -> bool:
    """Complete a commit that was cut off, discard what never became one; says if one was completed.

    To be called before anything in the folder is read; the folder may not exist.

    Raises:
        UserError: it cannot be completed now, or not at all since a file was removed by hand, or
            the journal is not one of ours.
    """
    work = work_folder(output)
    path = work / _JOURNAL
    pending = os.path.lexists(path)
    if pending:
        staging, moves, stale = _read_journal(output, path)
        try:
            _repeat_moves(output, staging, moves, stale, ops=ops)
            path.unlink()
            sync(work)
        except OSError as error:
            raise UserError(
                f"writing to {output} stopped half way: {error}. Nothing is lost; fix that and "
                "run again, which completes it"
            ) from error
    # Only after the journal has gone: a crash in between leaves rubbish, never a lost file.
    for leftover in work.glob(_STAGING_PREFIX + "*"):
        remove(leftover)
    return pending


def _read_journal(output: Path, path: Path) -> tuple[Path, list[str], list[str]]:
    """Read staging folder, moves and stale files, all of them within the output."""
    advice = f"Delete {path} and run again; raw scores are kept"
    record = read_json_object(path, advice=advice)
    try:
        return _check_journal(output, record)
    except (ValueError, RuntimeError, OSError) as error:  # RuntimeError: links in a circle
        raise UserError(f"{path} is not what labeling writes: {error}. {advice}") from None


def _check_journal(output: Path, record: dict[str, Any]) -> tuple[Path, list[str], list[str]]:
    """Refuse a journal that would move or remove anything but files of this output."""
    form = "it must hold staging and the lists of paths moves and stale"
    if record.keys() != {"staging", "moves", "stale"}:
        raise ValueError(form)
    name, moves, stale = record["staging"], record["moves"], record["stale"]
    for paths in (moves, stale):
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ValueError(form)
    if not isinstance(name, str) or Path(name).name != name or not name.startswith(_STAGING_PREFIX):
        raise ValueError(f"{name!r} is no staging folder")
    staging = output / WORK_FOLDER / name
    if staging.is_symlink() or not staging.is_dir():
        raise ValueError(f"{name} is no folder beside it")
    for path in (*moves, *stale):
        _check_inside(output, path)
    for path in moves:
        if not (staging / path).parent.resolve().is_relative_to(staging.resolve()):
            raise ValueError(f"{path!r} leaves the staging folder")
        if (mode := _mode(staging / path)) is not None and not stat.S_ISREG(mode):
            raise ValueError(f"{path!r} is not a regular file there")
    return staging, moves, stale


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


def _repeat_moves(
    output: Path, staging: Path, moves: list[str], stale: list[str], *, ops: FileOps
) -> None:
    for path in stale:
        (output / path).unlink(missing_ok=True)
    for path in moves:
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
    parents = {parent for path in (*moves, *stale) for parent in Path(path).parents}
    for folder in sorted(output / parent for parent in parents):
        if folder.is_dir():
            sync(folder)
