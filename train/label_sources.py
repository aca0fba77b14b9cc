"""Where labels are stored: the columns of a dataset, our sidecar, or another program's sidecar."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int64

from lerobot_topreward.dataset import FEATURES
from lerobot_topreward.errors import UserError
from lerobot_topreward.fingerprints import dataset_fingerprint
from lerobot_topreward.labelled import label_command
from lerobot_topreward.sidecar import fingerprint_of, read_sidecar
from lerobot_topreward.source import FrameTable, Source, data_files

_FOREIGN_COLUMNS = ("index", "episode_index", "frame_index", "progress_sparse")


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """The labels of a whole dataset, in the order of its global ``index``."""

    origin: str  # for messages
    progress: Float32[np.ndarray, " frames"]  # 0..1; 0 where not labelled
    log_prob: Float32[np.ndarray, " frames"] | None  # nats, <= 0; None if it was not stored
    labelled: Bool[np.ndarray, " frames"]
    scoring: Mapping[str, Any] | None  # what was shown and asked, where it was stored


def has_columns(source: Source) -> bool:
    """Whether the dataset says that it has our columns."""
    return "topreward.progress" in source.meta.features


def read_columns(source: Source, table: FrameTable) -> StoredLabels:
    """Read the columns ``topreward.*``.

    Raises:
        UserError: they are not there, or not finite.
    """
    lacking = [name for name in FEATURES if name not in source.meta.features]
    if lacking:
        raise UserError(
            f"--weighting.source=columns needs {', '.join(FEATURES)}; {source.root} lacks "
            f"{', '.join(lacking)}. {label_command(source)}"
        )
    names = ["index", "topreward.progress", "topreward.log_prob", "topreward.labelled"]
    try:
        parts = [pq.read_table(path, columns=names) for path in data_files(source)]
        rows = pa.concat_tables(parts)
        columns = [rows[name].to_numpy() for name in names]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{source.root / 'data'} cannot be read: {error}") from error
    order = np.argsort(columns[0], kind="stable")
    progress, log_prob, labelled = (column[order] for column in columns[1:])
    bad = np.flatnonzero(labelled & ~(np.isfinite(progress) & np.isfinite(log_prob)))
    if len(bad):
        raise UserError(
            f"the columns topreward.* of {source.root} must be finite; {place(table, bad[0])} is "
            f"not, nor are {len(bad) - 1} others. {label_command(source)}"
        )
    return StoredLabels(
        origin="the columns topreward.*",
        progress=progress.astype(np.float32),
        log_prob=log_prob.astype(np.float32),
        labelled=labelled.astype(bool),
        scoring=None,
    )


def read_own_sidecar(path: Path, source: Source, table: FrameTable) -> StoredLabels:
    """Read a sidecar that labelling wrote; frames that it leaves out are not labelled.

    Raises:
        UserError: it is of another dataset or of this one before it changed, or cannot be read.
    """
    sidecar = read_sidecar(path, fingerprint=None)
    fingerprint = dataset_fingerprint(source, table)
    if sidecar.fingerprint != fingerprint:
        instead = ", or use --weighting.source=columns" if has_columns(source) else ""
        raise UserError(
            f"{path} is stale: it was made for another dataset, or for this one before it changed "
            f"(fingerprint {sidecar.fingerprint[:12]}, now {fingerprint[:12]}). "
            f"{label_command(source)}{instead}"
        )
    _check_frames(path, table, sidecar.index, sidecar.episode_index, sidecar.frame_index)
    return StoredLabels(
        origin=str(path),
        progress=_spread(sidecar.progress, sidecar.index, table),
        log_prob=_spread(sidecar.log_prob_true, sidecar.index, table),
        labelled=_spread(np.ones(len(sidecar.index), dtype=bool), sidecar.index, table),
        scoring=sidecar.provenance.get("scoring"),
    )


def read_foreign_sidecar(path: Path, table: FrameTable) -> StoredLabels:
    """Read a sidecar of LeRobot's own TOPReward or SARM: progress alone, NaN where there is none.

    Raises:
        UserError: it cannot be read, lacks a column, or is not of this dataset's frames.
    """
    try:
        file = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"--weighting.sidecar {path} cannot be read: {error}") from None
    lacking = [name for name in _FOREIGN_COLUMNS if name not in file.column_names]
    if lacking:
        raise UserError(
            f"--weighting.sidecar {path} must have the columns {', '.join(_FOREIGN_COLUMNS)}; it "
            f"lacks {', '.join(lacking)}"
        )
    index, episode, frame, progress = (
        file[name].to_numpy(zero_copy_only=False) for name in _FOREIGN_COLUMNS
    )
    _check_frames(path, table, index, episode, frame)
    known = np.isfinite(progress)
    return StoredLabels(
        origin=str(path),
        progress=_spread(progress[known].astype(np.float32), index[known], table),
        log_prob=None,
        labelled=_spread(known[known], index[known], table),
        scoring=None,
    )


def is_own(path: Path) -> bool:
    """Whether labelling wrote this sidecar."""
    return fingerprint_of(path) is not None


def place(table: FrameTable, row: int) -> str:
    """Name a frame."""
    return f"frame {table.frame_index[row]} of episode {table.episode_index[row]}"


def _check_frames(
    path: Path,
    table: FrameTable,
    index: Int64[np.ndarray, " rows"],
    episode_index: Int64[np.ndarray, " rows"],
    frame_index: Int64[np.ndarray, " rows"],
) -> None:
    """Refuse rows that are not frames of the dataset, or are there twice."""
    inside = len(index) > 0 and index.min() >= 0 and index.max() < len(table.index)
    if inside and len(np.unique(index)) == len(index):
        differs = (table.episode_index[index] != episode_index) | (
            table.frame_index[index] != frame_index
        )
        if not differs.any():
            return
        row = int(np.argmax(differs))
        what = (
            f"its index {index[row]} is frame {frame_index[row]} of episode {episode_index[row]}, "
            f"in the dataset {place(table, index[row])}"
        )
    elif inside:
        what = "it names frames twice"
    else:
        what = f"its {len(index)} rows are not among the dataset's {len(table.index)} frames"
    raise UserError(f"{path} does not belong to this dataset: {what}")


def _spread(values: np.ndarray, index: Int64[np.ndarray, " rows"], table: FrameTable) -> np.ndarray:
    # The dataset numbers its frames 0, 1, 2, ... (checked by frame_table): an index is a row.
    dense = np.zeros(len(table.index), dtype=values.dtype)
    dense[index] = values
    return dense
