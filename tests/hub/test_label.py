"""The label command against a Hub: what it reads, what it sends, what it says when refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_state import Hub

pytestmark = pytest.mark.slow  # every one starts the command anew

RecordDataset = Callable[..., Path]
Label = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def label(hub: Hub, tiny_vlm: Path, tmp_path: Path) -> Label:
    def run(
        *options: str | Path, token: str | None = "hf_writer", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        given = ["--vlm", str(tiny_vlm)] if "--vlm" not in options else []
        return subprocess.run(
            [sys.executable, "-m", "lerobot_topreward", "label", *given, *map(str, options)],
            env=os.environ | hub.environment(tmp_path / "home", token=token) | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def fetched(hub: Hub) -> set[str]:
    """Names of the video and data files that were asked for."""
    paths = hub.asked("GET", "/resolve/")
    return {
        "/".join(path.split("/")[-3:]) for path in paths if "videos/" in path or "data/" in path
    }


def test_label_from_the_hub_and_back(
    hub: Hub, label: Label, record_dataset: RecordDataset, tiny_vlm: Path
) -> None:
    root = record_dataset(lengths=(9, 7), file_per_episode=True)
    hub.add("alice/cubes", root, tag="v3.0")
    tagged = hub.dataset("alice/cubes").resolve("v3.0")
    options = ("--repo-id", "alice/cubes", "--episodes", "1", "--push-to-hub")
    done = label(*options)
    assert done.returncode == 0, done.stderr
    assert "pushed" in done.stdout
    # One camera, one episode; the other files stay where they are.
    assert fetched(hub) == {
        "data/chunk-000/file-000.parquet",
        "observation.images.front/chunk-000/file-001.mp4",
    }
    repo = hub.dataset("alice/cubes")
    pushed = repo.resolve("topreward")
    assert "topreward_progress.parquet" in pushed.files
    assert set(tagged.files) <= set(pushed.files)
    # Where the checkpoint lay on this machine is not told to the world.
    for path in ("README.md", "topreward_progress.parquet"):
        assert str(tiny_vlm.parent).encode() not in pushed.files[path].data
    assert repo.resolve("v3.0") is tagged
    assert repo.resolve("main").files == tagged.files
    again = label(*options)
    assert again.returncode == 0, again.stderr
    changed = repo.resolve("topreward").files
    assert [path for path, blob in changed.items() if pushed.files.get(path) != blob] == []
    assert "unchanged" in again.stdout
    assert repo.resolve("topreward") is pushed


def test_a_private_dataset_without_a_token(
    hub: Hub, label: Label, record_dataset: RecordDataset
) -> None:
    hub.add("alice/secret", record_dataset(lengths=(5,)), tag="v3.0", private=True)
    refused = label("--repo-id", "alice/secret", token=None)
    assert refused.returncode == 2
    assert "hf auth login" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_vlm(hub: Hub, label: Label, record_dataset: RecordDataset) -> None:
    hub.add("alice/cubes", record_dataset(lengths=(5,)), tag="v3.0")
    refused = label("--repo-id", "alice/cubes", "--vlm", "alice/no-such-model")
    assert refused.returncode == 2
    assert "--vlm" in refused.stderr
    assert "alice/no-such-model" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_network(label: Label) -> None:
    refused = label("--repo-id", "alice/cubes", HF_ENDPOINT="http://127.0.0.1:9")
    assert refused.returncode == 2
    assert "--repo-id" in refused.stderr
    assert "Traceback" not in refused.stderr
