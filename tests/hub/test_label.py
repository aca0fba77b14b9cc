"""The label command against a Hub: what it reads, what it sends, what it says when refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_state import Hub

pytestmark = pytest.mark.slow  # the VLM's library takes seconds to import

RecordDataset = Callable[..., Path]
Client = Callable[..., Any]


def fetched(hub: Hub) -> set[str]:
    """Names of the video and data files that were asked for."""
    paths = hub.asked("GET", "/resolve/")
    return {
        "/".join(path.split("/")[-3:]) for path in paths if "videos/" in path or "data/" in path
    }


def test_label_from_the_hub_and_back(
    hub: Hub, client: Client, record_dataset: RecordDataset, tiny_vlm: Path
) -> None:
    root = record_dataset(lengths=(9, 7), file_per_episode=True)
    hub.add("alice/there-and-back", root, tag="v3.0")
    tagged = hub.dataset("alice/there-and-back").resolve("v3.0")
    label = ["label", "--repo-id", "alice/there-and-back", "--vlm", str(tiny_vlm)]
    label += ["--episodes", "1", "--push-to-hub"]
    done = client("command", arguments=label)
    assert done["code"] == 0, done["errors"]
    assert "pushed" in done["out"]
    # One camera, one episode; the other files stay where they are.
    assert fetched(hub) == {
        "data/chunk-000/file-000.parquet",
        "observation.images.front/chunk-000/file-001.mp4",
    }
    repo = hub.dataset("alice/there-and-back")
    pushed = repo.resolve("topreward")
    assert "topreward_progress.parquet" in pushed.files
    assert set(tagged.files) <= set(pushed.files)
    # Where the checkpoint lay on this machine is not told to the world.
    for path in ("README.md", "topreward_progress.parquet"):
        assert str(tiny_vlm.parent).encode() not in pushed.files[path].data
    assert repo.resolve("v3.0") is tagged
    assert repo.resolve("main").files == tagged.files
    again = client("command", arguments=label)
    assert again["code"] == 0, again["errors"]
    changed = repo.resolve("topreward").files
    assert [path for path, blob in changed.items() if pushed.files.get(path) != blob] == []
    assert "unchanged" in again["out"]
    assert repo.resolve("topreward") is pushed


def test_a_dry_run_fetches_no_video(
    hub: Hub, client: Client, record_dataset: RecordDataset, tiny_vlm: Path
) -> None:
    hub.add("alice/planned", record_dataset(lengths=(5, 7), cameras=("front",)), tag="v3.0")
    label = ["label", "--repo-id", "alice/planned", "--vlm", str(tiny_vlm), "--dry-run"]
    done = client("command", arguments=label)
    assert done["code"] == 0, done["errors"]
    assert "estimate             2 videos, " in done["out"]
    assert "missing" not in done["out"]
    assert hub.asked("GET", r"planned.*parquet")
    assert hub.asked("GET", r"planned.*mp4") == []


def test_a_private_dataset_without_a_token(
    hub: Hub, client: Client, record_dataset: RecordDataset, tiny_vlm: Path
) -> None:
    hub.add("alice/secret", record_dataset(lengths=(5,)), tag="v3.0", private=True)
    label = ["label", "--repo-id", "alice/secret", "--vlm", str(tiny_vlm)]
    refused = client("command", arguments=label, token=None)
    assert refused["code"] == 2
    assert "hf auth login" in refused["errors"]
    assert "Traceback" not in refused["errors"]


def test_an_unknown_vlm(hub: Hub, client: Client, record_dataset: RecordDataset) -> None:
    hub.add("alice/unseen", record_dataset(lengths=(5,)), tag="v3.0")
    label = ["label", "--repo-id", "alice/unseen", "--vlm", "alice/no-such-model"]
    refused = client("command", arguments=label)
    assert refused["code"] == 2
    assert "--vlm" in refused["errors"]
    assert "alice/no-such-model" in refused["errors"]
    assert "Traceback" not in refused["errors"]


def test_no_network(hub: Hub, tiny_vlm: Path, tmp_path: Path) -> None:
    label = ("label", "--repo-id", "alice/cubes", "--vlm", str(tiny_vlm))
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    refused = subprocess.run(
        [sys.executable, "-m", "lerobot_topreward", *label],
        env=os.environ | hub.environment(tmp_path / "home", token="hf_writer") | nowhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "--repo-id" in refused.stderr
    assert "Traceback" not in refused.stderr
