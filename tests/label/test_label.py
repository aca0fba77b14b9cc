import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main
from lerobot_topreward.files.atomic import output_lock
from lerobot_topreward.rewards import advantage, interpolate, normalize_episode

RecordDataset = Callable[..., Path]


def run(*options: str | Path) -> int:
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    return int(stopped.value.code or 0)


def command(*options: str | Path) -> list[str]:
    return [sys.executable, "-m", "lerobot_topreward", "label", *map(str, options)]


def load(root: Path) -> Any:
    return LeRobotDataset("local/labelled", root=root, video_backend="pyav")


def shards(output: Path, control: str = "") -> list[Path]:
    return sorted(output.glob(f"topreward/*/episode_??????{control}.parquet"))


def contents(output: Path) -> dict[str, bytes]:
    """Everything that a run makes, without what tells the time or is locked."""
    files = (path for path in output.rglob("*") if path.is_file())
    skipped = ("run.json", "scores.parquet", ".lock", "commit.json")
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in files
        if path.name not in skipped
    }


@pytest.fixture(scope="module")
def dataset(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(31, 18, 25), tasks=("pick up the cube", "open the drawer"))


def test_label_makes_a_dataset_that_lerobot_loads(
    dataset: Path, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    output = tmp_path / "labelled"
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", output)
    assert run(*options, "--control", "static") == 0
    printed = capfd.readouterr().out
    assert "episodes labelled    3" in printed
    assert str(output) in printed
    # A VLM with random weights; with three episodes, that is a hint.
    assert "this reward: usable with care" in printed
    assert "only 3 episodes are labeled" in printed
    labelled = load(output)
    sidecar = pq.read_table(output / "topreward_progress.parquet").to_pydict()
    assert sidecar["index"] == list(range(31 + 18 + 25))
    assert sidecar["progress_sparse"] == sidecar["progress"]
    for episode, (start, length) in enumerate(((0, 31), (31, 18), (49, 25))):
        shard = pq.read_table(shards(output)[episode]).to_pydict()
        # 10 Hz seen at 2 Hz, and the final frame.
        seen = sorted({*range(0, length, 5), length - 1})
        assert shard["frame_index"] == seen
        assert shard["prefix_length"] == [i + 1 for i in seen]
        assert set(shard["control"]) == {"none"}
        progress = interpolate(
            np.array(shard["prefix_length"]),
            normalize_episode(np.array(shard["log_prob_true"])),
            length=length,
        )
        frames = [labelled[i] for i in range(start, start + length)]
        got = np.array([float(frame["topreward.progress"]) for frame in frames])
        np.testing.assert_allclose(got, progress, atol=1e-6)
        got = np.array([float(frame["topreward.advantage"]) for frame in frames])
        np.testing.assert_allclose(got, advantage(progress, horizon=10), atol=1e-6)
    static = pq.read_table(shards(output, ".static")[0]).to_pydict()
    assert set(static["control"]) == {"static"}
    assert len(static["log_prob_true"]) == len(pq.read_table(shards(output)[0]))
    record = json.loads(next(output.glob("topreward/*/run.json")).read_text())
    assert record["state"] == "complete"
    assert record["failed"] == {}
    assert record["scoring"]["camera"] == "observation.images.front"


def test_another_horizon_asks_no_vlm(
    dataset: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "labelled"
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", output)
    assert run(*options) == 0
    before = pq.read_table(output / "topreward_progress.parquet")

    def refuse(*_: object) -> None:
        raise AssertionError("the VLM was loaded")

    monkeypatch.setattr(lerobot_topreward.vlm.loading, "load_vlm", refuse)
    assert run(*options, "--horizon", "0.5", "--normalize", "task") == 0
    after = pq.read_table(output / "topreward_progress.parquet")
    assert after["log_prob_true"] == before["log_prob_true"]
    assert after["advantage"] != before["advantage"]


@pytest.mark.slow
def test_killed_runs_continue_and_end_the_same(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=[20] * 12, cameras=("front",))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--root", root, "--vlm", tiny_vlm, "--engine", "per-prefix", "--sample-fps", "10")
    assert run(*options, "--output", whole) == 0
    process = subprocess.Popen(command(*options, "--output", killed))
    wait_until(lambda: len(shards(killed)) >= 2, process)
    process.kill()
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in shards(killed)}
    assert 2 <= len(kept) < 12
    assert not (killed / "meta" / "info.json").exists()
    assert run(*options, "--output", killed) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(killed) == contents(whole)


@pytest.mark.slow
def test_ctrl_c_finishes_the_episode_and_says_how_to_go_on(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=[20] * 12, cameras=("front",))
    output = tmp_path / "labelled"
    options = ("--root", root, "--vlm", tiny_vlm, "--output", output)
    slow = ("--engine", "per-prefix", "--sample-fps", "10")
    process = subprocess.Popen(
        command(*options, *slow), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: len(shards(output)) >= 1, process)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in printed
    assert "Traceback" not in printed
    assert 1 <= len(shards(output)) < 12
    record = json.loads(next(output.glob("topreward/*/run.json")).read_text())
    assert record["state"] == "interrupted"


def wait_until(reached: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "the run ended too soon"
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.01)


def test_a_second_run_on_one_output_is_refused(
    dataset: Path, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    with output_lock(tmp_path / "labelled"):
        assert run("--root", dataset, "--vlm", tiny_vlm, "--output", tmp_path / "labelled") == 2
    assert "in use by another run" in capfd.readouterr().err


def test_a_damaged_video_fails_its_episode_alone(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root = record_dataset(lengths=(12, 12, 12, 12), cameras=("front",), file_per_episode=True)
    videos = sorted((root / "videos").rglob("*.mp4"))
    assert len(videos) == 4
    os.truncate(videos[1], 600)
    videos[2].unlink()
    output = tmp_path / "labelled"
    assert run("--root", root, "--vlm", tiny_vlm, "--output", output) == 1
    printed = capfd.readouterr().out
    assert "episode 1 failed:" in printed
    assert "episode 2 failed:" in printed
    assert videos[2].name in printed
    sidecar = pq.read_table(output / "topreward_progress.parquet").to_pydict()
    assert sorted(set(sidecar["episode_index"])) == [0, 3]
    record = json.loads(next(output.glob("topreward/*/run.json")).read_text())
    assert sorted(record["failed"]) == ["1", "2"]


def test_episodes_add_up_over_runs(dataset: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    output = tmp_path / "labelled"
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", output)
    assert run(*options, "--episodes", "0") == 0
    part = load(output)
    assert bool(part[0]["topreward.labelled"])
    assert not bool(part[31]["topreward.labelled"])
    assert run(*options, "--episodes", "1:") == 0
    whole = load(output)
    assert all(bool(whole[i]["topreward.labelled"]) for i in (0, 31, 73))


def test_force_scores_anew(dataset: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    output = tmp_path / "labelled"
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", output, "--episodes", "0")
    assert run(*options) == 0
    before = shards(output)[0].stat().st_mtime_ns
    assert run(*options) == 0
    assert shards(output)[0].stat().st_mtime_ns == before
    assert run(*options, "--force") == 0
    assert shards(output)[0].stat().st_mtime_ns > before


def test_several_tasks_are_scored_segment_by_segment(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=(20,), tasks=(("pick up the cube", "put it down"),))
    output = tmp_path / "labelled"
    options = ("--root", root, "--vlm", tiny_vlm, "--prefixes", "3")
    assert run(*options, "--output", output) == 0
    shard = pq.read_table(shards(output)[0]).to_pydict()
    assert shard["segment_start"] == [0, 0, 0, 10, 10, 10]
    assert shard["prefix_length"] == [1, 5, 10, 1, 5, 10]
    # A prefix of 5 frames shows frame 0 alone (5 is not before 5); 10 frames show 0, 5 and 9.
    assert shard["frame_index"] == [0, 0, 9, 10, 10, 19]
    overridden = tmp_path / "overridden"
    assert run(*options, "--output", overridden, "--instruction", "tidy up") == 0
    assert set(pq.read_table(shards(overridden)[0]).to_pydict()["segment_start"]) == {0}


def test_in_place_changes_the_dataset_only_when_asked(
    record_dataset: RecordDataset, tiny_vlm: Path
) -> None:
    root = record_dataset(lengths=(8, 8), cameras=("front",))
    assert run("--root", root, "--vlm", tiny_vlm, "--in-place") == 0
    labelled = load(root)
    assert np.isfinite(float(labelled[3]["topreward.advantage"]))
    assert run("--root", root, "--vlm", tiny_vlm, "--in-place", "--horizon", "0.3") == 0


def test_presets_and_the_command_line_add_up(dataset: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"vlm: {tiny_vlm}\nprefixes: 4\nepisodes: '0'\nwrite: sidecar\n")
    output = tmp_path / "labelled"
    options = ("--config", preset, "--root", dataset, "--output", output)
    assert run(*options, "--prefixes", "5") == 0
    assert len(pq.read_table(shards(output)[0])) == 5


def test_the_paper_preset_is_the_papers(dataset: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    output = tmp_path / "labelled"
    options = ("--config", "paper", "--root", dataset, "--output", output, "--vlm", tiny_vlm)
    assert run(*options) == 0
    shard = pq.read_table(shards(output)[0]).to_pydict()
    assert shard["prefix_length"] == sorted(set(np.linspace(1, 31, 15, dtype=int).tolist()))


def test_a_dataset_that_grew_costs_only_its_new_episodes(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    before = record_dataset(lengths=(12, 9), cameras=("front",))
    after = record_dataset(lengths=(12, 9, 11), cameras=("front",))  # the same seed, one more
    root, output = tmp_path / "dataset", tmp_path / "labelled"
    shutil.copytree(before, root)
    assert run("--root", root, "--vlm", tiny_vlm, "--output", output) == 0
    kept = {path: path.stat().st_mtime_ns for path in shards(output)}
    shutil.rmtree(root)
    shutil.copytree(after, root)
    assert run("--root", root, "--vlm", tiny_vlm, "--output", output) == 0
    assert len(shards(output)) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert load(output).num_frames == 32
    assert bool(load(output)[31]["topreward.labelled"])


def test_nothing_is_written_when_every_episode_fails(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root = record_dataset(lengths=(6, 6), cameras=("front",))
    for video in (root / "videos").rglob("*.mp4"):
        video.unlink()
    assert run("--root", root, "--vlm", tiny_vlm, "--output", tmp_path / "labelled") == 1
    assert "no dataset was written" in capfd.readouterr().out
    assert not (tmp_path / "labelled" / "meta").exists()


def test_columns_alone_leave_no_sidecar_behind(
    dataset: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", tmp_path / "labelled")
    sidecar = tmp_path / "labelled" / "topreward_progress.parquet"
    assert run(*options) == 0
    assert sidecar.exists()
    for _ in range(2):
        assert run(*options, "--write", "columns") == 0
        assert not sidecar.exists()
    assert "topreward.progress" in load(tmp_path / "labelled").features


def test_outcomes_that_cannot_be_read_do_not_stop_it(
    dataset: Path, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root = tmp_path / "recorded"
    shutil.copytree(dataset, root)
    (path,) = (root / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.append_column("success", [["good", "bad", "good"]]), path)
    options = ("--root", root, "--vlm", tiny_vlm, "--output", tmp_path / "labelled")
    assert run(*options) == 0
    assert "no outcomes are used: the column success" in " ".join(capfd.readouterr().out.split())
    assert run(*options, "--formula", "auto") == 2  # which needs them
    assert "must be true or false" in " ".join(capfd.readouterr().err.split())
