"""The rows of a shard: one per prefix, see `store`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot_topreward.records import PrefixScores, Segment

SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("segment_start", pa.int64()),
        ("prefix_length", pa.int64()),
        ("frame_index", pa.int64()),
        ("timestamp", pa.float64()),
        ("log_prob_true", pa.float32()),
        ("log_prob_false", pa.float32()),
        ("control", pa.string()),
    ]
)
# Where a server gave only bounds, there are also these; a shard without them has no bounds.
CENSORED = pa.schema([("true_censored", pa.bool_()), ("false_censored", pa.bool_())])
# Where a reward model also said how likely success is.
SUCCESS = pa.schema([("log_prob_success", pa.float32())])
_SCHEMAS = [
    pa.schema([*SCHEMA, *censored, *success])
    for censored in ([], CENSORED)
    for success in ([], SUCCESS)
]
_LOG_PROBS = ("log_prob_true", "log_prob_false")
_VALUES = ("prefix_length", "frame_index", *_LOG_PROBS)  # of PrefixScores


def make_table(scores: Sequence[PrefixScores], *, fps: float) -> pa.Table:
    """Put the scores of an episode's segments into one table, in their order.

    Args:
        scores: of one control, at least one.
        fps: the dataset's clock, Hz.
    """
    censored = any(score.true_censored is not None for score in scores)
    success = all(score.log_prob_success is not None for score in scores)
    schema = pa.schema([*SCHEMA, *(CENSORED if censored else []), *(SUCCESS if success else [])])
    return pa.concat_tables([_segment_table(score, schema, fps=fps) for score in scores])


def _segment_table(scores: PrefixScores, schema: pa.Schema, *, fps: float) -> pa.Table:
    rows = len(scores.prefix_length)
    columns: dict[str, Any] = {
        "episode_index": np.full(rows, scores.segment.episode_index),
        "segment_start": np.full(rows, scores.segment.start),
        "timestamp": scores.frame_index / fps,
        "control": [scores.control] * rows,
    }
    for name in (*_VALUES, *CENSORED.names, *SUCCESS.names):
        if name in schema.names:
            values = getattr(scores, name)
            columns[name] = np.zeros(rows, dtype=bool) if values is None else values
    return pa.table(columns, schema=schema)


def has_schema(table: pa.Table) -> bool:
    """Whether a table has the columns of a shard, whoever wrote it."""
    return any(table.schema.equals(schema) for schema in _SCHEMAS)


def is_filled(table: pa.Table, due: pa.Table) -> bool:
    """Whether a table of a shard's schema is the one that is due but for its scores.

    These must be log-probabilities, and what says that one is only a bound must be there.
    """
    more = _optional(table)
    if table.drop_columns([*_LOG_PROBS, *more]) != due.drop_columns([*_LOG_PROBS]):
        return False
    if any(table[name].null_count for name in more):
        return False
    scores = [name for name in (*_LOG_PROBS, *SUCCESS.names) if name in table.column_names]
    values = np.concatenate([table[name].to_numpy() for name in scores])
    return bool(np.all(np.isfinite(values) & (values <= 0)))


def read_rows(table: pa.Table, segments: Sequence[Segment], *, control: str) -> list[PrefixScores]:
    """Read the scores of an episode's segments from a table that is filled."""
    names = (*_VALUES, *_optional(table))
    columns = {name: table[name].to_numpy() for name in ("segment_start", *names)}
    found = []
    for segment in segments:
        rows = columns["segment_start"] == segment.start
        found.append(
            PrefixScores(segment, control, **{name: columns[name][rows] for name in names})
        )
    return found


def _optional(table: pa.Table) -> list[str]:
    return [name for name in (*CENSORED.names, *SUCCESS.names) if name in table.column_names]
