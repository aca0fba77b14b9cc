"""Where labels are stored: the columns of a dataset, our sidecar, or another program's sidecar."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32

from lerobot_topreward.data.dataset import FrameTable, Source
from lerobot_topreward.data.fingerprints import dataset_fingerprint
from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.label_columns import (
    check_frames,
    edited_since,
    has_columns,
    read_columns,
    spread,
)
from lerobot_topreward.storage.reader import label_command
from lerobot_topreward.storage.sidecar import fingerprint_of, read_sidecar

_NEEDED = ("topreward.progress", "topreward.log_prob", "topreward.labelled")
_FOREIGN_COLUMNS = ("index", "episode_index", "frame_index", "progress_sparse")


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """The labels of a whole dataset, in the order of its global ``index``."""

    origin: str  # for messages
    progress: Float32[np.ndarray, " frames"]  # 0..1; 0 where not labelled
    log_prob: Float32[np.ndarray, " frames"] | None  # nats, <= 0; None if it was not stored
    labelled: Bool[np.ndarray, " frames"]
    scored: Bool[np.ndarray, " frames"] | None  # last frames of scored prefixes; None if unknown


def read_stored_columns(source: Source, table: FrameTable) -> StoredLabels:
    """Read the columns ``topreward.*``.

    Raises:
        UserError: they are not there, or not finite.
    """
    if not has_columns(source):
        raise UserError(
            f"--weighting.source=columns needs {', '.join(_NEEDED)}; {source.root} has none of "
            f"them. {label_command(source)}"
        )
    columns = read_columns(source, table, needed=_NEEDED)
    return StoredLabels(
        origin="the columns topreward.*",
        progress=columns["progress"],
        log_prob=columns["log_prob_true"],
        labelled=columns["labelled"],
        scored=columns.get("scored"),
    )


def fits(path: Path, source: Source, table: FrameTable) -> bool:
    """Whether a sidecar that labelling wrote is of the dataset as it is now."""
    return fingerprint_of(path) == dataset_fingerprint(source, table)


def read_own_sidecar(path: Path, source: Source, table: FrameTable) -> StoredLabels:
    """Read a sidecar that labelling wrote; frames that it leaves out are not labelled.

    Raises:
        UserError: it is of another dataset or of this one before it changed, or cannot be read.
    """
    sidecar = read_sidecar(path, fingerprint=None)
    if not fits(path, source, table):
        instead = ". Or use --weighting.source=columns" if has_columns(source) else ""
        raise UserError(f"{path} is stale: {edited_since(source, path)}{instead}")
    rewards = spread(path, sidecar, table)
    return StoredLabels(
        origin=str(path),
        progress=rewards.progress,
        log_prob=rewards.log_prob_true,
        labelled=rewards.labelled,
        scored=rewards.scored,
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
    check_frames(path, table, index, episode, frame)
    dense = np.full(len(table.index), np.nan, dtype=np.float32)
    dense[index] = progress
    labelled = np.isfinite(dense)
    return StoredLabels(
        origin=str(path),
        progress=np.where(labelled, dense, np.float32(0)),
        log_prob=None,
        labelled=labelled,
        scored=None,
    )


def is_own(path: Path) -> bool:
    """Whether labelling wrote this sidecar."""
    return fingerprint_of(path) is not None
