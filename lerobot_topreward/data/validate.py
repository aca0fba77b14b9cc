"""Loads a folder's ``meta/`` with LeRobot, once everything that LeRobot takes on trust is checked."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.utils import STATS_PATH

from lerobot_topreward.data.info import (
    AGAIN,
    EPISODES_DIR,
    INFO_PATH,
    TASKS_PATH,
    find_file,
    first_line,
    read_info,
)
from lerobot_topreward.errors import UserError


def load_metadata(root: Path, *, repo_id: str, option: str) -> LeRobotDatasetMetadata:
    """Load a dataset's metadata from a folder, never from the network.

    Args:
        root: The folder with ``meta/``.
        repo_id: What the dataset is called.
        option: What named it; error messages begin with it.

    Raises:
        UserError: Not a dataset, not format v3, empty, incomplete or unreadable.
    """
    info = read_info(root, repo_id=repo_id, option=option)
    # LeRobot answers a missing file by asking the Hub, even about a folder: look first.
    tables = [find_file(root, path) for path in (root / EPISODES_DIR).glob("*/*.parquet")]
    if not any(tables):
        raise UserError(f"{option} is incomplete: {root / EPISODES_DIR} is missing")
    if info.total_tasks and find_file(root, TASKS_PATH) is None:
        raise UserError(f"{option} is incomplete: {root / TASKS_PATH} is missing")
    find_file(root, STATS_PATH)
    try:
        meta = LeRobotDatasetMetadata(repo_id, root=root)
    except Exception as error:  # whatever LeRobot, datasets and pandas raise at a damaged file
        cause = error.__cause__ or error  # `datasets` says only that something is wrong
        raise UserError(f"{option}: {root / 'meta'} cannot be read: {first_line(cause)}") from error
    _check_episodes(meta, option=option)
    if meta.tasks is not None:
        numbers = meta.tasks.get("task_index")
        if numbers is None or numbers.dtype.kind not in "iu" or not numbers.is_unique:
            raise UserError(
                f"{option}: {TASKS_PATH} must have a column task_index of whole numbers, "
                f"each once; {AGAIN}"
            )
    return meta


def _check_episodes(meta: LeRobotDatasetMetadata, *, option: str) -> None:
    listed = 0 if meta.episodes is None else len(meta.episodes)
    if listed != meta.total_episodes:
        raise UserError(
            f"{option}: {INFO_PATH} promises {meta.total_episodes} episodes and {EPISODES_DIR} "
            f"lists {listed}; {AGAIN}"
        )
    assert meta.episodes is not None
    table: Any = meta.episodes.with_format("arrow")[:]  # a pyarrow.Table
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
