"""The labels of every frame, wherever they are kept.

Three places: the columns of the dataset, which LeRobot's tools keep; our sidecar; and a sidecar of
another program, which has progress alone. The dataset may have been edited since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from jaxtyping import Int64

from lerobot_topreward.data.dataset import Source, read_columns
from lerobot_topreward.data.frames import FrameTable
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.records import COLUMNS, FEATURES, FrameRewards
from lerobot_topreward.storage.rewriting import DESCRIBED
from lerobot_topreward.storage.sidecar import LABEL_AGAIN, SIDECAR_NAME, dataset_of

_FIELDS = frozenset(COLUMNS.values())
_FOREIGN_COLUMNS = ("index", "episode_index", "frame_index", "progress_sparse")


def has_columns(source: Source) -> bool:
    """Whether the dataset has our columns, by its metadata."""
    return any(name in source.meta.features for name in COLUMNS)


def read_description(source: Source) -> Mapping[str, Any]:
    """Read how the columns were made; nothing if they were not written by us."""
    info = source.meta.features.get(DESCRIBED, {}).get("info")
    return info if isinstance(info, Mapping) else {}


def read_label_columns(source: Source, *, needed: Sequence[str]) -> FrameRewards:
    """Read the columns ``topreward.*`` that are there; `needed` must be.

    Raises:
        UserError: a needed column is not there, or a column is not readable or not finite.
    """
    present = [name for name in COLUMNS if name in source.meta.features]
    if lacking := [name for name in needed if name not in present]:
        raise UserError(
            f"{source.root} lacks the column {', '.join(lacking)}: it was removed, or an earlier "
            f"version labeled the dataset; {LABEL_AGAIN}"
        )
    rows = read_columns(source, present)
    try:
        found = {
            COLUMNS[name]: rows[name].to_numpy().astype(FEATURES[name]["dtype"]) for name in present
        }
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(f"{source.root / 'data'} cannot be read: {error}") from error
    for values in found.values():
        bad = np.flatnonzero(found["labelled"] & ~np.isfinite(values))
        if len(bad):
            raise UserError(
                f"the columns topreward.* of {source.root} must be finite; "
                f"{name_frame(source.frames, bad[0])} is not, nor are {len(bad) - 1} others; "
                f"{LABEL_AGAIN}"
            )
    return replace(no_labels(source.frames), **found, absent=_FIELDS.difference(found))


def read_foreign_sidecar(path: Path, frames: FrameTable) -> FrameRewards:
    """Read a sidecar of LeRobot's own TOPReward or SARM: progress alone, NaN where there is none.

    Raises:
        UserError: it cannot be read, lacks a column, or is not of this dataset's frames.
    """
    try:
        file = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"`weighting.sidecar={path}` cannot be read: {error}") from None
    lacking = [name for name in _FOREIGN_COLUMNS if name not in file.column_names]
    if lacking:
        raise UserError(
            f"`weighting.sidecar={path}` must have the columns {', '.join(_FOREIGN_COLUMNS)}; it "
            f"lacks {', '.join(lacking)}"
        )
    index, episode, frame, values = (
        file[name].to_numpy(zero_copy_only=False) for name in _FOREIGN_COLUMNS
    )
    _check_frames(path, frames, index, episode, frame)
    progress = np.full(len(frames.index), np.nan, dtype=np.float32)
    progress[index] = values
    labelled = np.isfinite(progress)
    return replace(
        no_labels(frames),
        labelled=labelled,
        progress=np.where(labelled, progress, np.float32(0)),
        absent=_FIELDS - {"labelled", "progress"},
    )


def lay_out(path: Path, labels: FrameRewards, frames: FrameTable) -> FrameRewards:
    """Lay a sidecar's labels out over all frames; those that it leaves out are not labeled.

    Raises:
        UserError: its rows are not frames of the dataset, or are not finite.
    """
    _check_frames(path, frames, labels.index, labels.episode_index, labels.frame_index)
    whole = no_labels(frames)
    for name in COLUMNS.values():
        values = getattr(labels, name)
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {name} must be finite; {LABEL_AGAIN}")
        getattr(whole, name)[labels.index] = values  # an index is a row, see `read_frames`
    return replace(whole, absent=labels.absent)


def no_labels(frames: FrameTable) -> FrameRewards:
    """Labels of a dataset that has none."""
    rewards = FrameRewards.zeros(frames.index, frames.episode_index, frames.frame_index)
    return replace(rewards, absent=_FIELDS)


def _check_frames(
    path: Path,
    frames: FrameTable,
    index: Int64[np.ndarray, " rows"],
    episode_index: Int64[np.ndarray, " rows"],
    frame_index: Int64[np.ndarray, " rows"],
) -> None:
    """Refuse rows of a sidecar that are not frames of the dataset, or are there twice."""
    inside = len(index) > 0 and index.min() >= 0 and index.max() < len(frames.index)
    if inside and len(np.unique(index)) == len(index):
        differs = (frames.episode_index[index] != episode_index) | (
            frames.frame_index[index] != frame_index
        )
        if not differs.any():
            return
        row = int(np.argmax(differs))
        what = (
            f"its index {index[row]} is frame {frame_index[row]} of episode {episode_index[row]}, "
            f"in the dataset {name_frame(frames, index[row])}"
        )
    elif inside:
        what = "it names frames twice"
    else:
        what = f"its {len(index)} rows are not among the dataset's {len(frames.index)} frames"
    raise UserError(f"{path} does not belong to this dataset: {what}")


def find_sidecar(source: Source, *, option: str = "repo_id") -> Path | None:
    """Locate the sidecar of a dataset, fetching it where the dataset comes from the Hub.

    Raises:
        UserError: the Hub refuses.
    """
    path = source.root / SIDECAR_NAME
    if path.is_file() or source.revision is None:
        return path if path.is_file() else None
    with translate_errors(repo_id=source.repo_id, revision=source.revision, option=option):
        try:
            return Path(
                hf_hub_download(
                    source.repo_id,
                    SIDECAR_NAME,
                    repo_type="dataset",
                    revision=source.revision,
                    cache_dir=source.root.parents[2],  # CACHE/datasets--OWNER--NAME/snapshots/X
                )
            )
        except EntryNotFoundError:
            return None  # the Hub has none, or cannot be reached


def name_frame(frames: FrameTable, row: int | np.integer) -> str:
    """Name a frame, for messages."""
    return f"frame {frames.frame_index[row]} of episode {frames.episode_index[row]}"


def label_command(source: Source) -> str:
    """Say how the dataset is labeled."""
    what = f"`root={source.root}`" if source.revision is None else f"`repo_id={source.repo_id}`"
    return f"Label it: lerobot-topreward label {what}"


def explain_edit(source: Source, sidecar: Path) -> str:
    """Say of a labeled dataset that it changed after labeling, and where recordings belong."""
    origin = dataset_of(sidecar) or "the dataset that it was made of"
    return (
        f"{source.root} was edited since it was labeled. To label what was recorded into it, "
        f"record that into {origin} and label {origin} again: scores already there are found"
    )


def explain_columns(source: Source, sidecar: Path) -> str:
    """Say that the columns are read in place of a sidecar that no longer fits."""
    return (
        f"{explain_edit(source, sidecar)}. Its columns topreward.* are read, not {SIDECAR_NAME}; "
        "they do not know of corrected tasks"
    )
