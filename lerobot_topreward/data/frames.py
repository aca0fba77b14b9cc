"""Every frame of a dataset: which episode, time and task it has."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from lerobot_topreward.data.info import DATA_DIR, INFO_PATH, first_line
from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.errors import UserError

_SCHEMA = pa.schema(
    [(name, pa.int64()) for name in ("index", "episode_index", "frame_index", "task_index")]
    + [("timestamp", pa.float64())]
)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Every frame of a dataset, episode after episode; ``index`` counts them from 0."""

    index: Int64[np.ndarray, " frames"]
    episode_index: Int64[np.ndarray, " frames"]
    frame_index: Int64[np.ndarray, " frames"]  # within the episode
    timestamp: Float64[np.ndarray, " frames"]  # s since the episode began
    task_index: Int64[np.ndarray, " frames"]

    def rows(self, episode: int) -> slice:
        """Locate the frames of an episode; an empty slice when it has none."""
        first, last = np.searchsorted(self.episode_index, [episode, episode + 1])
        return slice(int(first), int(last))


def read_frames(meta: Metadata, episodes_of: Mapping[Path, Sequence[int]]) -> FrameTable:
    """Read the index columns of all frames from files, each with the episodes that it should hold.

    Raises:
        UserError: a file is unreadable, or the frames are not those that the metadata promise.
    """
    table = pa.concat_tables([_read_file(meta, *item) for item in episodes_of.items()])
    columns = {name: table[name].to_numpy() for name in _SCHEMA.names}
    folder = meta.root / DATA_DIR
    if len(table) != meta.total_frames:
        raise UserError(
            f"{folder} must hold the {meta.total_frames} frames that {INFO_PATH} promises; it holds "
            f"{len(table)}. Copy or download the dataset again"
        )
    order = np.argsort(columns["index"], kind="stable")
    frames = FrameTable(**{name: values[order] for name, values in columns.items()})
    position = np.arange(len(order))
    first = np.searchsorted(frames.episode_index, frames.episode_index)
    if (
        np.any(frames.index != position)
        or np.any(np.diff(frames.episode_index) < 0)
        or np.any(frames.frame_index != position - first)
    ):
        raise UserError(
            f"{folder} must number its frames 0, 1, 2, ... without a gap, both in index, episode "
            "after episode, and in frame_index within each"
        )
    return frames


def _read_file(meta: Metadata, path: Path, episodes: Sequence[int]) -> pa.Table:
    stored = {key for key, feature in meta.features.items() if feature["dtype"] != "video"}
    try:
        schema = pq.read_schema(path)
        if described := (schema.metadata or {}).get(b"huggingface"):
            dict(json.loads(described)["info"]["features"])  # LeRobot takes the types from it
        if lacking := sorted({*stored, *_SCHEMA.names} - set(schema.names)):
            raise ValueError(f"it lacks the columns {', '.join(lacking)}")
        for field in _SCHEMA:
            found = schema.field(field.name).type
            is_kind = pa.types.is_integer if pa.types.is_int64(field.type) else pa.types.is_floating
            if not is_kind(found):
                raise ValueError(f"its column {field.name} must be {field.type}; it is {found}")
        table = pq.read_table(path, columns=_SCHEMA.names).select(_SCHEMA.names).cast(_SCHEMA)
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    for name in _SCHEMA.names:
        if table[name].null_count:
            raise UserError(f"{path}: column {name} must have a value in every row; some are null")
    strays = np.setdiff1d(table["episode_index"].to_numpy(), episodes)
    if len(strays):
        raise UserError(
            f"{path} holds frames of episode {strays[0]}, which the metadata do not place there; "
            "copy or download the dataset again"
        )
    return table


def find_runs(values: Int64[np.ndarray, " frames"]) -> list[tuple[int, int, int]]:
    """Run-length encode: (first frame, frames, value) of each run of equal values."""
    if len(values) == 0:
        return []
    starts = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()]
    ends = [*starts[1:], len(values)]
    return [(i, end - i, int(values[i])) for i, end in zip(starts, ends, strict=True)]
