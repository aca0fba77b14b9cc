"""Labels where a dataset keeps them: our sidecar, or the columns, which LeRobot's tools keep."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from lerobot_topreward.data.dataset import FrameTable, Source, data_files
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import COLUMNS, DESCRIBED, FEATURES
from lerobot_topreward.storage.sidecar import LABEL_AGAIN, SIDECAR_NAME, Sidecar, dataset_of


def has_columns(source: Source) -> bool:
    """Whether the dataset says that it has our columns."""
    return any(name in source.meta.features for name in COLUMNS)


def described(source: Source) -> Mapping[str, Any]:
    """What a dataset says of how its columns were made; nothing if they were not written by us."""
    info = source.meta.features.get(DESCRIBED, {}).get("info")
    return info if isinstance(info, Mapping) else {}


def read_columns(
    source: Source, table: FrameTable, *, needed: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read the columns ``topreward.*`` that are there.

    Args:
        source: the dataset.
        table: all its frames.
        needed: columns without which the others are of no use.

    Returns:
        By the attributes of `FrameRewards`, in the order of the global index; 0 where not labelled.

    Raises:
        UserError: one that is needed is not there, or a column is not readable or not finite.
    """
    there = [name for name in COLUMNS if name in source.meta.features]
    if lacking := [name for name in needed if name not in there]:
        raise UserError(
            f"{source.root} lacks the column {', '.join(lacking)}: it was removed, or an earlier "
            f"version labelled the dataset; {LABEL_AGAIN}"
        )
    names = ["index", *there]
    try:
        rows = pa.concat_tables([pq.read_table(path, columns=names) for path in data_files(source)])
        order = np.argsort(rows["index"].to_numpy(), kind="stable")
        found = {
            COLUMNS[name]: rows[name].to_numpy().astype(FEATURES[name]["dtype"])[order]
            for name in there
        }
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{source.root / 'data'} cannot be read: {error}") from error
    for values in found.values():
        bad = np.flatnonzero(found.get("labelled", True) & ~np.isfinite(values))
        if len(bad):
            raise UserError(
                f"the columns topreward.* of {source.root} must be finite; {place(table, bad[0])} "
                f"is not, nor are {len(bad) - 1} others; {LABEL_AGAIN}"
            )
    return found


def spread(path: Path, sidecar: Sidecar, table: FrameTable) -> FrameRewards:
    """Lay a sidecar out over all frames; those that it leaves out are not labelled.

    Raises:
        UserError: its rows are not frames of the dataset, or are not finite.
    """
    check_frames(path, table, sidecar.index, sidecar.episode_index, sidecar.frame_index)
    columns = {"labelled": _dense(np.ones(len(sidecar.index), dtype=bool), sidecar, table)}
    for item in fields(FrameRewards):
        if item.name in ("index", "episode_index", "frame_index", "labelled"):
            continue
        columns[item.name] = _dense(getattr(sidecar, item.name), sidecar, table)
        if not np.isfinite(columns[item.name]).all():
            raise UserError(f"{path}: {item.name} must be finite; {LABEL_AGAIN}")
    return FrameRewards(table.index, table.episode_index, table.frame_index, **columns)


def _dense(values: np.ndarray, sidecar: Sidecar, table: FrameTable) -> np.ndarray:
    # The dataset numbers its frames 0, 1, 2, ... (checked by frame_table): an index is a row.
    dense = np.zeros(len(table.index), dtype=values.dtype)
    dense[sidecar.index] = values
    return dense


def edited_since(source: Source, sidecar: Path) -> str:
    """Say of a labelled dataset that it changed after labelling, and where recordings belong."""
    origin = dataset_of(sidecar) or "the dataset that it was made of"
    return (
        f"{source.root} was edited since it was labelled. To label what was recorded into it, "
        f"record that into {origin} and label {origin} again: scores already there are found"
    )


def columns_instead(source: Source, sidecar: Path) -> str:
    """Say that the columns are read in place of a sidecar that no longer fits."""
    return (
        f"{edited_since(source, sidecar)}. Its columns topreward.* are read, not {SIDECAR_NAME}; "
        "they do not know of corrected tasks"
    )


def place(table: FrameTable, row: int) -> str:
    """Name a frame."""
    return f"frame {table.frame_index[row]} of episode {table.episode_index[row]}"


def check_frames(
    path: Path,
    table: FrameTable,
    index: Int64[np.ndarray, " rows"],
    episode_index: Int64[np.ndarray, " rows"],
    frame_index: Int64[np.ndarray, " rows"],
) -> None:
    """Refuse rows of a sidecar that are not frames of the dataset, or are there twice.

    Raises:
        UserError: says which.
    """
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
