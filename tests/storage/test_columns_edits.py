"""LeRobot's own tools edit a labelled dataset, and its trainer trains on it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_tools import (
    merge_datasets,
    modify_tasks,
    recompute_stats,
    split_dataset,
)
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.records import FEATURES, FrameRewards
from lerobot_topreward.storage.columns import write_columns

RecordDataset = Callable[..., Path]
Hashes = Callable[[Path], dict[str, str]]
RewardsFor = Callable[..., FrameRewards]
ColumnsOf = Callable[[FrameRewards], dict[str, np.ndarray]]
AssertColumns = Callable[[Path, FrameRewards], None]

write = partial(write_columns, fingerprint="a" * 64, provenance={"a": 1})
load = partial(LeRobotDataset, "local/labelled", video_backend="pyav")


def test_splitting_and_recomputing_keep_the_columns(
    record_dataset: RecordDataset, tmp_path: Path, rewards_for: RewardsFor, columns_of: ColumnsOf
) -> None:
    source = record_dataset(lengths=(6, 4, 5, 7), cameras=())
    rewards = rewards_for(source)
    write(source, rewards, tmp_path / "output")
    parts = split_dataset(
        load(tmp_path / "output"), {"a": [0, 3], "b": [1, 2]}, output_dir=tmp_path / "parts"
    )
    for part, episodes in (("a", [0, 3]), ("b", [1, 2])):
        rows = np.isin(rewards.episode_index, episodes)
        for name, values in columns_of(rewards).items():
            stored = pq.read_table(parts[part].root / "data")[name].to_numpy()
            np.testing.assert_array_equal(stored, values[rows])
    before = json.loads((tmp_path / "output/meta/stats.json").read_text())
    recompute_stats(load(tmp_path / "output"))
    after = json.loads((tmp_path / "output/meta/stats.json").read_text())
    for name in FEATURES:
        for key, values in after[name].items():
            np.testing.assert_allclose(before[name][key], values, rtol=1e-6, atol=1e-9)


def test_merging_keeps_the_columns(
    small: Path, tmp_path: Path, rewards_for: RewardsFor, columns_of: ColumnsOf
) -> None:
    rewards = rewards_for(small)
    for name in ("a", "b"):
        write(small, rewards, tmp_path / name)
    merged = merge_datasets(
        [load(tmp_path / "a"), load(tmp_path / "b")],
        output_repo_id="local/merged",
        output_dir=tmp_path / "merged",
    )
    assert merged.meta.stats is not None
    for name, values in columns_of(rewards).items():
        stored = pq.read_table(tmp_path / "merged" / "data")[name].to_numpy()
        np.testing.assert_array_equal(stored, np.tile(values, 2))
        np.testing.assert_allclose(merged.meta.stats[name]["mean"], values.mean(), rtol=1e-4)


def test_editing_the_output_in_place_does_not_reach_the_source(
    small: Path,
    tmp_path: Path,
    hashes: Hashes,
    rewards_for: RewardsFor,
    assert_columns: AssertColumns,
) -> None:
    before, rewards = hashes(small), rewards_for(small)
    write(small, rewards, tmp_path / "output")
    modify_tasks(load(tmp_path / "output"), new_task="pull")  # rewrites meta/tasks.parquet
    for name in ("README.md", "truth.parquet"):
        (tmp_path / "output" / name).write_text("edited")
    first: Any = load(tmp_path / "output")[0]
    assert first["task"] == "pull"
    assert_columns(tmp_path / "output", rewards)
    assert hashes(small) == before
    # What an edit through pandas leaves can be labelled again.
    write(tmp_path / "output", rewards_for(small, seed=1), tmp_path / "again")
    assert_columns(tmp_path / "again", rewards_for(small, seed=1))
    assert len(load(tmp_path / "again")) == len(rewards.index)


@pytest.mark.slow
def test_stock_act_trains_on_the_output(
    record_dataset: RecordDataset, tmp_path: Path, rewards_for: RewardsFor
) -> None:
    source, output = record_dataset(lengths=(6, 4, 7), size=(48, 64)), tmp_path / "output"
    write(source, rewards_for(source), output)
    policy = (
        "type=act device=cpu push_to_hub=false pretrained_backbone_weights=null dim_model=64 "
        "n_heads=2 dim_feedforward=64 n_encoder_layers=1 chunk_size=4 n_action_steps=4 "
        "use_vae=false"
    )
    command = [
        *(sys.executable, "-m", "lerobot.scripts.lerobot_train"),
        *("--dataset.repo_id=local/labelled", f"--dataset.root={output}"),
        "--dataset.video_backend=pyav",
        *(f"--policy.{option}" for option in policy.split()),
        *("--batch_size=2", "--steps=3", "--num_workers=0", "--wandb.enable=false"),
        f"--output_dir={tmp_path / 'run'}",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "run/checkpoints").glob("*/pretrained_model/model.safetensors"))
