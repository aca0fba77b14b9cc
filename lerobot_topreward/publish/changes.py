"""What a dataset's folder holds that a branch on the Hub does not, and the other way round."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow.parquet as pq
from huggingface_hub.hf_api import RepoFile
from lerobot.datasets.utils import DatasetInfo

from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.sidecar import SIDECAR_NAME

CARD = "README.md"
CURATION_FILE = "curation.json"  # what was left out of a curated dataset, and why
# LeRobot opens whatever matches these, so one left over from before would be read as well. Other
# files that somebody put beside them are theirs.
_OWNED = ("data/*/*.parquet", "meta/episodes/*/*.parquet")


@dataclass(frozen=True, slots=True)
class Changes:
    """What one commit has to do."""

    added: Mapping[str, Path | bytes]  # path in the repository -> new content
    copied: tuple[str, ...]  # from the commit that was labelled, within the Hub
    deleted: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.added or self.copied or self.deleted)


def find_changes(
    folder: Path,
    *,
    info: DatasetInfo,
    card: str,
    remote: Mapping[str, RepoFile],
    origin: Mapping[str, RepoFile],
) -> Changes:
    """Compare the files that LeRobot needs, our own and the card with a branch, by content.

    Args:
        folder: The labelled dataset. The raw scores and anything else in it stay where they are.
        info: Its ``meta/info.json``.
        card: The dataset card as it shall be.
        remote: The branch's files by path.
        origin: In the dataset's own repository, the files of the commit that was labelled: videos
            that were never fetched need not be.

    Raises:
        UserError: A file that the dataset's episodes name is neither in the folder nor, if it is a
            video, in ``origin``: LeRobot could not read the dataset.
    """
    absent = sorted(
        path for path in set(_named_files(folder, info=info)) if not (folder / path).is_file()
    )
    lost = [path for path in absent if not path.startswith("videos/") or path not in origin]
    if lost:
        raise UserError(
            f"{folder} must be a complete dataset to be pushed; {len(lost)} of its files are "
            f"missing, the first is {lost[0]}. Fetch or restore the whole dataset and label again"
        )
    local: dict[str, Path | bytes] = {**_files(folder), CARD: card.encode()}
    return Changes(
        added={path: content for path, content in local.items() if _differs(content, remote, path)},
        copied=tuple(
            path
            for path in absent
            if path not in remote or remote[path].blob_id != origin[path].blob_id
        ),
        deleted=tuple(
            path
            for path in sorted(remote.keys() - local.keys())
            if any(fnmatchcase(path, pattern) for pattern in _OWNED)
        ),
    )


def _files(folder: Path) -> dict[str, Path]:
    found = {
        path.relative_to(folder).as_posix(): path
        for part in ("data", "meta", "videos")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    }
    ours = (SIDECAR_NAME, CURATION_FILE)
    return found | {name: folder / name for name in ours if (folder / name).is_file()}


def _named_files(folder: Path, *, info: DatasetInfo) -> Iterator[str]:
    videos = [key for key, feature in info.features.items() if feature["dtype"] == "video"]
    for path in sorted((folder / "meta" / "episodes").rglob("*.parquet")):
        columns = [
            f"{part}/{which}_index"
            for part in ("data", *(f"videos/{key}" for key in videos))
            for which in ("chunk", "file")
        ]
        table = pq.read_table(path, columns=columns).to_pydict()
        for chunk, file in zip(table["data/chunk_index"], table["data/file_index"], strict=True):
            yield info.data_path.format(chunk_index=chunk, file_index=file)
        for key in videos:
            assert info.video_path is not None
            places = (table[f"videos/{key}/{which}_index"] for which in ("chunk", "file"))
            for chunk, file in zip(*places, strict=True):
                yield info.video_path.format(video_key=key, chunk_index=chunk, file_index=file)


def _differs(content: Path | bytes, remote: Mapping[str, RepoFile], path: str) -> bool:
    held = remote.get(path)
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if held is None or held.size != size:
        return True
    if held.lfs is None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        return hashlib.sha1(b"blob %d\0" % size + data).hexdigest() != held.blob_id
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest() != held.lfs.sha256
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() != held.lfs.sha256
