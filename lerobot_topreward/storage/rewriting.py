"""The files of a dataset in which columns, statistics and features are replaced, made anew."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.info import INFO_PATH, STATS_PATH
from lerobot_topreward.records import (
    COLUMNS,
    FEATURES,
    NEXT_FEATURES,
    FrameRewards,
    NextRewards,
    is_own_feature,
)

DESCRIBED = "topreward.log_prob"  # the feature whose info says how all of them were made
# Nothing that differs between datasets: LeRobot merges only those whose features are equal.
_DESCRIPTION = ("scoring", "normalize", "scale", "debias", "contrast", "horizon_frames")

PARQUET_OPTIONS: dict[str, Any] = {"compression": "snappy", "use_dictionary": True}  # LeRobot's

Stats = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Columns:
    """What is written of every frame."""

    rewards: FrameRewards
    features: Mapping[str, dict[str, Any]]
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, rewards: FrameRewards, next_rewards: NextRewards | None) -> "Columns":
        """Take the labels, and what is made of them where it is asked for."""
        features = dict(FEATURES)
        values = {name: getattr(rewards, source) for name, source in COLUMNS.items()}
        if next_rewards is not None:
            features |= NEXT_FEATURES
            values |= dict(
                zip(NEXT_FEATURES, (next_rewards.reward, next_rewards.success), strict=True)
            )
        return cls(rewards, features, values)


def stage_rewritten(
    source_root: Path,
    staging: Path,
    columns: Columns,
    provenance: Mapping[str, Any],
    *,
    data: Sequence[Path],
    episodes: Sequence[Path],
) -> None:
    """Write changed copies of data/, meta/episodes, the statistics and the description.

    Args:
        source_root: the dataset's folder.
        staging: where the copies go.
        columns: of every frame of the dataset.
        provenance: how the labels were made.
        data: files of ``data/``, relative to the dataset.
        episodes: those of ``meta/episodes``.

    Raises:
        ValueError: the columns are not those of the dataset's frames.
    """
    # They take seconds to import.
    from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
    from lerobot.datasets.io_utils import load_json, write_json
    from lerobot.datasets.utils import serialize_dict

    rewards, features = columns.rewards, columns.features
    info = load_json(source_root / INFO_PATH)
    stale = {name for name in NEXT_FEATURES if is_own_feature(info["features"].get(name))}
    gone = [*{**features, **dict.fromkeys(stale)}]
    frames = sum(pq.read_metadata(source_root / path).num_rows for path in data)
    if frames != len(rewards.index):
        raise ValueError(f"{len(rewards.index)} rewards for a dataset of {frames} frames")
    for path in data:
        _rewrite(
            source_root / path, staging / path, lambda table: _add_rewards(table, columns, gone)
        )

    order = np.argsort(rewards.episode_index, kind="stable")
    indices, starts = np.unique(rewards.episode_index[order], return_index=True)
    stats: dict[int, Stats] = {}
    for episode, rows in zip(indices, np.split(order, starts[1:]), strict=True):
        values: Any = {name: values[rows] for name, values in columns.values.items()}
        stats[int(episode)] = compute_episode_stats(values, dict(features))
    for path in episodes:
        _rewrite(source_root / path, staging / path, lambda table: _add_stats(table, stats, gone))

    all_stats = load_json(source_root / STATS_PATH) if (source_root / STATS_PATH).exists() else {}
    ours: dict[str, Any] = aggregate_stats(list(stats.values()))
    # It goes through a set: in our order, equal labels make equal files.
    all_stats = {name: values for name, values in all_stats.items() if name not in stale}
    all_stats.update(serialize_dict({name: ours[name] for name in features}))
    write_json(all_stats, staging / STATS_PATH)
    described = {name: provenance[name] for name in _DESCRIPTION if name in provenance}
    info["features"] = {n: item for n, item in info["features"].items() if n not in stale}
    info["features"] |= features
    if described:
        info["features"][DESCRIBED] = {**FEATURES[DESCRIBED], "info": described}
    write_json(info, staging / INFO_PATH)


def _rewrite(source: Path, target: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a changed copy of a parquet file, row group by row group."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetFile(source) as file:
        schema = change(file.schema_arrow.empty_table()).schema
        with pq.ParquetWriter(target, schema, **PARQUET_OPTIONS) as writer:
            for group in range(file.num_row_groups):
                writer.write_table(change(file.read_row_group(group)))


def _add_rewards(table: pa.Table, columns: Columns, gone: Sequence[str]) -> pa.Table:
    rewards, features = columns.rewards, columns.features
    index = table["index"].to_numpy()
    rows = np.minimum(np.searchsorted(rewards.index, index), len(rewards.index) - 1)
    for name in ("index", "episode_index", "frame_index"):
        if not np.array_equal(table[name].to_numpy(), getattr(rewards, name)[rows]):
            raise ValueError(f"the rewards are not those of the dataset's frames: {name} differs")
    table = table.drop_columns([name for name in gone if name in table.column_names])
    for name, values in columns.values.items():
        table = table.append_column(name, pa.array(values[rows]))
    metadata = dict(table.schema.metadata or {})
    if b"huggingface" in metadata:
        # What `datasets` takes the types from; a column it does not list is one too many.
        described = json.loads(metadata[b"huggingface"])
        named = described["info"]["features"]
        named = {name: item for name, item in named.items() if name not in gone}
        named |= {name: {"dtype": f["dtype"], "_type": "Value"} for name, f in features.items()}
        described["info"]["features"] = named
        metadata[b"huggingface"] = json.dumps(described).encode()
    return table.replace_schema_metadata(metadata)


def _add_stats(table: pa.Table, stats: Mapping[int, Stats], gone: Sequence[str]) -> pa.Table:
    ours = tuple(f"stats/{name}/" for name in gone)
    table = table.drop_columns([name for name in table.column_names if name.startswith(ours)])
    episodes = table["episode_index"].to_pylist()
    example = next(iter(stats.values()))
    for name in example:
        for key in example[name]:
            kind = pa.list_(pa.int64() if key == "count" else pa.float64())
            # An episode without frames is listed and has no statistics.
            values = [stats[e][name][key].tolist() if e in stats else None for e in episodes]
            table = table.append_column(f"stats/{name}/{key}", pa.array(values, kind))
    return table
