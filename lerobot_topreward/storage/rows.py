"""The rows of a shard: one per prefix, see `store`."""

from collections.abc import Sequence

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
_WITH_CENSORED = pa.schema([*SCHEMA, *CENSORED])
_LOG_PROBS = ("log_prob_true", "log_prob_false")
_VALUES = ("prefix_length", "frame_index", *_LOG_PROBS)  # of PrefixScores


def make_table(scores: Sequence[PrefixScores], *, fps: float) -> pa.Table:
    """Put the scores of an episode's segments into one table, in their order.

    Args:
        scores: of one control, at least one.
        fps: the dataset's clock, Hz.
    """
    censored = any(score.true_censored is not None for score in scores)
    return pa.concat_tables([_segment_table(score, fps=fps, censored=censored) for score in scores])


def _segment_table(scores: PrefixScores, *, fps: float, censored: bool) -> pa.Table:
    rows = len(scores.prefix_length)
    columns = {
        "episode_index": np.full(rows, scores.segment.episode_index),
        "segment_start": np.full(rows, scores.segment.start),
        "timestamp": scores.frame_index / fps,
        "control": [scores.control] * rows,
        **{name: getattr(scores, name) for name in _VALUES},
    }
    if not censored:
        return pa.table(columns, schema=SCHEMA)
    for name in CENSORED.names:
        flags = getattr(scores, name)
        columns[name] = np.zeros(rows, dtype=bool) if flags is None else flags
    return pa.table(columns, schema=_WITH_CENSORED)


def has_schema(table: pa.Table) -> bool:
    """Whether a table has the columns of a shard, whoever wrote it."""
    return table.schema.equals(SCHEMA) or table.schema.equals(_WITH_CENSORED)


def is_filled(table: pa.Table, due: pa.Table) -> bool:
    """Whether a table of a shard's schema is the one that is due but for its scores.

    These must be log-probabilities, and what says that one is only a bound must be there.
    """
    flags = [name for name in CENSORED.names if name in table.column_names]
    if table.drop_columns([*_LOG_PROBS, *flags]) != due.drop_columns([*_LOG_PROBS]):
        return False
    if any(table[name].null_count for name in flags):
        return False
    values = np.concatenate([table[name].to_numpy() for name in _LOG_PROBS])
    return bool(np.all(np.isfinite(values) & (values <= 0)))


def read_rows(table: pa.Table, segments: Sequence[Segment], *, control: str) -> list[PrefixScores]:
    """Read the scores of an episode's segments from a table that is filled."""
    flags = [name for name in CENSORED.names if name in table.column_names]
    columns = {name: table[name].to_numpy() for name in ("segment_start", *_VALUES, *flags)}
    found = []
    for segment in segments:
        rows = columns["segment_start"] == segment.start
        values = {name: columns[name][rows] for name in (*_VALUES, *flags)}
        found.append(PrefixScores(segment, control, **values))
    return found
