"""The sidecar ``topreward_progress.parquet``: one row per labelled frame, sorted by ``index``.

=============================  =======  =======================================================
``index``                      int64    global index of the frame
``episode_index``              int64
``frame_index``                int64    within the episode
``progress_sparse``            float32  equal to ``progress``; the name that LeRobot's RA-BC reads
``log_prob_true``              float32  nats, <= 0
``log_prob_false``             float32  nats, <= 0
``progress``                   float32  0..1
``advantage``                  float32  -1..1
``scored``                     bool     the last frame of a scored prefix: its scores are raw
=============================  =======  =======================================================

The schema's metadata holds, under ``lerobot_topreward``, the JSON object ``{"format": 2,
"fingerprint": the dataset's, "provenance": {...}}``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import COLUMNS, FEATURES, FrameRewards

SIDECAR_NAME = "topreward_progress.parquet"
LABEL_AGAIN = "label again, which takes seconds where the raw scores are kept"
_METADATA_KEY = b"lerobot_topreward"
_FORMAT = 2
_TYPES = {"bool": pa.bool_(), "float32": pa.float32()}
_SCHEMA = pa.schema(
    [(name, pa.int64()) for name in ("index", "episode_index", "frame_index")]
    + [("progress_sparse", pa.float32())]
    + [
        (field, _TYPES[FEATURES[name]["dtype"]])
        for name, field in COLUMNS.items()
        if field != "labelled"
    ]
)
COLUMNS_BYTES = sum(np.dtype(feature["dtype"]).itemsize for feature in FEATURES.values())
ROW_BYTES = 27 + COLUMNS_BYTES  # of a frame, before compression


def write_sidecar(
    path: Path, rewards: FrameRewards, *, fingerprint: str, provenance: Mapping[str, Any]
) -> None:
    """Write the labeled frames, to a draft that takes its place later.

    Args:
        path: the file; its folder exists.
        rewards: all frames of the dataset.
        fingerprint: the dataset's.
        provenance: how the rewards were made, as JSON can hold it.

    Raises:
        OSError: it cannot be written.
        ValueError: a value is NaN or infinite.
    """
    check_finite(rewards)
    labels = rewards.take(np.flatnonzero(rewards.labelled))
    columns = {
        name: getattr(labels, "progress" if name == "progress_sparse" else name)
        for name in _SCHEMA.names
    }
    header = {"format": _FORMAT, "fingerprint": fingerprint, "provenance": dict(provenance)}
    schema = _SCHEMA.with_metadata({_METADATA_KEY: json.dumps(header).encode()})
    pq.write_table(pa.table(columns, schema=schema), path)


def check_finite(rewards: FrameRewards) -> None:
    """Refuse rewards that would make statistics and losses undefined.

    Raises:
        ValueError: a value is NaN or infinite; says of which frame.
    """
    for name in COLUMNS.values():
        bad = np.flatnonzero(~np.isfinite(getattr(rewards, name)))
        if len(bad):
            raise ValueError(
                f"{name} must be finite on every frame; got {getattr(rewards, name)[bad[0]]} on "
                f"frame {rewards.frame_index[bad[0]]} of episode {rewards.episode_index[bad[0]]}"
                f"{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}"
            )


def read_sidecar(path: Path, *, fingerprint: str | None) -> tuple[FrameRewards, Mapping[str, Any]]:
    """Read the labeled frames, those alone, and the provenance.

    Args:
        path: the file.
        fingerprint: of the dataset that it must belong to; None does not check it.

    Raises:
        UserError: missing, not a sidecar of this format, or of another dataset.
    """
    header = _read_header(path)
    if fingerprint is not None and header["fingerprint"] != fingerprint:
        raise UserError(
            f"{path} must belong to this dataset (fingerprint {fingerprint[:12]}); it was made "
            f"for {header['fingerprint'][:12]}. The dataset has changed or is another one: label "
            "it again"
        )
    if header["format"] != _FORMAT:
        raise UserError(
            f"{path} has format {header['format']}, not {_FORMAT}; {LABEL_AGAIN}, or use the "
            "version that wrote it"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())  # pyarrow's has several lines
        raise UserError(f"{path} cannot be read: {message}; {LABEL_AGAIN}") from None
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        raise UserError(f"{path} does not have the columns of a sidecar; {LABEL_AGAIN}")
    arrays = {name: table[name].to_numpy() for name in _SCHEMA.names if name != "progress_sparse"}
    labelled = np.ones(len(table), dtype=bool)
    return FrameRewards(labelled=labelled, **arrays), header["provenance"]


def fingerprint_of(path: Path) -> str | None:
    """Read the fingerprint of the dataset that a sidecar belongs to; None if it is not one."""
    try:
        return _read_header(path)["fingerprint"]
    except UserError:
        return None


def dataset_of(path: Path) -> str | None:
    """Read the name of the dataset that a sidecar was made for; None if it does not say."""
    try:
        name = _read_header(path)["provenance"].get("dataset")
    except UserError:
        return None
    return name if isinstance(name, str) else None


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no sidecar {path}; label the dataset first")
    kinds = {"format": int, "fingerprint": str, "provenance": dict}
    try:
        header = json.loads((pq.read_schema(path).metadata or {})[_METADATA_KEY])
        complete = all(isinstance(header[name], kind) for name, kind in kinds.items())
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} was not written by lerobot-topreward; label again") from error
    if not complete:
        raise UserError(f"{path} does not say what it was made for; {LABEL_AGAIN}")
    return header
