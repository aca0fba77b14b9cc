"""Evaluating labels that lie on a Hub: nothing but what is needed is fetched."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_state import Hub

RecordDataset = Callable[..., Path]


@pytest.mark.slow
def test_labels_of_the_hub_are_evaluated_without_their_store(
    hub: Hub, record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    def run(home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lerobot_topreward", *arguments],
            env=os.environ | hub.environment(tmp_path / home, token="hf_writer"),
            capture_output=True,
            text=True,
            check=False,
        )

    root = record_dataset(lengths=(9, 17), file_per_episode=True)
    hub.add("alice/cubes", root, tag="v3.0")
    pushed = run("hers", "label", "--repo-id=alice/cubes", "--vlm", str(tiny_vlm), "--push-to-hub")
    assert pushed.returncode == 0, pushed.stderr
    here = run("hers", "evaluate", "--repo-id", "alice/cubes", "--json")
    assert here.returncode == 0, here.stderr

    read = ("evaluate", "--repo-id", "alice/cubes", "--revision", "topreward", "--json")
    hub.requests.clear()
    there = run("his", *read)
    assert there.returncode == 0, there.stderr
    assert not [path for path in hub.asked("GET", "/resolve/") if "videos/" in path]
    ours, theirs = json.loads(here.stdout), json.loads(there.stdout)
    assert theirs["episodes"] == ours["episodes"]

    store = tmp_path / "controls"
    controls = ("--controls", "static", "--vlm", str(tiny_vlm), "--output", str(store))
    scored = run("his", *read, *controls)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["controls"][0]["episodes"] == 2
    assert len(list(store.glob("topreward/*/*.static.parquet"))) == 2
