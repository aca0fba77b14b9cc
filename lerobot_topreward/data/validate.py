"""Loads a folder's ``meta/``, once everything that LeRobot takes on trust is checked.

As LeRobot loads it, and refusing what LeRobot refuses, but without importing LeRobot.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.info import (
    AGAIN,
    EPISODES_DIR,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    find_file,
    first_line,
    read_info,
)
from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_json_object

# What LeRobot's DatasetInfo asks to be positive, beside fps.
_SIZES = ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb")


def load_metadata(root: Path, *, repo_id: str, option: str) -> Metadata:
    """Load a dataset's metadata from a folder, never from the network.

    Args:
        root: The folder with ``meta/``.
        repo_id: What the dataset is called.
        option: What named it; error messages begin with it.

    Raises:
        UserError: Not a dataset, not format v3, empty, incomplete or unreadable.
    """
    info = read_info(root, repo_id=repo_id, option=option)
    tables = [find_file(root, path) for path in sorted((root / EPISODES_DIR).glob("*/*.parquet"))]
    if not any(tables):
        raise UserError(f"{option} is incomplete: {root / EPISODES_DIR} is missing")
    if info.total_tasks and find_file(root, TASKS_PATH) is None:
        raise UserError(f"{option} is incomplete: {root / TASKS_PATH} is missing")
    stats = find_file(root, STATS_PATH)
    content = read_json_object(root / INFO_PATH, advice=AGAIN.capitalize())
    try:
        for name in _SIZES:
            if name in content and content[name] <= 0:
                raise ValueError(f"{name} must be positive, got {content[name]}")
        tasks = pq.read_table(root / TASKS_PATH) if info.total_tasks else None
        episodes = _read_episodes([path for path in tables if path is not None])
        if stats is not None:
            _check_statistics(json.loads(stats.read_bytes()))
    except (
        pa.ArrowException, OSError, ValueError, TypeError, LookupError, RecursionError
    ) as error:  # fmt: skip
        raise UserError(f"{option}: {root / 'meta'} cannot be read: {first_line(error)}") from error
    meta = Metadata(
        root=root,
        repo_id=repo_id,
        fps=content["fps"],
        features={
            name: {**feature, "shape": tuple(feature["shape"])}
            for name, feature in content["features"].items()
        },
        total_episodes=info.total_episodes,
        total_frames=info.total_frames,
        data_path=info.data_path,
        video_path=info.video_path,
        tasks={} if tasks is None else _list_tasks(tasks, option=option),
        episodes=episodes,
    )
    _check_episodes(meta, option=option)
    return meta


def _read_episodes(paths: list[Path]) -> pa.Table:
    """Read every file whole, as damaged statistics must be found, but keep no statistics."""
    parts: list[pa.Table] = []
    for path in paths:
        table = pq.read_table(path)
        table = table.drop_columns([n for n in table.column_names if n.startswith("stats/")])
        if parts:
            if {*table.column_names} != {*parts[0].column_names}:
                raise ValueError(f"{path.name} must have the columns of {paths[0].name}")
            table = table.select(parts[0].column_names).cast(parts[0].schema)
        parts.append(table)
    return pa.concat_tables(parts).combine_chunks()


def _check_statistics(found: Any) -> None:
    """Raises TypeError or ValueError where LeRobot could not make arrays of them."""
    if not isinstance(found, Mapping):
        raise TypeError(f"{STATS_PATH} must be a JSON object; it is {type(found).__name__}")
    for value in found.values():
        if isinstance(value, Mapping):
            _check_statistics(value)
        else:
            np.array(value)


def _list_tasks(table: pa.Table, *, option: str) -> dict[int, str]:
    """Give the text of every ``task_index``: the index of the pandas table that LeRobot writes.

    Raises:
        UserError: the numbers cannot be used.
    """
    indices = (table.schema.pandas_metadata or {}).get("index_columns", [])
    texts = [name for name in indices if isinstance(name, str) and name != "task_index"]
    numbers = table["task_index"] if "task_index" in table.column_names else None
    if (
        numbers is None
        or not pa.types.is_integer(numbers.type)
        or numbers.null_count
        or len(numbers.unique()) < len(numbers)
    ):
        raise UserError(
            f"{option}: {TASKS_PATH} must have a column task_index of whole numbers, "
            f"each once; {AGAIN}"
        )
    if len(texts) != 1 or texts[0] not in table.column_names:
        return {}  # pandas would count the rows instead
    pairs = zip(numbers.to_pylist(), table[texts[0]].to_pylist(), strict=True)
    return {number: text for number, text in pairs if isinstance(text, str)}


def _check_episodes(meta: Metadata, *, option: str) -> None:
    table, listed = meta.episodes, len(meta.episodes)
    if listed != meta.total_episodes:
        raise UserError(
            f"{option}: {INFO_PATH} promises {meta.total_episodes} episodes and {EPISODES_DIR} "
            f"lists {listed}; {AGAIN}"
        )
    places = ["data", *(f"videos/{key}" for key in meta.video_keys)]
    whole = ["episode_index", "dataset_from_index", "dataset_to_index"]
    whole += [f"{place}/{kind}_index" for place in places for kind in ("chunk", "file")]
    for name in (*whole, *(f"videos/{key}/from_timestamp" for key in meta.video_keys)):
        if name not in table.column_names:
            raise UserError(f"{option}: {EPISODES_DIR} must have a column {name}; {AGAIN}")
        kind = table[name].type
        if name in whole and (not pa.types.is_integer(kind) or table[name].null_count):
            raise UserError(
                f"{option}: column {name} of {EPISODES_DIR} must hold whole numbers; {AGAIN}"
            )
        # Of times, the cells are checked with their episode.
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise UserError(
                f"{option}: column {name} of {EPISODES_DIR} must hold seconds; it holds {kind}. "
                f"{AGAIN.capitalize()}"
            )
    if table["episode_index"].to_pylist() != list(range(listed)):
        raise UserError(
            f"{option}: {EPISODES_DIR} must list the episodes 0, 1, 2, ... in this order; {AGAIN}"
        )
