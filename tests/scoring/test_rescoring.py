"""Another pass over labelled episodes: the same VLM, where its scores go, and what stops it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from scored import label, reopen, score

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.scoring.control_scores import read_controls
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled

RecordDataset = Callable[..., Path]


def test_what_differs_from_the_labels_is_said(
    dataset: LabelledDataset, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"made with dtype=float32; `dtype=bfloat16` would not"):
        score(dataset, tiny_vlm, dtype="bfloat16")
    with pytest.raises(UserError, match=r"made with quantize=None; `quantize=4bit` would not"):
        score(dataset, tiny_vlm, quantize="4bit")
    with pytest.raises(UserError, match=r"folder named 'tiny'.*`vlm=FOLDER`"):
        score(dataset, None)
    with pytest.raises(UserError, match=r"made with vlm=tiny; `vlm=builtin:so101-demo` would not"):
        score(dataset, Path("builtin:so101-demo"))
    other = Path(shutil.copytree(tiny_vlm, tmp_path / "tiny"))
    settings = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps({**settings, "temperature": 0.5}))
    with pytest.raises(UserError, match=r"made with vlm_revision=.*another checkpoint of this"):
        score(dataset, other)
    gone = replace(dataset, key=replace(dataset.key, camera="observation.images.top"))
    with pytest.raises(UserError, match=r"camera=observation\.images\.top.*it has: .*front"):
        score(gone, tiny_vlm)
    asked_otherwise = replace(dataset, key=replace(dataset.key, prompt="?"))
    with pytest.raises(UserError, match="another version's prompt"):
        score(asked_otherwise, tiny_vlm)
    coarse = replace(dataset, key=replace(dataset.key, head="float32"))
    with pytest.raises(UserError, match="a version that read the answers in float32, not"):
        score(coarse, tiny_vlm)
    assert list(dataset.store.folder.glob("*.static.*")) == []
    monkeypatch.chdir(tiny_vlm.parent)
    assert score(dataset, None, controls=["static"], episodes=[3]).scored == 1


def test_an_unwritable_folder_sends_shards_elsewhere(
    labelled: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = reopen(labelled)

    def in_cache(dataset: LabelledDataset) -> LabelledDataset:
        # As a snapshot of the Hub is: it has a revision, and its files are not ours to add to.
        snapshot = replace(dataset.source, revision="0" * 40, repo_id="me/robot")
        return replace(dataset, source=snapshot)

    before = sorted(path.name for path in labelled.rglob("*"))
    found = score(
        in_cache(dataset), tiny_vlm, controls=["static"], episodes=[3], output=tmp_path / "mine"
    )
    assert len(found.controls["static"]) == 1
    assert sorted(path.name for path in labelled.rglob("*")) == before
    assert len(list((tmp_path / "mine").glob("topreward/*/episode_000003.static.parquet"))) == 1
    assert read_controls(in_cache(dataset)) == {}
    stored = read_controls(in_cache(dataset), output=tmp_path / "mine")
    assert len(stored["static"]) == 1


def test_an_episode_that_fails_is_reported(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=(12, 12), cameras=("front",), file_per_episode=True)
    dataset = reopen(label(root, tiny_vlm, tmp_path / "dataset"))
    os.truncate(sorted((tmp_path / "dataset" / "videos").rglob("*.mp4"))[1], 600)
    found = score(dataset, tiny_vlm, controls=["static", "reversed"])
    assert list(found.failed) == [1]
    assert found.scored == 1
    assert [len(scores) for scores in found.controls.values()] == [1, 1]


SCORE = """
import sys
from pathlib import Path
from lerobot_topreward.scoring.control_scores import score_controls
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.vlm.identity import VlmConfig
from rich.console import Console

dataset = open_labelled(repo_id=None, root=Path(sys.argv[1]), revision=None)
score_controls(dataset, controls=("static", "reversed"), episodes=dataset.episodes,
    vlm=VlmConfig(vlm=sys.argv[2]), swapped_instruction=None, output=None, console=Console())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_controls_that_were_stopped_go_on(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root = record_dataset(lengths=[20] * 5, cameras=("front",))
    slow = ("--engine", "per-prefix", "--sample-fps", "10")
    whole = label(root, tiny_vlm, tmp_path / "whole", *slow)
    stopped = Path(shutil.copytree(whole, tmp_path / "stopped"))
    process = subprocess.Popen(
        [sys.executable, "-c", SCORE, str(stopped), str(tiny_vlm)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(controls_of(stopped)) < 2:
        assert process.poll() is None, "the run ended too soon"
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
    kept = {path: path.stat().st_mtime_ns for path in controls_of(stopped)}
    assert 2 <= len(kept) < 10
    score(reopen(stopped), tiny_vlm, controls=["static", "reversed"])
    score(reopen(whole), tiny_vlm, controls=["static", "reversed"])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(stopped) == contents(whole)


def controls_of(root: Path) -> list[Path]:
    return sorted(root.glob("topreward/*/episode_??????.*.parquet"))


def contents(root: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in controls_of(root)}


def test_labels_elsewhere_hold_their_controls(
    recorded: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    labels = label(recorded, tiny_vlm, tmp_path / "labels", "--write", "sidecar")
    dataset = open_labelled(repo_id=None, root=recorded, revision=None, labels=labels)
    assert score(dataset, tiny_vlm, controls=["reversed"], episodes=[1]).scored == 1
    assert [path.parent.parent.parent for path in controls_of(labels)] == [labels]
    assert open_source(repo_id=None, root=recorded, revision=None).root == recorded
