"""Checks that a folder's ``meta/`` is that of a readable LeRobot v3.0 dataset."""

import json
from pathlib import Path
from typing import Any

import datasets.exceptions
import packaging.version
import pyarrow as pa
from lerobot.datasets.dataset_metadata import CODEBASE_VERSION, LeRobotDatasetMetadata
from lerobot.datasets.utils import DEFAULT_TASKS_PATH, EPISODES_DIR, INFO_PATH
from lerobot.utils.constants import HF_LEROBOT_HUB_CACHE

from lerobot_topreward.errors import UserError


def load_metadata(root: Path, *, repo_id: str, option: str) -> LeRobotDatasetMetadata:
    """Load a dataset's metadata from a folder, never from the network.

    Args:
        root: The folder with ``meta/``.
        repo_id: What the dataset is called.
        option: The command-line option that named it; error messages begin with it.

    Raises:
        UserError: Not a dataset, not format v3, empty, incomplete or unreadable.
    """
    info = _read_info(root, option=option)
    _check_version(info, root=root, repo_id=repo_id, option=option)
    if not info.get("total_episodes") or not info.get("total_frames"):
        raise UserError(f"{option} must hold at least one recorded episode; it is empty")
    # LeRobot answers a missing file by asking the Hub, even about a folder: look first.
    needed = {EPISODES_DIR: any((root / EPISODES_DIR).glob("*/*.parquet"))}
    if info.get("total_tasks"):
        needed[DEFAULT_TASKS_PATH] = (root / DEFAULT_TASKS_PATH).is_file()
    for name, there in needed.items():
        if not there:
            raise UserError(f"{option} is incomplete: {root / name} is missing")
    try:
        meta = LeRobotDatasetMetadata(repo_id, root=root)
    except (pa.ArrowException, datasets.exceptions.DatasetsError, ValueError, TypeError) as error:
        raise UserError(f"{option}: {root / 'meta'} cannot be read: {error}") from error
    listed = 0 if meta.episodes is None else len(meta.episodes)
    if listed != meta.total_episodes:
        raise UserError(
            f"{option}: {INFO_PATH} promises {meta.total_episodes} episodes and {EPISODES_DIR} "
            f"lists {listed}; copy or download the dataset again"
        )
    return meta


def _read_info(root: Path, *, option: str) -> dict[str, Any]:
    path = root / INFO_PATH
    if not path.is_file():
        raise UserError(f"{option} must hold a LeRobot dataset; there is no {path}")
    try:
        info = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{option}: {path} is not valid JSON: {error}") from error
    if not isinstance(info, dict):
        raise UserError(f"{option}: {path} must hold a JSON object")
    return info


def _check_version(info: dict[str, Any], *, root: Path, repo_id: str, option: str) -> None:
    version = str(info.get("codebase_version"))
    rule = f"{option} must be a dataset of LeRobot's format v3; it is {version}"
    try:
        major = packaging.version.parse(version).major
    except packaging.version.InvalidVersion as error:
        raise UserError(f"{rule}, which {root / INFO_PATH} should not say") from error
    if major > packaging.version.parse(CODEBASE_VERSION).major:
        raise UserError(f"{rule}. Upgrade lerobot")
    if major < packaging.version.parse(CODEBASE_VERSION).major:
        # https://github.com/huggingface/lerobot/blob/main/src/lerobot/scripts/convert_dataset_v21_to_v30.py
        command = f"python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id}"
        if HF_LEROBOT_HUB_CACHE not in root.parents:
            command += f" --root={root} --push-to-hub=false"
        raise UserError(f"{rule}. Convert it: {command}")
