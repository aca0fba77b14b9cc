"""Which files a copy of a dataset holds, and how one of them is copied."""

import errno
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import DISK, WORK_FOLDER, FileOps

DATASET_PARTS = ("data", "meta", "videos", "images")  # people may keep other files beside these

VIDEO_PARTS = ("videos", "images")  # nearly all bytes of a dataset

# What `link` says where hard links cannot be made: another device, a file system without them,
# somebody else's file (protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def dataset_files(root: Path, *, parts: Collection[str] | None = None) -> list[Path]:
    """List the files of a dataset that a copy of it holds: no hidden folders, no raw scores.

    Links to files of the dataset stand for them, as do those of the Hub's cache into its own blobs.
    The paths are relative to the dataset and sorted within each folder; `parts` are the entries of
    the dataset's folder to list, all when None.

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

    `root` is the dataset's folder, resolved; from a snapshot in the Hub's cache, links may lead to
    the cache's blobs.

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


def copy_file(source: Path, target: Path, *, link: bool = False, ops: FileOps = DISK) -> None:
    """Copy a file, sharing its bytes on the disk where that is safe or asked for.

    A symbolic link, as in the Hub's cache, stands for its target. With `link`, the copy is a hard
    link where possible: whoever edits one of the two files in place edits both.
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


def can_clone(source: Path, folder: Path, *, ops: FileOps = DISK) -> bool:
    """Try whether copies of a file into a folder share its bytes until they are changed."""
    probe = folder / ".probe"
    try:
        ops.clone(source, probe)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
