"""A labelled dataset that LeRobot's tools edit: what its episodes are compared by."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets import dataset_tools as tools
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.records import COLUMNS, PrefixScores
from lerobot_topreward.storage.reader import open_labelled

RecordDataset = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
Label = Callable[..., int]
Actions = bytes  # of an episode: no two recordings share them

LENGTHS = (14, 9, 16, 11, 8)
TASKS = ("pick up the cube", "open the drawer")


def load(root: Path, **options: Any) -> LeRobotDataset:
    return LeRobotDataset(f"local/{root.name}", root=root, **options)


def rows_of(root: Path) -> dict[Actions, list[pa.Table]]:
    """The rows of every episode; merging a dataset with itself gives an episode twice."""
    table = pa.concat_tables(
        [pq.read_table(path) for path in sorted(root.glob("data/*/*.parquet"))],
        promote_options="default",
    )
    found: dict[Actions, list[pa.Table]] = {}
    episode_index = table["episode_index"].to_numpy()
    for episode in np.unique(episode_index):
        rows = table.filter(pa.array(episode_index == episode))
        found.setdefault(actions(rows), []).append(rows)
    return found


def actions(rows: pa.Table) -> Actions:
    return np.array(rows["action"].to_pylist(), dtype=np.float32).tobytes()


def assert_columns_kept(
    root: Path, before: Mapping[Actions, list[pa.Table]], *, without: Sequence[str] = ()
) -> None:
    """Compare the columns of every episode with those of the same recording, bit for bit."""
    for key, episodes in rows_of(root).items():
        for rows in episodes:
            for name in COLUMNS.keys() - set(without):
                assert rows[name].combine_chunks() == before[key][0][name].combine_chunks(), name
    stats = json.loads((root / "meta/stats.json").read_text())
    assert COLUMNS.keys() - set(without) <= stats.keys()


def scores_of(root: Path) -> list[tuple[Actions, PrefixScores]]:
    dataset = open_labelled(repo_id=None, root=root, revision=None)
    table = pa.concat_tables(
        [pq.read_table(path) for path in sorted(root.glob("data/*/*.parquet"))]
    )
    index = table["episode_index"].to_numpy()
    return [
        (actions(table.filter(pa.array(index == scores.segment.episode_index))), scores)
        for scores in dataset.scores
    ]


def assert_scores_kept(root: Path, before: Path, *also: Path, tasks: bool = True) -> None:
    """Compare the raw scores of every episode with those of the same recording, exactly."""
    known = {key: scores for folder in (before, *also) for key, scores in scores_of(folder)}
    found = scores_of(root)
    assert len(found) == len(frame_episodes(root))
    for key, scores in found:
        for name in ("prefix_length", "frame_index", "log_prob_true", "log_prob_false"):
            np.testing.assert_array_equal(getattr(scores, name), getattr(known[key], name))
        assert (scores.segment.instruction == known[key].segment.instruction) == tasks


def frame_episodes(root: Path) -> list[int]:
    source = open_source(repo_id=None, root=root, revision=None)
    return np.unique(source.frames.episode_index).tolist()


def evaluated(run: Run, root: Path) -> list[tuple[float, float]]:
    """What evaluate makes of the raw scores of each episode."""
    code, out, err = run("evaluate", "--root", root, "--json")
    assert code == 0, err
    found = json.loads(out)["episodes"]
    return [(episode["success_score"], episode["log_odds"]) for episode in found]


def delete(root: Path, episodes: list[int], folder: Path) -> LeRobotDataset:
    return tools.delete_episodes(load(root), episodes, output_dir=folder, repo_id="local/left")


def split(root: Path, folder: Path, **parts: float | list[int]) -> list[LeRobotDataset]:
    return list(tools.split_dataset(load(root), parts, output_dir=folder).values())


def merge(roots: Sequence[Path], folder: Path, **options: bool) -> LeRobotDataset:
    datasets = [load(root) for root in roots]
    return tools.merge_datasets(
        datasets, output_repo_id="local/merged", output_dir=folder, **options
    )


def remove(root: Path, name: str, folder: Path) -> LeRobotDataset:
    return tools.remove_feature(load(root), name, output_dir=folder, repo_id="local/removed")
