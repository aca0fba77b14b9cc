"""Evaluating labels that lie on a Hub: nothing but what is needed is fetched."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_state import Hub

pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]


def test_labels_of_the_hub_are_evaluated_without_their_store(
    hub: Hub,
    client: Callable[..., Any],
    record_dataset: RecordDataset,
    tiny_vlm: Path,
    tmp_path: Path,
) -> None:
    root = record_dataset(lengths=(9, 17), file_per_episode=True)
    hub.add("alice/evaluated", root, tag="v3.0")
    label = ["label", "--repo-id=alice/evaluated", "--vlm", str(tiny_vlm), "--push-to-hub"]
    pushed = client("command", arguments=label)
    assert pushed["code"] == 0, pushed["errors"]
    here = client("command", arguments=["evaluate", "--repo-id", "alice/evaluated", "--json"])
    assert here["code"] == 0, here["errors"]

    read = ("evaluate", "--repo-id", "alice/evaluated", "--revision", "topreward", "--json")
    hub.requests.clear()
    there = subprocess.run(
        [sys.executable, "-m", "lerobot_topreward", *read],
        env=os.environ | hub.environment(tmp_path / "home", token="hf_writer"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0, there.stderr
    assert not [path for path in hub.asked("GET", "/resolve/") if "videos/" in path]
    ours, theirs = json.loads(here["out"]), json.loads(there.stdout)
    assert theirs["episodes"] == ours["episodes"]

    store = tmp_path / "controls"
    controls = ("--controls", "static", "--vlm", str(tiny_vlm), "--output", str(store))
    scored = client("command", arguments=[*read, *controls])
    assert scored["code"] == 0, scored["errors"]
    assert json.loads(scored["out"])["controls"][0]["episodes"] == 2
    assert len(list(store.glob("topreward/*/*.static.parquet"))) == 2
