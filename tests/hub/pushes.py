"""Labels to push, and the fixtures of pushing them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_state import Hub, Repo
from provenance import provenance

from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns

Client = Callable[..., Any]
COLUMNS = {f"topreward.{name}" for name in ("log_prob", "progress", "advantage", "labelled")}
CHANGED = {
    "README.md",
    "data/chunk-000/file-000.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/info.json",
    "meta/stats.json",
    "topreward_progress.parquet",
}
LFS = sorted(path for path in CHANGED if path.endswith(".parquet"))
PROVENANCE = provenance(dataset="alice/cubes", revision=None, episodes_labelled=2, episodes_total=2)


def opened(root: Path) -> Source:
    return open_source(repo_id=None, root=root, revision=None)


def write_labels(
    source: Path,
    output: Path,
    *,
    log_prob: float = -1.0,
    fingerprint: str = "f" * 64,
    made: Mapping[str, Any] | None = None,
) -> Path:
    frames = pq.read_table(source / "data", columns=["index", "episode_index", "frame_index"])
    index, episode, frame = (column.to_numpy() for column in frames.columns)
    values = np.full(len(index), log_prob, dtype=np.float32)
    rewards = FrameRewards(
        index=index,
        episode_index=episode,
        frame_index=frame,
        labelled=np.ones(len(index), dtype=bool),
        log_prob_true=values,
        log_prob_false=values * 2,
        progress=np.linspace(0, 1, len(index), dtype=np.float32),
        advantage=np.zeros(len(index), dtype=np.float32),
        scored=np.ones(len(index), dtype=bool),
    )
    write_columns(source, rewards, output, fingerprint=fingerprint, provenance=made or {})
    return output


@pytest.fixture(scope="session")
def source(record_dataset: Callable[..., Path]) -> Path:
    return record_dataset(lengths=(6, 5), cameras=("front",))


@pytest.fixture(scope="session")
def labelled(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_labels(source, tmp_path_factory.mktemp("labelled") / "dataset")
    (folder / "topreward" / "key").mkdir(parents=True)
    (folder / "topreward" / "key" / "episode_000000.parquet").write_bytes(b"raw scores")
    return folder


@pytest.fixture(scope="session")
def labelled_by_us(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `labelled`, with the provenance that curate reads."""
    fingerprint = opened(source).fingerprints.dataset
    folder = tmp_path_factory.mktemp("by-us") / "dataset"
    return write_labels(source, folder, fingerprint=fingerprint, made=provenance())


@pytest.fixture
def push(client: Client, labelled: Path) -> Client:
    def ask(*, repo_id: str = "alice/cubes", folder: Path = labelled, **options: Any) -> Any:
        made = PROVENANCE | options.pop("provenance", {})
        options["facts"] = asdict(CardFacts(made, fps=10))
        return client("push", repo_id=repo_id, folder=str(folder), **options)

    return ask


def files_at(repo: Repo, revision: str) -> dict[str, bytes]:
    return {path: blob.data for path, blob in repo.resolve(revision).files.items()}


def changed_between(repo: Repo, before: str, after: str) -> set[str]:
    old, new = files_at(repo, before), files_at(repo, after)
    return {path for path in old | new if old.get(path) != new.get(path)}


def sent_blobs(hub: Hub) -> list[str]:
    return sorted(path.rsplit("/", 1)[1] for path in hub.asked("PUT"))


def hashes(folder: Path, *paths: str) -> list[str]:
    return sorted(hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths)


@pytest.fixture(scope="session")
def others(record_dataset: Callable[..., Path]) -> dict[str, Path]:
    """Datasets with as many episodes and frames as `source`, and its later self."""
    one_camera = {"lengths": (6, 5), "cameras": ("front",)}
    return {
        "recordings": record_dataset(**one_camera, seed=1),
        "features": record_dataset(**one_camera, state=7),
        "camera": record_dataset(lengths=(6, 5), cameras=("wrist",)),
        "tasks": record_dataset(**one_camera, tasks=("drop the cube",)),
        "grown": record_dataset(lengths=(6, 5, 4), cameras=("front",)),
    }
