from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_tools import add_features
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import UserError

RecordDataset = Callable[..., Path]


def _with_frames(root: Path, name: str, values: np.ndarray, *, dtype: str) -> Source:
    dataset = LeRobotDataset("local/recorded", root=root)
    output = root.parent / "with"
    feature = {"dtype": dtype, "shape": (1,), "names": None}
    add_features(dataset, {name: (values, feature)}, output_dir=output, repo_id="local/with")
    return open_source(repo_id=None, root=output, revision=None)


def _with_episodes(root: Path, values: list[object]) -> Source:
    path = next((root / "meta/episodes").glob("*/*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.append_column("success", pa.array(values)), path)
    return open_source(repo_id=None, root=root, revision=None)


def test_nothing_is_known_of_a_plain_dataset(record_dataset: RecordDataset) -> None:
    root = record_dataset(lengths=(2, 2), cameras=())
    assert read_success(open_source(repo_id=None, root=root, revision=None), None) is None


def test_next_success_on_any_frame(record_dataset: RecordDataset) -> None:
    root = record_dataset(lengths=(2, 3), cameras=())
    flags = np.array([False, False, False, True, False])
    source = _with_frames(root, "next.success", flags, dtype="bool")
    assert read_success(source, None) == Success("next.success", {0: False, 1: True})


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [([0, 0, 0, 1, 0], {0: False, 1: True}), ([0, 0.5, 0, 1, 0], None)],
)
def test_next_reward_where_it_is_sparse(
    record_dataset: RecordDataset, rewards: list[float], expected: dict[int, bool] | None
) -> None:
    root = record_dataset(lengths=(2, 3), cameras=())
    values = np.array(rewards, dtype=np.float32)
    source = _with_frames(root, "next.reward", values, dtype="float32")
    found = read_success(source, None)
    assert (found.by_episode if found else None) == expected


def test_a_column_of_the_episodes(record_dataset: RecordDataset) -> None:
    root = record_dataset(lengths=(2, 2, 2), cameras=())
    found = read_success(_with_episodes(root, [True, None, False]), None)
    assert found is not None
    assert found.by_episode == {0: True, 2: False}  # of episode 1 nothing is said


def test_a_column_that_is_not_boolean_is_refused(record_dataset: RecordDataset) -> None:
    root = record_dataset(lengths=(2, 2), cameras=())
    source = _with_episodes(root, ["true", "maybe"])
    with pytest.raises(UserError, match=r"episode 1 has 'maybe'.*`success_file`"):
        read_success(source, None)


def test_a_file_comes_first(record_dataset: RecordDataset, tmp_path: Path) -> None:
    root = record_dataset(lengths=(2, 2, 2), cameras=())
    source = _with_episodes(root, [False, False, False])
    path = tmp_path / "success.csv"
    path.write_text("success, episode_index\nTrue, 0\n0, 2\n")
    found = read_success(source, path)
    assert found is not None
    assert found.by_episode == {0: True, 2: False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("episode,ok\n0,1\n", "header that has episode_index and success; got: episode, ok"),
        ("episode_index,success\n7,1\n", "dataset's 0..1; got '7'"),
        ("episode_index,success\n²,1\n", "dataset's 0..1; got '²'"),
        (f"episode_index,success\n{'1' * 5000},1\n", "dataset's 0..1; got '1111"),
        ("episode_index,success\n0,1\n0,1\n", "names episode 0 twice"),
        ("episode_index,success\n0,2\n", "episode 0 has '2'"),
        ("", "got: nothing"),
    ],
)
def test_a_file_that_cannot_be_used(
    record_dataset: RecordDataset, tmp_path: Path, text: str, message: str
) -> None:
    root = record_dataset(lengths=(2, 2), cameras=())
    path = tmp_path / "success.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_success(open_source(repo_id=None, root=root, revision=None), path)


def test_a_file_that_is_not_there(record_dataset: RecordDataset, tmp_path: Path) -> None:
    root = record_dataset(lengths=(2, 2), cameras=())
    with pytest.raises(UserError, match=r"`success_file=.*none.csv` cannot be read"):
        read_success(open_source(repo_id=None, root=root, revision=None), tmp_path / "none.csv")
