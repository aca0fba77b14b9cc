"""Curation by the recording, with labels and without any."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import change_rows, inspect, make_recordings, record_arm

from lerobot_topreward.cli import main
from lerobot_topreward.judging.rules import RulesConfig, find_drops


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["curate", *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="session")
def recorded_arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten episodes without labels: 2 stands still for half of its time, 5 has a gap in time."""
    recordings = make_recordings(10)
    held = recordings[2].values
    held[-80:] = held[-80] + np.random.default_rng(0).normal(0, 0.05, (80, 12))
    root = record_arm(tmp_path_factory.mktemp("arm") / "dataset", recordings)

    def leave_gap(timestamp: np.ndarray, episode: np.ndarray) -> None:
        timestamp[np.flatnonzero(episode == 5)[60:]] += 1

    change_rows(root, "timestamp", leave_gap)
    return root


def test_without_labels_it_says_what_it_cannot_see(
    recorded_arm: Path, hashes: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(recorded_arm)
    assert run("--root", recorded_arm) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "no labels: this looks at the recording alone and cannot see whether a task succeeded\n"
    )
    words = " ".join(printed.split())
    assert "2 episodes go" in words
    assert "longest idle run" in words
    assert "gap in time: 1 gaps, the longest 1.050 s" in words
    assert "8 of 10" in words
    assert hashes(recorded_arm) == before


def test_a_new_dataset_without_labels_is_one_for_lerobot(
    recorded_arm: Path, tmp_path: Path
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    listed, output = tmp_path / "kept.json", tmp_path / "good"
    assert run("--root", recorded_arm, "--output", output, "--episodes-file", listed) == 0
    assert json.loads(listed.read_text()) == [0, 1, 3, 4, 6, 7, 8, 9]
    record = json.loads((output / "curation.json").read_text())
    assert record["labels"] is None
    assert sorted(record["dropped"]) == ["2", "5"]
    made = LeRobotDataset("local/good", root=output)
    assert made.num_episodes == 8
    assert not [name for name in made.features if name.startswith("topreward")]
    assert run("--root", output) == 0
    assert run("--root", recorded_arm, "--output", output) == 0  # nothing to change


def test_broken_episodes_can_be_kept(
    recorded_arm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--root", recorded_arm, "--no-drop-broken", "--max-idle", "0.9") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "10 of 10" in words
    assert "nothing broken" not in words


def test_rules_by_themselves() -> None:
    recordings = make_recordings(10)
    recordings[3].values[40:] = recordings[3].values[40] + np.random.default_rng(0).normal(
        0, 0.05, recordings[3].values[40:].shape
    )
    recordings[6].values[:] += 3 * np.sin(np.arange(len(recordings[6].values)) * 2.0)[:, None]
    recordings[8].values[10, 3] = np.nan
    found = inspect(recordings)
    rules = RulesConfig(max_idle=0.25, max_jerk_z=3.5)
    drops = find_drops([], rules, found)
    assert sorted(drops["max_idle"]) == [3]
    assert "of the episode" in drops["max_idle"][3]
    assert sorted(drops["max_jerk_z"]) == [6]
    assert sorted(drops["drop_broken"]) == [8]
    assert drops["drop_broken"][8].startswith("not finite: ")
    assert find_drops([], RulesConfig(drop_broken=False, max_idle=1.0), found) == {"max_idle": {}}


def test_a_dataset_that_always_waits_is_not_emptied_by_default() -> None:
    recordings = make_recordings(10)
    rng = np.random.default_rng(0)
    for recording in recordings:
        recording.values[-70:] = recording.values[-70] + rng.normal(0, 0.05, (70, 12))
    found = inspect(recordings)
    rules = RulesConfig().with_default(found)
    assert rules.max_idle is not None
    assert rules.max_idle > 0.8
    assert find_drops([], RulesConfig(max_idle=rules.max_idle), found)["max_idle"] == {}


@pytest.mark.parametrize("option", ["--max-idle", "--max-jerk-z"])
def test_limits_out_of_range(
    recorded_arm: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--root", recorded_arm, option, "-0.5") == 2
    assert f"{option} must be" in capsys.readouterr().err
