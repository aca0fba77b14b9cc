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
=============================  =======  =======================================================

The schema's metadata holds, under ``lerobot_topreward``, the JSON object ``{"format": 1,
"fingerprint": the dataset's, "provenance": {...}}``.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.transaction import FileOps, remove, space_reported, sync

SIDECAR_NAME = "topreward_progress.parquet"
SIDECAR_ROW_BYTES = 44  # before compression
_METADATA_KEY = b"lerobot_topreward"
_FORMAT = 1
_SCHEMA = pa.schema(
    [(name, pa.int64()) for name in ("index", "episode_index", "frame_index")]
    + [
        (name, pa.float32())
        for name in (
            "progress_sparse",
            "log_prob_true",
            "log_prob_false",
            "progress",
            "advantage",
        )
    ]
)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The labelled frames of a dataset in the order of their index, and where they come from."""

    index: Int64[np.ndarray, " frames"]
    episode_index: Int64[np.ndarray, " frames"]
    frame_index: Int64[np.ndarray, " frames"]
    log_prob_true: Float32[np.ndarray, " frames"]  # nats, <= 0
    log_prob_false: Float32[np.ndarray, " frames"]  # nats, <= 0
    progress: Float32[np.ndarray, " frames"]  # 0..1
    advantage: Float32[np.ndarray, " frames"]  # -1..1
    fingerprint: str  # of the dataset
    provenance: Mapping[str, Any]


def write_sidecar(
    path: Path, rewards: FrameRewards, *, fingerprint: str, provenance: Mapping[str, Any]
) -> None:
    """Write the labelled frames, at once or not at all.

    Args:
        path: the file, replaced when it exists; its folder exists.
        rewards: all frames of the dataset.
        fingerprint: the dataset's.
        provenance: how the rewards were made; anything that JSON can hold.

    Raises:
        UserError: there is no room on the disk.
        ValueError: a value is NaN or infinite.
    """
    draft = path.with_name(f".{path.name}.tmp")
    with space_reported(path.parent, needed=SIDECAR_ROW_BYTES * len(rewards.index), ops=FileOps()):
        try:
            stage_sidecar(draft, rewards, fingerprint=fingerprint, provenance=provenance)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        sync(path.parent)


def stage_sidecar(
    path: Path, rewards: FrameRewards, *, fingerprint: str, provenance: Mapping[str, Any]
) -> None:
    """Write a sidecar where nobody reads it yet; see `write_sidecar`.

    Raises:
        OSError: it cannot be written.
        ValueError: a value is NaN or infinite.
    """
    check_finite(rewards)
    remove(path)
    rows = np.flatnonzero(rewards.labelled)
    rows = rows[np.argsort(rewards.index[rows], kind="stable")]
    columns = {name: getattr(rewards, _source(name))[rows] for name in _SCHEMA.names}
    header = {"format": _FORMAT, "fingerprint": fingerprint, "provenance": dict(provenance)}
    schema = _SCHEMA.with_metadata({_METADATA_KEY: json.dumps(header).encode()})
    pq.write_table(pa.table(columns, schema=schema), path)
    sync(path)


def _source(column: str) -> str:
    return "progress" if column == "progress_sparse" else column


def check_finite(rewards: FrameRewards) -> None:
    """Refuse rewards that would poison statistics and losses.

    Raises:
        ValueError: a value is NaN or infinite; says of which frame.
    """
    for name in ("log_prob_true", "log_prob_false", "progress", "advantage"):
        bad = np.flatnonzero(~np.isfinite(getattr(rewards, name)))
        if len(bad):
            raise ValueError(
                f"{name} must be finite on every frame; got {getattr(rewards, name)[bad[0]]} on "
                f"frame {rewards.frame_index[bad[0]]} of episode {rewards.episode_index[bad[0]]}"
                f"{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}"
            )


def read_sidecar(path: Path, *, fingerprint: str | None) -> Sidecar:
    """Read a sidecar, and refuse another dataset's.

    Args:
        path: the file.
        fingerprint: of the dataset that it must belong to; None to take it as it is.

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
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged; label again") from error
    arrays = {
        field.name: table[field.name].to_numpy()
        for field in fields(Sidecar)
        if field.name in _SCHEMA.names
    }
    return Sidecar(**arrays, fingerprint=header["fingerprint"], provenance=header["provenance"])


def fingerprint_of(path: Path) -> str | None:
    """Read the fingerprint of the dataset that a sidecar belongs to; None if it is not one."""
    try:
        return _read_header(path)["fingerprint"]
    except UserError:
        return None


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no sidecar {path}; label the dataset first")
    foreign = f"{path} was not written by lerobot-topreward; label again"
    try:
        schema = pq.read_schema(path)
        header = json.loads((schema.metadata or {})[_METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError, RecursionError) as error:
        raise UserError(foreign) from error
    if not isinstance(header, dict):
        raise UserError(foreign)
    if header.get("format") != _FORMAT or not schema.equals(_SCHEMA):
        raise UserError(
            f"{path} must have format {_FORMAT}; got {header.get('format')} with columns "
            f"{', '.join(schema.names)}. Label again with this version"
        )
    if not isinstance(header.get("fingerprint"), str) or not isinstance(
        header.get("provenance"), dict
    ):
        raise UserError(foreign)
    return header
