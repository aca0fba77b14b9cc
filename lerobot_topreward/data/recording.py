"""What a dataset recorded besides pictures, read from ``meta/`` and ``data/`` alone.

LeRobot's reader needs seconds and torch to be imported, and stops at the first damage. This one reads
file after file, so that memory holds one file of ``data/`` at a time, and reports what it cannot read
per episode.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64

from lerobot_topreward.data.info import (
    AGAIN,
    EPISODES_DIR,
    INFO_PATH,
    TASKS_PATH,
    Info,
    find_file,
    first_line,
    read_info,
)
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import EpisodeRecording, Signals

NUMBERS = ("float", "int", "uint", "bool")  # how the dtypes of columns of numbers begin
_MOST = 100_000  # numbers in a row: what info.json claims is not made room for
_GRIPPER = ("gripper", "grasp", "jaw", "finger")
_LAST = 2.0**62  # frame
_EPISODE_COLUMNS = ("episode_index", "length", "data/chunk_index", "data/file_index")


@dataclass(frozen=True)
class RecordedDataset:
    """A dataset's description; its episodes are read when they are asked for."""

    root: Path
    info: Info
    signals: Signals
    columns: Sequence[str]  # of ``data/`` that `signals` are made of
    tasks: Mapping[int, str]
    lengths: tuple[int, ...]  # frames of every episode, as ``meta/episodes`` promises them
    files: Mapping[str, tuple[int, ...]]  # file of ``data/`` -> the episodes that it should hold
    # Camera -> s of each episode's video; nan where ``meta/episodes`` does not say.
    video_s: Mapping[str, Float64[np.ndarray, " episodes"]]

    @property
    def fps(self) -> float:
        """The dataset's clock, Hz."""
        return self.info.fps

    def files_of(self, chosen: Collection[int]) -> list[str]:
        """Name the files of ``data/`` that hold these episodes."""
        selected = {*chosen}
        return [name for name, inside in self.files.items() if not selected.isdisjoint(inside)]

    def episodes(
        self, chosen: Sequence[int]
    ) -> Iterator[tuple[int, EpisodeRecording | EpisodeError]]:
        """Read episodes file after file, in the order of the files.

        Yields:
            Each chosen episode with its recording, or with the reason why it cannot be read.
        """
        selected = {*chosen}
        for name, inside in self.files.items():
            wanted = sorted(selected.intersection(inside))
            if not wanted:
                continue
            try:
                table = self._read_file(name)
                index = _numbers(table, "episode_index", width=1)[:, 0]
            except EpisodeError as error:
                yield from ((episode, error) for episode in wanted)
                continue
            order = np.argsort(index, kind="stable")
            table, index = table.take(order), index[order]
            for episode in wanted:
                first, last = np.searchsorted(index, [episode, episode + 1])
                yield episode, self._recording(episode, table.slice(first, last - first))

    def _read_file(self, name: str) -> pa.Table:
        path = find_file(self.root, name)
        if path is None:
            raise EpisodeError(f"{name} is missing; {AGAIN}")
        own = ["episode_index", "frame_index", "timestamp"]
        try:
            present = pq.read_schema(path).names
            names = [*own, *(["task_index"] if "task_index" in present else []), *self.columns]
            if lacking := [column for column in names if column not in present]:
                raise ValueError(f"it lacks the columns {', '.join(lacking)}")
            return pq.read_table(path, columns=names)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise EpisodeError(f"{name} cannot be read: {first_line(error)}") from error

    def _recording(self, episode: int, table: pa.Table) -> EpisodeRecording | EpisodeError:
        features = self.info.features
        try:
            parts = [
                _numbers(table, column, width=math.prod(features[column].shape))
                for column in self.columns
            ]
            frame_index = _numbers(table, "frame_index", width=1)[:, 0]
            timestamp = _numbers(table, "timestamp", width=1)[:, 0]
            task: list[str] = []
            if "task_index" in table.column_names:
                numbers = _numbers(table, "task_index", width=1)[:, 0]
                first = np.sort(np.unique(numbers, return_index=True)[1])
                # A float equals the whole number that a task has; inf and nan equal none.
                task = [self.tasks.get(number, "") for number in numbers[first].tolist()]
        except EpisodeError as error:
            return error
        return EpisodeRecording(
            episode_index=episode,
            task=" / ".join(task),
            declared=self.lengths[episode],
            timestamp=timestamp,
            # What no frame has stands for what is no index at all.
            frame_index=np.nan_to_num(frame_index, nan=-1, posinf=-1, neginf=-1)
            .clip(-1, _LAST)
            .astype(np.int64),
            values=np.concatenate([np.empty((len(table), 0)), *parts], axis=1),
            video_s={
                camera: float(seconds[episode])
                for camera, seconds in self.video_s.items()
                if np.isfinite(seconds[episode])
            },
        )


def open_recorded(root: Path, *, repo_id: str, option: str) -> RecordedDataset:
    """Read the description of a dataset in a folder.

    Args:
        root: the folder with ``meta/`` and ``data/``.
        repo_id: what the dataset is called.
        option: what named it; error messages begin with it.

    Raises:
        UserError: it is no LeRobot v3 dataset, or ``meta/`` cannot be read.
    """
    info = read_info(root, repo_id=repo_id, option=option)
    columns = recorded_columns({name: item.dtype for name, item in info.features.items()})
    for column in columns:
        if math.prod(info.features[column].shape) > _MOST:
            raise UserError(
                f"{option}: {column} must have at most {_MOST} numbers in a row; {INFO_PATH} says "
                f"{info.features[column].shape}"
            )
    cameras = [name for name, item in info.features.items() if item.dtype == "video"]
    table = _read_tables(root, cameras, option=option)
    lengths = table["length"].to_pylist()
    files: dict[str, list[int]] = defaultdict(list)
    places = zip(*(table[name].to_pylist() for name in _EPISODE_COLUMNS[2:]), strict=True)
    for episode, (chunk, file) in enumerate(places):
        files[info.data_path.format(chunk_index=chunk, file_index=file)].append(episode)
    return RecordedDataset(
        root=root,
        info=info,
        signals=_describe_signals(info, columns),
        columns=columns,
        tasks=_read_tasks(root, option=option),
        lengths=tuple(lengths),
        files={name: tuple(episodes) for name, episodes in files.items()},
        video_s={
            camera: table[last].to_numpy() - table[first].to_numpy()
            for camera in cameras
            for first, last in [_video_columns(camera)]
        },
    )


def _video_columns(camera: str) -> tuple[str, str]:
    """Name the columns that say from when to when in its file an episode's video lasts, in s."""
    return f"videos/{camera}/from_timestamp", f"videos/{camera}/to_timestamp"


def _read_tables(root: Path, cameras: Sequence[str], *, option: str) -> pa.Table:
    """Read what ``meta/episodes`` says of every episode, by index; null where it lacks a time."""
    paths = sorted((root / EPISODES_DIR).glob("*/*.parquet"))
    if not paths:
        raise UserError(f"{option} is incomplete: {root / EPISODES_DIR} is missing")
    try:
        for path in paths:
            find_file(root, path)
        times = [name for camera in cameras for name in _video_columns(camera)]
        schema = pa.schema(
            [(name, pa.int64()) for name in _EPISODE_COLUMNS]
            + [(name, pa.float64()) for name in times]
        )
        parts = [_read_present(path, schema) for path in paths]
        table = pa.concat_tables(parts)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{option}: {root / EPISODES_DIR} cannot be read: {first_line(error)}"
        ) from error
    table = table.sort_by("episode_index")
    if any(table[name].null_count for name in _EPISODE_COLUMNS) or (
        table["episode_index"].to_pylist() != list(range(len(table)))
    ):
        raise UserError(
            f"{option}: {EPISODES_DIR} must list the episodes 0, 1, 2, ... and where they lie; {AGAIN}"
        )
    return table


def _read_present(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema; null where the file lacks one."""
    # Asked for a column that is not there, pyarrow takes the dots of its name for a path.
    there = pq.read_schema(path).names
    present = [name for name in schema.names if name in there]
    table = pq.read_table(path, columns=present)
    for name in schema.names:
        if name not in present:
            table = table.append_column(name, pa.nulls(len(table)))
    return table.select(schema.names).cast(schema)


def _read_tasks(root: Path, *, option: str) -> dict[int, str]:
    path = find_file(root, TASKS_PATH)
    if path is None:
        return {}
    try:
        table = pq.read_table(path)
        numbers = table["task_index"].to_pylist()
        # LeRobot writes the texts as the index of a pandas table, which may have no name.
        text, *_ = [name for name in table.column_names if name != "task_index"]
        texts = table[text].to_pylist()
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise UserError(f"{option}: {TASKS_PATH} cannot be read: {first_line(error)}") from error
    return {
        number: text
        for number, text in zip(numbers, texts, strict=True)
        if isinstance(number, int) and isinstance(text, str)
    }


def _describe_signals(info: Info, columns: Sequence[str]) -> Signals:
    names: list[str] = []
    where: dict[str, range] = {}
    own: dict[str, list[str]] = {}  # the names that a column gives its dimensions
    for column in columns:
        width = math.prod(info.features[column].shape)
        given = _flatten_names(info.features[column].names)
        own[column] = given if len(given) == width else []
        labels = own[column] or ([str(i) for i in range(width)] if width > 1 else [])
        where[column] = range(len(names), len(names) + width)
        names += [f"{column}.{label}" for label in labels] or [column]
    commands, readings = (where.get(name, range(0)) for name in ("action", "observation.state"))
    return Signals(
        names=tuple(names),
        commands=tuple(commands),
        readings=tuple(readings),
        pairs=_pair(own.get("action", []), own.get("observation.state", []), commands, readings),
        grippers=tuple(
            i
            for i in (*commands, *readings)
            if any(
                word in names[i].rpartition("observation.state.")[2].lower() for word in _GRIPPER
            )
        ),
    )


def _pair(
    action: Sequence[str], state: Sequence[str], commands: range, readings: range
) -> tuple[tuple[int, int], ...]:
    """Pair commands with readings by name, or by place where neither has names."""
    if action and state:
        at = {name: i for i, name in zip(readings, state, strict=True)}
        return tuple((i, at[name]) for i, name in zip(commands, action, strict=True) if name in at)
    if len(commands) != len(readings):
        return ()
    return tuple(zip(commands, readings, strict=True))


def recorded_columns(dtypes: Mapping[str, str]) -> list[str]:
    """Name the columns of numbers that were recorded, given every column's dtype, sorted."""
    return sorted(
        name
        for name, dtype in dtypes.items()
        if (name == "action" or name.startswith(("action.", "observation.")))
        and dtype.startswith(NUMBERS)
    )


def flatten_column(column: pa.ChunkedArray) -> np.ndarray:
    """Give the numbers of a column, row after row, whatever lists and extension types hold them.

    Raises:
        TypeError: It holds something else.
    """
    values = column.combine_chunks()
    while isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    if not (pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type)):
        raise TypeError(f"it must hold numbers; it holds {values.type}")
    return values.to_numpy(zero_copy_only=False)


def _flatten_names(names: Any) -> list[str]:
    """LeRobot holds names as a list, or as lists by the kind of joint."""
    if isinstance(names, Mapping):
        names = [name for inner in names.values() for name in _flatten_names(inner)]
    return [str(name) for name in names] if isinstance(names, list) else []


def _numbers(table: pa.Table, column: str, *, width: int) -> np.ndarray:
    """Give a column as a matrix; nan where there is no number.

    Raises:
        EpisodeError: it holds something else, or rows of another width.
    """
    try:
        cells = flatten_column(table[column])
    except TypeError as error:
        raise EpisodeError(f"column {column} cannot be used: {error}") from None
    if len(cells) != len(table) * width:
        raise EpisodeError(
            f"column {column} must have {width} numbers in every row; it has {len(cells)} in "
            f"{len(table)} rows"
        )
    try:
        return cells.astype(np.float64).reshape(len(table), width)
    except (TypeError, ValueError) as error:
        raise EpisodeError(f"column {column} must hold numbers: {first_line(error)}") from error
