"""`next.reward` and `next.success`: what they are, whose they are, and that LeRobot's tools keep them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets.dataset_tools import add_features, delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.success import read_success
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.rules import RulesConfig, judge
from lerobot_topreward.label.next_reward import make_next_rewards
from lerobot_topreward.records import PrefixScores, Segment, is_own_feature
from lerobot_topreward.rewards import label_rewards
from lerobot_topreward.storage.reader import open_labelled

RecordDataset = Callable[..., Path]
NAMES = ("next.reward", "next.success")


def run(*options: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    return int(stopped.value.code or 0)


def load(root: Path) -> Any:
    return LeRobotDataset("local/labelled", root=root, video_backend="pyav")


def values(dataset: Any, name: str) -> np.ndarray:
    return np.array(dataset.hf_dataset.with_format("numpy")[name]).reshape(-1)


def scores(
    episode: int, log_probs: list[float], *, start: int = 0, task: str = "x"
) -> PrefixScores:
    lengths = 3 * np.arange(1, len(log_probs) + 1)
    return PrefixScores(
        segment=Segment(episode, start, int(lengths[-1]), task),
        control="none",
        prefix_length=lengths,
        frame_index=start + lengths - 1,
        log_prob_true=np.array(log_probs, dtype=np.float32),
        log_prob_false=np.full(len(log_probs), -1, dtype=np.float32),
    )


def test_rewards_sum_to_what_a_subtask_gained_and_success_is_curates_verdict() -> None:
    rng = np.random.default_rng(0)
    parts = [
        scores(e, np.sort(-9 * rng.random(6)).tolist()[:: rng.choice([1, -1])]) for e in range(30)
    ]
    parts += [scores(30, [-9, -5, -1], task="a"), scores(30, [-8, -2], start=9, task="b")]
    lengths = [18] * 30 + [15, 4]  # the last one has no label
    rewards = label_rewards(parts, np.repeat(np.arange(32), lengths), horizon=5, normalize="task")
    made = make_next_rewards(rewards, parts)
    assert made.reward.dtype == np.float32
    assert np.abs(made.reward).max() <= 1
    for part in parts:
        own = rewards.episode(part.segment.episode_index)
        rows = np.flatnonzero(rewards.episode_index == part.segment.episode_index)
        rows = rows[part.segment.start : part.segment.start + part.segment.length]
        progress = own.progress[part.segment.start : part.segment.start + part.segment.length]
        assert made.reward[rows].sum() == pytest.approx(progress[-1] - progress[0], abs=1e-5)
        assert made.reward[rows[-1]] == 0
    metrics = episode_metrics(parts, rewards, fps=10)
    rules = RulesConfig(min_final_progress=0.8, drop_broken=False)
    kept = {verdict.episode_index for verdict in judge(metrics, rules) if verdict.keep}
    assert 0 < len(kept) < 31
    assert {*rewards.episode_index[made.success].tolist()} == kept
    assert made.success.sum() == len(kept)  # on one frame each, the last
    ends = np.append(np.flatnonzero(np.diff(rewards.episode_index)), len(made.success) - 1)
    assert {*np.flatnonzero(made.success).tolist()} <= {*ends.tolist()}
    assert not made.reward[rewards.episode_index == 31].any()


@pytest.fixture(scope="module")
def dataset(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(12, 9, 10), cameras=("front",))


def test_the_columns_are_lerobots_and_go_where_they_are_not_asked_for(
    dataset: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labelled"
    options = ("--root", dataset, "--vlm", tiny_vlm, "--output", output, "--normalize", "task")
    assert run(*options, "--next-reward") == 0
    found = load(output)
    labels = open_labelled(repo_id=None, root=output, revision=None)
    made = make_next_rewards(labels.rewards(), labels.scores)
    np.testing.assert_allclose(values(found, "next.reward"), made.reward, atol=1e-6)
    np.testing.assert_array_equal(values(found, "next.success"), made.success)
    assert all(is_own_feature(found.meta.features[name]) for name in NAMES)
    assert {*NAMES} <= {*found.meta.stats}
    # They are no evidence for the labels that they are made of.
    assert read_success(open_source(repo_id=None, root=output, revision=None), None) is None
    # LeRobot's own tools keep them, with whose they are.
    fewer = delete_episodes(found, [1], output_dir=tmp_path / "fewer", repo_id="local/fewer")
    assert all(is_own_feature(fewer.meta.features[name]) for name in NAMES)
    np.testing.assert_array_equal(
        values(fewer, "next.reward"), np.delete(values(found, "next.reward"), np.s_[12:21])
    )
    # In place, ours are replaced, and removed where they are not asked for.
    again = ("--root", output, "--in-place", "--vlm", tiny_vlm, "--normalize", "task")
    assert run(*again, "--next-reward", "--scale", "prob") == 0
    assert not np.array_equal(values(load(output), "next.reward"), made.reward)
    assert run(*again) == 0
    info = (output / "meta/info.json").read_text() + (output / "meta/stats.json").read_text()
    assert "next.reward" not in info
    assert not {*NAMES} & {*load(output).hf_dataset.column_names}


def test_what_the_dataset_says_itself_is_never_replaced(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    feature = {"dtype": "float32", "shape": (1,), "names": None}
    reward = (np.zeros(31, dtype=np.float32), feature)
    add_features(
        load(dataset),
        {"next.reward": reward},
        output_dir=tmp_path / "own",
        repo_id="local/own",
    )
    options = ("--root", tmp_path / "own", "--vlm", tmp_path / "none", "--normalize", "task")
    assert run(*options, "--next-reward") == 2
    assert "has its own next.reward" in capfd.readouterr().err


@pytest.mark.parametrize("more", [[], ["--normalize", "task", "--write", "sidecar"]])
def test_progress_that_does_not_compare_makes_no_reward(
    dataset: Path, capfd: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert run("--root", dataset, "--next-reward", *more) == 2
    assert "--next-reward" in capfd.readouterr().err


@pytest.mark.parametrize("info", [None, 7, [], {"made_by": ["x"]}, {"made_by": "lerobot"}])
def test_a_strangers_mark_is_not_ours(info: object) -> None:
    assert not is_own_feature({"dtype": "float32", "shape": [1], "names": None, "info": info})
    assert not is_own_feature(info)
