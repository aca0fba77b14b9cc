"""Where a dataset lies: a folder, what LeRobot recorded on this machine, or the Hub."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from lerobot_topreward.data.info import CODEBASE_VERSION, INFO_PATH
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors

# As in lerobot.utils.constants, whose import takes seconds.
HF_LEROBOT_HOME = Path(
    os.getenv("HF_LEROBOT_HOME", Path(constants.HF_HOME) / "lerobot")
).expanduser()
HF_LEROBOT_HUB_CACHE = HF_LEROBOT_HOME / "hub"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dataset lies, and what it is called."""

    root: Path  # the folder with ``meta/``
    repo_id: str
    revision: str | None  # commit on the Hub; None for a local folder
    option: str  # what named it; error messages begin with it


def locate_dataset(*, repo_id: str | None, root: Path | None, revision: str | None) -> Place:
    """Find a dataset as LeRobot does, fetching no more than its ``meta/`` files.

    Args:
        repo_id: Name on the Hub, or of a dataset recorded under ``$HF_LEROBOT_HOME``.
        root: A local folder; ``repo_id`` is then only a name.
        revision: Branch, tag or commit on the Hub; LeRobot's version tag when None.

    Raises:
        UserError: Nothing to open, or the Hub refuses.
    """
    if root is not None:
        if revision is not None:
            raise UserError(
                f"`revision` chooses among versions on the Hub, but `root={root}` is read as it "
                "is; leave one of them out"
            )
        root = root.expanduser().absolute()
        return Place(root, repo_id or f"local/{root.name}", None, f"`root={root}`")
    if repo_id is None:
        raise UserError("which dataset? Give `repo_id=OWNER/NAME` or `root=FOLDER`")
    with translate_errors(repo_id=repo_id):
        validate_repo_id(repo_id)
    # LeRobot's own rule: what was recorded here comes before the Hub, old-style mirrors do not.
    recorded = HF_LEROBOT_HOME / repo_id
    mirror = recorded / ".cache" / "huggingface" / "download"
    if revision is None and (recorded / INFO_PATH).is_file() and not mirror.is_dir():
        return Place(recorded, repo_id, None, f"`repo_id={repo_id}`: {recorded}")
    with translate_errors(repo_id=repo_id, revision=revision):
        if revision is None:
            try:
                revision = _version_of(repo_id)
            except (OfflineModeIsEnabled, httpx.ConnectError, httpx.TimeoutException):
                # Unlike LeRobot, open what is already in the cache: a run is often resumed on a
                # machine without a network.
                revision = CODEBASE_VERSION
        snapshot = snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            cache_dir=HF_LEROBOT_HUB_CACHE,
            allow_patterns="meta/",
        )
    root = Path(snapshot)
    return Place(root, repo_id, commit_of(root, repo_id), f"`repo_id={repo_id}`")


def commit_of(root: Path, repo_id: str) -> str | None:
    """Name the commit of a snapshot in the Hub's cache; None for any other folder."""
    cached = f"datasets--{repo_id.replace('/', '--')}/snapshots"
    return root.name if root.parent.match(cached) else None


def fetch_files(root: Path, repo_id: str, revision: str | None, names: Collection[str]) -> None:
    """Bring files of a Hub dataset to where its ``meta/`` lies; nothing if it is local.

    Raises:
        UserError: The Hub refuses or is out of reach.
    """
    # A snapshot never changes: what is here needs no network, nor the Hub's permission.
    absent = [name for name in names if not (root / name).is_file()]
    if revision is None or not absent:
        return
    with translate_errors(repo_id=repo_id, revision=revision):
        snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            cache_dir=root.parents[2],  # CACHE/datasets--OWNER--NAME/snapshots/COMMIT
            allow_patterns=absent,
        )


def _version_of(repo_id: str) -> str:
    """Choose the version of a dataset's format to read, as LeRobot does."""
    refs = HfApi().list_repo_refs(repo_id, repo_type="dataset")
    if any(ref.name == CODEBASE_VERSION for ref in [*refs.branches, *refs.tags]):
        return CODEBASE_VERSION
    from lerobot.datasets.utils import get_safe_version  # takes seconds, and has its own errors

    return get_safe_version(repo_id, CODEBASE_VERSION)
