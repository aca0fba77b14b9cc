"""``meta/info.json`` of a LeRobot v3 dataset, checked without importing LeRobot.

Nothing in it is trusted: every shape is checked here, once, so that the rest of the package can rely
on it.
"""

import os
import re
import string
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import packaging.version
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.copying import check_file
from lerobot_topreward.files.jsonable import read_json_object

# As in lerobot.datasets.utils and lerobot.utils.constants, whose import takes seconds.
CODEBASE_VERSION = "v3.0"
INFO_PATH = "meta/info.json"
EPISODES_DIR = "meta/episodes"
TASKS_PATH = "meta/tasks.parquet"
STATS_PATH = "meta/stats.json"
DATA_DIR = "data"
# Where a dataset that does not say so has its files.
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

_MAX_FPS = 10_000
AGAIN = "copy or download the dataset again"
_PATH = "a relative path without '..' whose placeholders are {chunk_index}, {file_index}"

# An empty value, of whatever type, counts as none.
_Details = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: value or None)]
Count = Annotated[int, Field(ge=0, lt=2**63, title="a whole number >= 0")]


class _Feature(BaseModel):
    model_config = ConfigDict(strict=True)

    dtype: str
    shape: list[Count]
    names: Any = None
    info: _Details = None
    video_info: _Details = None


class Info(BaseModel):
    """What LeRobot takes on trust in ``meta/info.json``; titles are the rules in messages."""

    model_config = ConfigDict(strict=True)

    codebase_version: str = Field(title="a text")
    fps: float = Field(
        gt=0,
        le=_MAX_FPS,
        title=f"a number of frames per second, above 0 and at most {_MAX_FPS}",
    )
    total_episodes: Count = 0
    total_frames: Count = 0
    total_tasks: Count = 0
    features: dict[str, _Feature] = Field(title="an object of objects, each with dtype and shape")
    data_path: str = Field(_DATA_PATH, title=_PATH)
    video_path: str | None = Field(_VIDEO_PATH, title=f"{_PATH} and {{video_key}}")

    @field_validator("data_path", "video_path")
    @classmethod
    def check_template(cls, value: str | None, info: Any) -> str | None:  # a ValidationInfo
        """Refuse paths out of the dataset, and placeholders that read objects or fill memory."""
        if value is None:
            if any(item.dtype == "video" for item in info.data.get("features", {}).values()):
                raise ValueError
            return None
        known = {"chunk_index", "file_index"}
        if info.field_name == "video_path":
            known.add("video_key")
        for _, name, spec, conversion in string.Formatter().parse(value):
            # Attributes, conversions and wide paddings are not those of a path.
            plain = conversion is None and re.fullmatch(r"(0?\d{1,2}d?)?", spec or "")
            if name is not None and (name not in known or not plain):
                raise ValueError
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\0" in value:
            raise ValueError
        return value


def find_file(root: Path, name: str | Path) -> Path | None:
    """Locate a file of a dataset, which must lie within its folder once links are followed.

    A snapshot in the Hub's cache consists of links to ``blobs/`` beside it, which are allowed.

    Returns:
        The path, unresolved; None when nothing is there.

    Raises:
        UserError: It leads out of the folder or nowhere, or is no regular file.
    """
    path = root / name
    if not os.path.lexists(path):
        return None
    try:
        check_file(path, root.resolve())
    except UserError:
        if os.path.lexists(path):
            raise
        return None  # removed between the two looks
    return path


def first_line(error: BaseException) -> str:
    """The first line of another library's message, cut to a length that can be read."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}..."


def read_info(root: Path, *, repo_id: str, option: str, may_be_empty: bool = False) -> Info:
    """Read and check ``meta/info.json``.

    Args:
        root: the folder with ``meta/``.
        repo_id: what the dataset is called.
        option: what named it; error messages begin with it.
        may_be_empty: it is only being recorded, perhaps without an episode so far.

    Raises:
        UserError: there is none, it is not of format v3, or it breaks a rule.
    """
    if find_file(root, INFO_PATH) is None:
        raise UserError(f"{option} must hold a LeRobot dataset; there is no {root / INFO_PATH}")
    content = read_json_object(root / INFO_PATH, advice=AGAIN.capitalize())
    _check_version(content, root=root, repo_id=repo_id, option=option)
    try:
        info = Info.model_validate(content)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        got = f"{content[key]!r:.60}" if key in content else "nothing"
        raise UserError(
            f"{option}: {INFO_PATH}: {key} must be {Info.model_fields[key].title}; got {got}. "
            f"{AGAIN.capitalize()}"
        ) from None
    if not may_be_empty and not (info.total_episodes and info.total_frames):
        raise UserError(f"{option} must hold at least one recorded episode; it is empty")
    return info


def _check_version(info: dict[str, Any], *, root: Path, repo_id: str, option: str) -> None:
    version = str(info.get("codebase_version"))[:40]
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
        if "snapshots" not in root.parts:  # the Hub's cache
            command += f" --root={root} --push-to-hub=false"
        raise UserError(f"{rule}. Convert it: {command}")
