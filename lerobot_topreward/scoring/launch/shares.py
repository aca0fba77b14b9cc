"""What the process that scores a share tells the others: a file beside the shards it writes.

``share_1_of_4.json`` counts episodes while they are scored, for whoever shows the progress, and says
in the end what failed. ``share_1_of_4.lock`` is held meanwhile.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from lerobot_topreward.console import EpisodeProgress
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import remove, write_file
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.scoring.launch.config import Share

_WAIT_S = 60.0  # for a process that was told to end, to end


@dataclass(slots=True)
class ShareRecord:
    """How far a share is."""

    path: Path
    done: int = 0  # episodes, failed ones among them
    frames: int = 0  # of these
    scored: int = 0  # episodes, once it has ended
    interrupted: bool = False  # by the user, with episodes left
    shown: set[str] = field(default_factory=set)  # sizes of images
    failed: dict[int, str] = field(default_factory=dict)  # episode -> reason, once it has ended
    error: str | None = None  # what ended it early

    def write(self) -> None:
        """Let the others know."""
        content = {
            "done": self.done,
            "frames": self.frames,
            "scored": self.scored,
            "interrupted": self.interrupted,
            "shown": sorted(self.shown),
            "failed": {str(episode): reason for episode, reason in self.failed.items()},
            "error": self.error,
        }
        write_file(self.path, json.dumps(content, indent=2))


class ShareProgress(EpisodeProgress):
    """Shows the progress of a share, and notes it in its record."""

    def __init__(self, console: Console, *, episodes: int, record: ShareRecord) -> None:
        """Begin to count towards a number of episodes."""
        super().__init__(console, episodes=episodes)
        self._record = record

    def episode_done(self, frames: int) -> None:
        """Count an episode of so many frames, labeled or failed."""
        super().episode_done(frames)
        self._record.done += 1
        self._record.frames += frames
        self._record.write()


@contextmanager
def claim_share(folder: Path, share: Share) -> Iterator[ShareRecord]:
    """Hold a share of a store that is in this folder, and begin its record.

    Raises:
        UserError: another process scores it, or shares of another size are being scored.
    """
    own = folder / f"{share.name}.lock"
    for path in folder.glob("share_*.lock"):
        if not path.name.endswith(f"_of_{share.of}.lock"):
            _hold(path, share, wait_s=0).release()
    lock = _hold(own, share, wait_s=_WAIT_S)
    try:
        path = own.with_suffix(".json")
        # The sizes are those of scores that are kept.
        record = ShareRecord(path, shown=read_record(path).shown if path.exists() else set())
        record.write()
        yield record
    finally:
        lock.release()


def _hold(path: Path, share: Share, *, wait_s: float) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise UserError(
            f"share {share.rank + 1} of {share.of} cannot be scored now: another process scores "
            f"{path.stem.replace('_', ' ')}; wait for it to end"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be locked: {error.strerror}; remove it and run again"
        ) from None
    return lock


def read_record(path: Path) -> ShareRecord:
    """Read the record of a share; of values that no share writes nothing is kept.

    Raises:
        UserError: it is damaged.
    """
    found = read_json_object(path, advice="Delete it and run the command again")
    shown, failed, error = found.get("shown"), found.get("failed"), found.get("error")
    return ShareRecord(
        path,
        done=_count(found.get("done")),
        frames=_count(found.get("frames")),
        scored=_count(found.get("scored")),
        interrupted=found.get("interrupted") is True,
        shown={size for size in shown if isinstance(size, str)}
        if isinstance(shown, list)
        else set(),
        failed={
            int(episode): str(reason)
            for episode, reason in (failed if isinstance(failed, dict) else {}).items()
            if re.fullmatch(r"[0-9]{1,9}", episode)
        },
        error=error if isinstance(error, str) else None,
    )


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def read_records(folder: Path) -> list[ShareRecord]:
    """Read the records of all shares of the store in a folder, in the order of their names.

    Raises:
        UserError: one is damaged.
    """
    return [read_record(path) for path in sorted(folder.glob("share_*_of_*.json"))]


def remove_records(folder: Path) -> None:
    """Remove the records and locks of all shares, whose processes have ended."""
    for path in folder.glob("share_*_of_*.*"):
        remove(path)
