"""The weight that training gives each frame, in a file: `train` writes it, the report draws it.

One row per frame that is trained on, sorted by ``index`` (int64, global): its ``weight`` (float32,
>= 0, 1 on average). The schema's metadata holds, under ``lerobot_topreward_weights``, the JSON object
``{"format": 1, "fingerprint": the dataset's, "title": how frames are weighted, in words}``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import replace_file

_METADATA_KEY = b"lerobot_topreward_weights"
_FORMAT = 1
_AGAIN = "Write it again: lerobot-topreward train ... `dry_run`"
_SCHEMA = pa.schema([("index", pa.int64()), ("weight", pa.float32())])


@dataclass(frozen=True, slots=True)
class TrainingWeights:
    """What weight each frame gets in training."""

    index: Int64[np.ndarray, " frames"]  # global, ascending; gaps where frames are not trained on
    weight: Float32[np.ndarray, " frames"]  # >= 0, 1 on average
    title: str  # how frames are weighted, in words


def write_weights(path: Path, weights: TrainingWeights, *, fingerprint: str) -> None:
    """Write weights whole or not at all; `fingerprint` is the dataset's.

    Raises:
        OSError: it cannot be written.
    """
    header = {"format": _FORMAT, "fingerprint": fingerprint, "title": weights.title}
    schema = _SCHEMA.with_metadata({_METADATA_KEY: json.dumps(header).encode()})
    columns = {"index": weights.index, "weight": weights.weight}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as draft:
        pq.write_table(pa.table(columns, schema=schema), draft)


def read_weights(path: Path, *, fingerprint: str, frames: int) -> TrainingWeights:
    """Read weights, which must be of this dataset.

    Args:
        path: the file, which anybody may have written.
        fingerprint: the dataset's.
        frames: the dataset's.

    Raises:
        UserError: it cannot be read, belongs to another dataset, or holds what is no weight.
    """
    header = _read_header(path)
    if header["fingerprint"] != fingerprint:
        raise UserError(
            f"`weights={path}` must belong to this dataset (fingerprint {fingerprint[:12]}); it was "
            f"made for {header['fingerprint'][:12]}, another dataset or an earlier state of this "
            f"one. {_AGAIN}"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"`weights={path}` cannot be read: {message}. {_AGAIN}") from None
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        raise UserError(f"`weights={path}` must have the columns index and weight alone. {_AGAIN}")
    index, weight = table["index"].to_numpy(), table["weight"].to_numpy()
    # Compared, not subtracted: differences of a stranger's indices can overflow.
    ascending = (index[1:] > index[:-1]).all()
    if not len(index) or index[0] < 0 or index[-1] >= frames or not ascending:
        raise UserError(
            f"`weights={path}` must have a row per frame, in their order; its {len(index)} rows are "
            f"not among the dataset's {frames} frames. {_AGAIN}"
        )
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        raise UserError(
            f"`weights={path}` must hold weights >= 0 and finite; that of frame {index[bad[0]]} is "
            f"{weight[bad[0]]}. {_AGAIN}"
        )
    return TrainingWeights(index, weight, header["title"])


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"`weights={path}` must be a file; there is none. {_AGAIN}")
    kinds = {"format": int, "fingerprint": str, "title": str}
    try:
        header = json.loads((pq.read_schema(path).metadata or {})[_METADATA_KEY])
        complete = all(isinstance(header[name], kind) for name, kind in kinds.items())
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"`weights={path}` was not written by lerobot-topreward train. {_AGAIN}"
        ) from None
    if not complete or header["format"] != _FORMAT:
        raise UserError(f"`weights={path}` is not of format {_FORMAT}. {_AGAIN}")
    return header
