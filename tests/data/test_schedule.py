"""How many images of a long video are shown, and how large."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot_topreward.cli import main
from lerobot_topreward.data.schedule import sample_frames
from lerobot_topreward.label.job import failure_lines
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.storage.reader import open_labelled


@pytest.mark.parametrize(
    ("max_images", "final_frame", "expected"),
    [
        (2, True, [0, 99]),
        (4, True, [0, 35, 65, 99]),
        (5, True, [0, 25, 50, 75, 99]),
        (2, False, [0, 95]),
        (20, False, list(range(0, 100, 5))),
        (21, True, [*range(0, 100, 5), 99]),
        (1000, True, [*range(0, 100, 5), 99]),
        (None, True, [*range(0, 100, 5), 99]),
    ],
)
def test_sampled_images_are_thinned_evenly(
    max_images: int | None, final_frame: bool, expected: list[int]
) -> None:
    found = sample_frames(100, fps=10, final_frame=final_frame, max_images=max_images)
    assert found.tolist() == expected


@pytest.mark.parametrize("frames", [1, 2, 3, 50, 1001])
@pytest.mark.parametrize("max_images", range(2, 40))
def test_thinned_images_are_as_many_as_asked_for(frames: int, max_images: int) -> None:
    every = sample_frames(frames, fps=30, sample_fps=7.3)
    found = sample_frames(frames, fps=30, sample_fps=7.3, max_images=max_images)
    assert len(found) == min(max_images, len(every))
    assert set(found.tolist()) <= set(every.tolist())
    assert (found[0], found[-1]) == (every[0], every[-1])
    assert np.all(np.diff(found) > 0)


def test_equal_failures_are_one_line() -> None:
    failed = dict.fromkeys((*range(43), 50, 52, 53), "its video is cut short")
    assert failure_lines({**failed, 44: "it has no frames"}) == [
        "episodes 0..42, 50, 52..53 failed: its video is cut short",
        "episode 44 failed: it has no frames",
    ]
    assert failure_lines({}) == []


def run(*options: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def recorded(record_dataset: Callable[..., Path]) -> Path:
    return record_dataset(lengths=(30, 6), cameras=("front",), size=(128, 192))


@pytest.fixture(scope="module")
def frugal_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose whole video must not exceed eight images of 128x192 pixels."""
    folder = build_tiny_vlm(tmp_path_factory.mktemp("vlm") / "frugal", config=TinyConfig())
    for path in folder.glob("*processor*.json"):
        text = re.sub(r'"longest_edge": \d+', f'"longest_edge": {6 * 128 * 192}', path.read_text())
        path.write_text(text)
    return folder


def test_the_size_at_which_images_are_shown_is_said_and_stored(
    recorded: Path, frugal_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--root", recorded, "--vlm", frugal_vlm, "--output", tmp_path / "out")
    assert run(*options, "--sample-fps", "10") == 0
    said = capfd.readouterr().out
    assert "images are shown at 64x32 of 192x128" in said
    assert said.count("small images: 30 of episode 0 share one budget") == 1
    assert "--sample-fps or --max-images" in said
    (path,) = (tmp_path / "out").glob("topreward/*/run.json")
    shown = json.loads(path.read_text())["shown"]
    assert shown == ["192x128 of 192x128", "64x32 of 192x128"]
    assert (
        open_labelled(repo_id=None, root=tmp_path / "out", revision=None).provenance["shown"]
        == shown
    )
    assert run(*options, "--sample-fps", "10") == 0  # nothing to score, so nothing is shown
    assert "shown at" not in capfd.readouterr().out
    assert json.loads(path.read_text())["shown"] == shown


def test_fewer_images_are_shown_larger_and_their_scores_read_back(
    recorded: Path, frugal_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--root", recorded, "--vlm", frugal_vlm, "--output", tmp_path / "out")
    assert run(*options, "--sample-fps", "10", "--max-images", "6") == 0
    said = capfd.readouterr().out
    assert "images are shown at 192x128 of 192x128" in said
    assert "small images" not in said
    dataset = open_labelled(repo_id=None, root=tmp_path / "out", revision=None)
    assert dataset.key.max_images == 6
    shards = sorted(dataset.store.folder.glob("episode_*.parquet"))
    for path, scores in zip(shards, dataset.scores, strict=True):
        shard = pq.read_table(path)
        assert scores.prefix_length.tolist() == shard["prefix_length"].to_pylist()
        assert scores.frame_index.tolist() == shard["frame_index"].to_pylist()
        np.testing.assert_array_equal(scores.log_prob_true, shard["log_prob_true"].to_numpy())
    assert dataset.scores[0].frame_index.tolist() == [0, 6, 12, 17, 23, 29]
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "evaluate",
                "--root",
                str(tmp_path / "out"),
                "--vlm",
                str(frugal_vlm),
                "--controls",
                "static",
            ]
        )
    assert stopped.value.code == 0
    still = pq.read_table(dataset.store.path(0, "static"))
    assert still["frame_index"].to_pylist() == [0, 6, 12, 17, 23, 29]
    assert run(*options, "--sample-fps", "10", "--max-images", "1") == 2
    assert "--max-images must be at least 2" in capfd.readouterr().err
