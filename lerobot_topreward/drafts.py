"""A file that is written whole or not at all, and whose place is checked before the work begins."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lerobot_topreward.errors import UserError
from lerobot_topreward.transaction import remove, sync


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
