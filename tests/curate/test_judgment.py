"""A reward that cannot judge a dataset drops no episode of it unasked."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cups import contents, write_labels

Run = Callable[..., str]


@pytest.fixture
def constant(recorded: Path, tmp_path: Path) -> Path:
    """Labels whose scores hardly vary: the best ends at -4.95, which is 0.05 nats above all."""
    root = tmp_path / "recorded"
    shutil.copytree(recorded, root)
    return write_labels(root, tmp_path / "cups", ends=(-4.95, -4.99, -4.98, -4.95, -4.96))


def test_a_reward_of_noise_drops_nothing_unless_forced(
    run: Run, constant: Path, tmp_path: Path
) -> None:
    before = contents(constant)
    said = run("--root", constant, "--output", tmp_path / "good", code=2)
    assert "--min-final-progress drops episodes by a reward that cannot judge this dataset" in said
    assert "makes progress of noise" in said
    assert "--force-rules uses it all the same" in said
    assert not (tmp_path / "good").exists()
    assert contents(constant) == before
    # It says what it would do, and rules that need no reward work.
    said = run("--root", constant, "--dry-run")
    assert "this reward: cannot judge this dataset" in said
    assert "episodes go" in said
    run("--root", constant, "--max-idle", "0.9", "--episodes-file", tmp_path / "kept.json")
    run("--root", constant, "--output", tmp_path / "good", "--force-rules")
    assert (tmp_path / "good/meta/info.json").is_file()


def test_a_reward_that_can_judge_says_so(run: Run, dataset: Path) -> None:
    said = run("--root", dataset)
    assert "this reward: usable with care" in said
    assert "! the control static was not scored" in said
    assert "+ curves follow time: VOC" in said
