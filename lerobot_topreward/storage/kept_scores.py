"""All scores of a store in one file, so that a run with little left to do need not open every shard.

``<output>/topreward/<key>/scores.parquet`` says of each shard which file it was read from: the times,
the size and the inode of that file. The shards stay what counts: where one of these differs, the
shard is read, and without this file all of them are.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data import schedule
from lerobot_topreward.files.atomic import remove, replace_file, report_full_disk
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.storage import rows, store
from lerobot_topreward.storage.store import Shard, Store

_NAME = "scores.parquet"
_SCHEMA = pa.schema(
    [("prefix_length", pa.int64()), ("frame_index", pa.int64())]
    + [(name, pa.float32()) for name in ("log_prob_true", "log_prob_false")]
)
# What few scores have; a column stands for them only if all shards have it.
_MORE = pa.schema([*rows.CENSORED, *rows.SUCCESS])


def keep_scores(held: Store, shards: Iterable[Shard]) -> None:
    """Write what was read of these shards, unless it is there; this process holds the folder.

    Raises:
        UserError: the disk is full.
    """
    read = [(shard, *held.known[shard]) for shard in shards if shard in held.known]
    parts = [part for _, _, scores in read for part in scores]
    kinds = {tuple(getattr(part, name) is not None for name in _MORE.names) for part in parts}
    if len(kinds) != 1:
        return  # nothing, or some shards have columns that others lack
    more = [field for field, there in zip(_MORE, *kinds, strict=True) if there]
    path, schema = held.folder / _NAME, pa.schema([*_SCHEMA, *more])
    described = [
        {
            **shard.header(),
            "episode": shard.episode,
            "control": shard.control,
            "stamp": list(stamp),
            "rows": [len(part.prefix_length) for part in scores],
        }
        for shard, stamp, scores in read
    ]
    about = json.dumps({"code": _digest_code(), "shards": described})
    if _read_about(path) == about:
        return
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in schema.names}
    table = pa.table(columns, schema=schema.with_metadata({"topreward": about}))
    if path.is_dir():  # no run of ours put it there
        remove(path)
    with report_full_disk(held.folder), replace_file(path) as draft:
        pq.write_table(table, draft, write_page_checksum=True)


def recall_scores(held: Store) -> None:
    """Tell a store what an earlier run read; a damaged file is removed. This process holds the folder."""
    path = held.folder / _NAME
    text = _read_about(path)
    if text is None:
        return
    try:
        about = json.loads(text)
        if about["code"] == _digest_code():
            table = pq.read_table(path, page_checksum_verification=True)
            held.known.update(_read(table, about["shards"]))
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, RecursionError):
        remove(path)  # so that it is written again


def _read_about(path: Path) -> str | None:
    """Read what a file says of its rows; None where there is no such file."""
    if not path.is_file():  # reading a pipe would never end
        return None
    try:
        return (pq.read_schema(path).metadata or {})[b"topreward"].decode()
    except (pa.ArrowException, OSError, LookupError, ValueError):
        return None


def _read(
    table: pa.Table, shards: Sequence[Mapping[str, Any]]
) -> dict[Shard, tuple[tuple[int, ...], list[PrefixScores]]]:
    """Take a table apart; ValueError where it is not what was written."""
    more = table.schema.names[len(_SCHEMA) :]
    if not table.schema.equals(pa.schema([*_SCHEMA, *(_MORE.field(name) for name in more)])):
        raise ValueError("another table")
    if any(column.null_count for column in table.columns):
        raise ValueError("a null")
    columns = {name: table[name].to_numpy() for name in table.schema.names}
    for name in (*(n for n in _SCHEMA.names if n.startswith("log_prob")), *rows.SUCCESS.names):
        if name in columns and not np.all(np.isfinite(columns[name]) & (columns[name] <= 0)):
            raise ValueError("no log-probability")
    found, first = {}, 0
    for each in shards:
        cut = tuple(Segment(each["episode"], *segment) for segment in each["segments"])
        asked = tuple(each["asked"]) if "asked" in each else None
        shard = Shard(cut, each["control"], each["fingerprint"], each["video"], asked)
        scores = []
        for segment, count in zip(cut, each["rows"], strict=True):
            own = {name: values[first : first + count] for name, values in columns.items()}
            first += count
            scores.append(PrefixScores(segment, shard.control, **own))
        found[shard] = (tuple(each["stamp"]), scores)
    if first != len(table):
        raise ValueError("other rows")
    return found


@cache
def _digest_code() -> str:
    """Hash what says whether a shard is whole: another version may ask for other prefixes."""
    modules = [Path(str(module.__file__)) for module in (schedule, rows, store)]
    return hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()
