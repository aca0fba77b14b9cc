"""A LeRobot v3.0 dataset as it is read: opening, fetching, frames, instructions."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.fingerprints import Fingerprints, compute_fingerprints
from lerobot_topreward.data.frames import FrameTable, find_runs, read_frames
from lerobot_topreward.data.info import DATA_DIR, find_file
from lerobot_topreward.data.locate import commit_of, fetch_files, locate_dataset
from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.data.validate import load_metadata
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Segment
from lerobot_topreward.vlm.prompts import require_text

if TYPE_CHECKING:
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

_LONGEST_S = 1e7  # of a video: more overflows libav's clock


@dataclass(frozen=True)
class Source:
    """An opened dataset; its data and videos may still have to be fetched."""

    meta: Metadata
    root: Path  # the folder with meta/, data/ and videos/
    repo_id: str
    revision: str | None  # commit on the Hub; None for a local folder

    @cached_property
    def frames(self) -> FrameTable:
        """All its frames, read once; ``data/`` is fetched from the Hub when it is not here.

        Raises:
            UserError: ``data/`` is incomplete or unreadable, or not what the metadata say.
        """
        _fetch(self, _files(self, None))
        episodes_of: dict[Path, list[int]] = {path: [] for path in data_files(self)}
        for episode, name in enumerate(self.meta.name_files(None)):
            episodes_of[self.root / name].append(episode)
        return read_frames(self.meta, episodes_of)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Hashes of what was recorded, computed once."""
        return compute_fingerprints(self.meta, self.frames, data_files(self))

    @cached_property
    def videos(self) -> dict[str, tuple[list[str], list[Any]]]:
        """By camera, the file of every episode, and where in it the episode begins, s; unchecked."""
        return {
            camera: (
                self.meta.name_files(camera),
                self.meta.episodes[f"videos/{camera}/from_timestamp"].to_pylist(),
            )
            for camera in self.meta.video_keys
        }


def open_source(*, repo_id: str | None, root: Path | None, revision: str | None) -> Source:
    """Open a dataset as LeRobot does, fetching no more than its ``meta/`` files; see `locate_dataset`.

    Raises:
        UserError: Nothing to open, not a (complete, non-empty) v3 dataset, or the Hub refuses.
    """
    place = locate_dataset(repo_id=repo_id, root=root, revision=revision)
    return source_of(load_metadata(place.root, repo_id=place.repo_id, option=place.option))


def source_of(meta: "Metadata | LeRobotDatasetMetadata") -> Source:
    """Describe a dataset whose ``meta/`` is loaded already, by us or by LeRobot."""
    if not isinstance(meta, Metadata):
        meta = Metadata.of(meta)
    commit = commit_of(meta.root, meta.repo_id)
    return Source(meta=meta, root=meta.root, repo_id=meta.repo_id, revision=commit)


def data_files(source: Source) -> list[Path]:
    """List the parquet files of ``data/`` that the metadata name, in the order of their names.

    Raises:
        UserError: One is not here.
    """
    names = _files(source, None)
    for name in names:
        if find_file(source.root, name) is None:
            raise UserError(f"the dataset is incomplete: {source.root / name} is missing")
    files = [source.root / name for name in names]
    # The files that LeRobot's load_nested_dataset takes, whatever the metadata say.
    if strays := sorted(set((source.root / DATA_DIR).glob("*/*.parquet")) ^ set(files)):
        raise UserError(
            f"{source.root / DATA_DIR} must hold the parquet files that the metadata name; "
            f"{strays[0]} is not one of them. Move it away"
        )
    return files


def read_columns(source: Source, names: Sequence[str]) -> pa.Table:
    """Read columns of ``data/`` and ``index``, by which the rows are sorted.

    Raises:
        UserError: ``data/`` cannot be read or lacks one of them.
    """
    names = ["index", *names]
    try:
        parts = [pq.read_table(path, columns=names).select(names) for path in data_files(source)]
        table = pa.concat_tables(parts).combine_chunks()
        return table.take(np.argsort(table["index"].to_numpy(), kind="stable"))
    except (pa.ArrowException, LookupError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{source.root / DATA_DIR} cannot be read: {error}") from error


def find_video(
    source: Source, camera: str, episode: int, *, found: dict[str, Path | None] | None = None
) -> tuple[Path, float, float]:
    """Locate the video of an episode.

    `found` remembers the files for the next episode, as many share one.

    Returns:
        The file, where in it the episode begins, and where the next one does, in seconds; inf when
        none follows. LeRobot ignores ``to_timestamp``, which real datasets hold in two meanings.

    Raises:
        EpisodeError: The file is missing, or the metadata do not say where the episode begins.
        UserError: The file leads out of the dataset or is no regular file.
    """
    files, starts = source.videos[camera]
    name, start = files[episode], starts[episode]
    found = {} if found is None else found
    if name not in found:
        found[name] = find_file(source.root, name)
    path = found[name]
    if path is None:
        raise EpisodeError(f"{name} is missing; copy or download the dataset again")
    if start is None or not 0 <= start <= _LONGEST_S:
        raise EpisodeError(
            f"its videos/{camera}/from_timestamp in meta/episodes must be seconds >= 0; got {start}"
        )
    end = starts[episode + 1] if files[episode + 1 : episode + 2] == [name] else None
    return path, float(start), float(end) if end is not None and end > start else math.inf


def segments(
    source: Source, episodes: Sequence[int], *, instruction: str | None
) -> dict[int, list[Segment]]:
    """Cut episodes into runs of frames that follow one instruction.

    An instruction that is given stands for every whole episode, in place of the dataset's own
    tasks. An episode without frames has no segments.

    Raises:
        UserError: An episode has no task, the instruction is blank, or one holds control tokens.
    """
    if instruction is not None:
        if not instruction.strip():
            raise UserError("`instruction` must say what the robot does; it is blank")
        require_text(instruction, what="`instruction`", fix="Say it without")
    tasks = source.meta.tasks
    found: dict[int, list[Segment]] = {}
    for episode in episodes:
        task_index = source.frames.task_index[source.frames.rows(episode)]
        runs = [(start, n, tasks.get(task, "")) for start, n, task in find_runs(task_index)]
        if instruction is not None:
            runs = [(0, len(task_index), instruction)] if len(task_index) else []
        found[episode] = [Segment(episode, start, n, text) for start, n, text in runs]
        for text in () if instruction is not None else {text for _, _, text in runs}:
            fix = "Rename it with lerobot-edit-dataset, or give `instruction=TEXT`"
            require_text(text, what=f"the task of episode {episode}", fix=fix)
    if lacking := [i for i, cut in found.items() if not all(s.instruction.strip() for s in cut)]:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise UserError(
            f"every episode needs a task; the dataset has none for episode "
            f"{', '.join(map(str, lacking[:5]))}{more}. Say what the robot does: "
            "`instruction=TEXT`"
        )
    return found


def fetch_videos(
    source: Source, camera: str | None = None, episodes: Collection[int] | None = None
) -> None:
    """Fetch the video files of one camera, or of all, that hold these episodes, or all."""
    cameras = [key for key in source.meta.video_keys if camera in (key, None)]
    _fetch(source, [name for key in cameras for name in _files(source, key, episodes)])


def picture_files(source: Source, camera: str) -> list[str]:
    """Name the file that holds each episode's pictures of a camera: a video, or one of ``data/``."""
    kind = camera if camera in source.meta.video_keys else None
    return source.meta.name_files(kind)


def require_files(source: Source, episodes: Collection[int] | None, *, advice: str) -> None:
    """Check that the data and all cameras' videos of these episodes, or of all, are here.

    LeRobot answers a missing file by asking the Hub, even about a local folder.

    Raises:
        UserError: Names the first file that is missing, and gives the advice.
    """
    for camera in (None, *source.meta.video_keys):
        for name in _files(source, camera, episodes):
            if find_file(source.root, name) is None:
                raise UserError(
                    f"the dataset is incomplete: {source.root / name} is missing. Restore it, or "
                    f"{advice}"
                )


def _files(
    source: Source, camera: str | None, episodes: Collection[int] | None = None
) -> list[str]:
    """Name the files of ``data/``, or of a camera's videos, that hold these episodes or all."""
    places = source.meta.name_files(camera)
    chosen = range(len(places)) if episodes is None else set(episodes)
    return sorted({place for i, place in enumerate(places) if i in chosen})


def _fetch(source: Source, names: list[str]) -> None:
    fetch_files(source.root, source.repo_id, source.revision, names)
