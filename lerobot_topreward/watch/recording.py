"""A dataset that LeRobot's recorder has not closed: what its files already say of each episode.

LeRobot 0.6.1 (``datasets/dataset_writer.py``) closes the parquet files of ``data/`` and
``meta/episodes`` only when the recording ends; until then they have no footer and cannot be read.
After every episode it brings three things up to date, in this order: ``meta/tasks.parquet``, the
videos, to which the new episode is appended, and the totals in ``meta/info.json``. So an episode is
known when the totals before it and after it are: its frames are those that were added, and its
video is as many frames of the videos, which hold nothing but episodes, one after another.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import pandas as pd
import pyarrow as pa
from av.error import FFmpegError

from lerobot_topreward.data.info import (
    DATA_DIR,
    EPISODES_DIR,
    TASKS_PATH,
    Info,
    find_file,
    first_line,
    read_info,
)
from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.prompts import require_text

_MOST_EPISODES = 10**6  # nobody records more
_FOOTER = b"PAR1"  # ends a parquet file that was closed


class NotYetError(Exception):
    """An episode cannot be judged now, and may be later; says why."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The totals of a dataset at one moment."""

    frames: int
    tasks: int


BEGINNING = Mark(0, 0)


@dataclass(frozen=True, slots=True)
class Span:
    """Where the frames of an episode lie among those of the dataset."""

    first: int
    length: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the video of an episode lies."""

    path: Path
    start: float  # of its first frame, s


def read_totals(root: Path) -> Info:
    """Read ``meta/info.json`` of a dataset that may have no episode so far.

    Raises:
        UserError: it is not there, half written, or breaks a rule.
    """
    option = f"`root={root}`"
    info = read_info(root, repo_id=root.name, option=option, may_be_empty=True)
    if info.total_episodes > min(info.total_frames, _MOST_EPISODES):
        raise UserError(f"{option}: meta/info.json promises {info.total_episodes} episodes")
    return info


def color_cameras(info: Info) -> list[str]:
    """The feature keys of the cameras that are not of depth."""

    def is_depth(key: str) -> bool:
        feature = info.features[key]
        about = (feature.info or {}) | (feature.video_info or {})
        return bool(about.get("is_depth_map") or about.get("video.is_depth_map"))

    return [
        key
        for key, feature in info.features.items()
        if feature.dtype in ("video", "image") and not is_depth(key)
    ]


def read_task(root: Path, before: Mark, after: Mark, *, given: str | None) -> str:
    """Find the task of an episode by the tasks that were known before and after it.

    Args:
        root: the dataset.
        before: it was recorded.
        after: it was recorded.
        given: what is being recorded, as far as somebody said it.

    Raises:
        NotYetError: there are several that it can be.
    """
    try:
        if find_file(root, TASKS_PATH) is None:
            raise ValueError("it is missing")
        numbers = pd.read_parquet(root / TASKS_PATH)["task_index"]
        texts = {int(number): text for text, number in numbers.items() if isinstance(text, str)}
        tasks = [texts[number] for number in range(after.tasks)]
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException, UserError) as error:
        raise NotYetError(f"{TASKS_PATH} cannot be read: {first_line(error)}") from None
    added = tasks[before.tasks :]
    if len(added) > 1:
        raise NotYetError("it has several tasks, and where each begins is not known before then")
    task = added[0] if added else tasks[0] if len(tasks) == 1 else given
    if task is None:
        raise NotYetError(f"it has one of {len(tasks)} tasks; say which with `task`")
    if task not in tasks:
        raise NotYetError(f"the dataset has no task {task!r}, which `task` names")
    if not task.strip():
        raise NotYetError("its task is blank: say what the robot does with `instruction`")
    try:
        require_text(task, what="its task", fix="Give `instruction`")
    except UserError as error:
        raise NotYetError(str(error)) from None
    return task


@dataclass(slots=True)
class Videos:
    """The video files of one camera, and how many frames they hold."""

    root: Path
    camera: str
    _counts: dict[Path, tuple[tuple[int, int, int], int]] = field(default_factory=dict)

    def stamp(self, info: Info) -> list[tuple[object, ...]]:
        """Something that changes when one of the files does, or another comes."""
        return [(path, *_stamp(path)) for path in self._list(str(info.video_path))]

    def locate(self, info: Info, span: Span) -> Place:
        """Find the file that shows an episode.

        Args:
            info: read before the files are looked at.
            span: of the episode.

        Raises:
            NotYetError: the files do not hold exactly the frames that the dataset has.
            UserError: a file leads out of the dataset.
        """
        feature = info.features.get(self.camera)
        if feature is None or feature.dtype != "video":
            raise NotYetError("its images lie in data/, which is not closed")
        held, found = 0, None
        for path in self._list(str(info.video_path)):
            frames = self._count(path)
            if held <= span.first and span.first + span.length <= held + frames:
                found = Place(path, (span.first - held) / info.fps)
            held += frames
        if held != info.total_frames:
            raise NotYetError(f"the videos hold {held} frames, and the dataset {info.total_frames}")
        if found is None:
            raise NotYetError("no video holds all of it")
        return found

    def _list(self, template: str) -> list[Path]:
        """List the files in the order in which they were recorded."""
        paths: list[Path] = []
        chunk = file = 0
        while True:
            name = template.format(video_key=self.camera, chunk_index=chunk, file_index=file)
            path = find_file(self.root, name)
            if path is not None and path not in paths:
                paths.append(path)
                file += 1
            elif file:  # the first file of the next chunk follows the last one of this
                chunk, file = chunk + 1, 0
            else:
                return paths

    def _count(self, path: Path) -> int:
        stamp = _stamp(path)
        before, frames = self._counts.get(path, (None, 0))
        if before != stamp:
            try:
                with av.open(str(path)) as container:
                    frames = container.streams.video[0].frames
            except (FFmpegError, OSError, LookupError):  # is being written
                frames = 0
            self._counts[path] = stamp, frames
        return frames


def _stamp(path: Path) -> tuple[int, int, int]:
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
    return 0, 0, 0


def is_closed(root: Path) -> bool:
    """Whether the recorder has closed all of its files, of a dataset that has an episode."""
    tables = [
        [path for path in (root / name).glob("*/*.parquet") if path.is_file()]
        for name in (DATA_DIR, EPISODES_DIR)
    ]
    return all(tables) and all(_has_footer(path) for paths in tables for path in paths)


def _has_footer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(_FOOTER), 2)
            return file.read() == _FOOTER
    except OSError:  # shorter than that, or gone
        return False
