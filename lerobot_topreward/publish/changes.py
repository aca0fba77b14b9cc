"""What a dataset's folder holds that a branch on the Hub does not, and the other way round."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.sidecar import SIDECAR_NAME

if TYPE_CHECKING:
    from lerobot.datasets.utils import DatasetInfo

CARD = "README.md"
CURATION_FILE = "curation.json"  # what was left out of a curated dataset, and why
# LeRobot opens whatever matches these, so one left over from before would be read as well. Other
# files that somebody put beside them are theirs.
_OWNED = ("data/*/*.parquet", "meta/episodes/*/*.parquet")

Change = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


def list_files(api: HfApi, repo_id: str, revision: str) -> dict[str, RepoFile]:
    """List the files of a dataset on the Hub by path."""
    entries = api.list_repo_tree(repo_id, repo_type="dataset", revision=revision, recursive=True)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def find_changes(
    folder: Path,
    *,
    info: "DatasetInfo",
    card: str,
    remote: Mapping[str, RepoFile],
    origin: Mapping[str, RepoFile],
    start: str,
) -> list[Change]:
    """Compare the files that LeRobot needs, our own and the card with a branch, by content.

    Args:
        folder: The labeled dataset. Its raw scores and anything else in it are not pushed.
        info: Its ``meta/info.json``.
        card: The dataset card to be pushed.
        remote: The branch's files by path.
        origin: In the dataset's own repository, the files of the commit that was labeled: videos
            that were never fetched are copied from it on the Hub.
        start: That commit.

    Raises:
        UserError: A file that the dataset's episodes name is neither in the folder nor, if it is a
            video, in ``origin``: LeRobot could not read the dataset.
    """
    named = sorted(set(_named_files(folder, info=info)))
    absent = [path for path in named if not (folder / path).is_file()]
    lost = [path for path in absent if not path.startswith("videos/") or path not in origin]
    if lost:
        raise UserError(
            f"{folder} must be a complete dataset to be pushed; {len(lost)} of its files are "
            f"missing, the first is {lost[0]}. Fetch or restore the whole dataset and label again"
        )
    local: dict[str, Path | bytes] = {}
    for part in ("data", "meta", "videos"):
        for path in sorted((folder / part).rglob("*")):
            names = path.relative_to(folder).parts
            if path.is_file() and not any(name.startswith(".") for name in names):
                local["/".join(names)] = path
    local |= {n: folder / n for n in (SIDECAR_NAME, CURATION_FILE) if (folder / n).is_file()}
    local[CARD] = card.encode()
    # create_commit would leave unchanged files out as well, but only after it has asked for their
    # upload and, with Xet, cut every unchanged video into chunks.
    added = (CommitOperationAdd(path, content) for path, content in local.items())
    return [
        *(change for change in added if _differs(change, remote.get(change.path_in_repo))),
        *(
            CommitOperationCopy(src_path_in_repo=path, path_in_repo=path, src_revision=start)
            for path in absent
            if path not in remote or remote[path].blob_id != origin[path].blob_id
        ),
        *(
            CommitOperationDelete(path_in_repo=path)
            for path in sorted(remote.keys() - local.keys())
            if any(fnmatchcase(path, pattern) for pattern in _OWNED)
        ),
    ]


def _differs(added: CommitOperationAdd, held: RepoFile | None) -> bool:
    if held is None or held.size != added.upload_info.size:
        return True
    if held.lfs is not None:
        return held.lfs.sha256 != added.upload_info.sha256.hex()
    with added.as_file() as stream:
        return held.blob_id != git_hash(stream.read())


def _named_files(folder: Path, *, info: "DatasetInfo") -> Iterator[str]:
    """The files that ``meta/episodes`` names, one or more times each."""
    videos = [key for key, feature in info.features.items() if feature["dtype"] == "video"]
    kinds = {"data": info.data_path} | {f"videos/{key}": info.video_path for key in videos}
    columns = [f"{kind}/{which}_index" for kind in kinds for which in ("chunk", "file")]
    for path in sorted((folder / "meta" / "episodes").rglob("*.parquet")):
        table = pq.read_table(path, columns=columns)
        for kind, pattern in kinds.items():
            assert pattern is not None
            pairs = (table[f"{kind}/{which}_index"].to_pylist() for which in ("chunk", "file"))
            for chunk, file in zip(*pairs, strict=True):
                key = kind.removeprefix("videos/")
                yield pattern.format(video_key=key, chunk_index=chunk, file_index=file)
