"""The reader without LeRobot gives what LeRobot's gives, and says what it cannot read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_topreward.data import info, locate, success
from lerobot_topreward.data.recording import RecordedDataset, open_recorded
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.judging.findings import inspect_dataset
from lerobot_topreward.records import EpisodeRecording


def read(root: Path) -> RecordedDataset:
    return open_recorded(root, repo_id="local/x", option=f"`root={root}`")


def recordings(root: Path) -> dict[int, EpisodeRecording | EpisodeError]:
    dataset = read(root)
    return dict(dataset.episodes(range(len(dataset.lengths))))


def test_constants_are_those_of_lerobot() -> None:
    from lerobot.datasets import dataset_metadata, utils
    from lerobot.utils import constants

    assert dataset_metadata.CODEBASE_VERSION == info.CODEBASE_VERSION
    assert utils.INFO_PATH == info.INFO_PATH
    assert utils.EPISODES_DIR == info.EPISODES_DIR
    assert utils.DEFAULT_TASKS_PATH == info.TASKS_PATH
    assert utils.STATS_PATH == info.STATS_PATH
    assert utils.DATA_DIR == info.DATA_DIR
    assert info.Info.model_fields["data_path"].default == utils.DEFAULT_DATA_PATH
    assert info.Info.model_fields["video_path"].default == utils.DEFAULT_VIDEO_PATH
    assert constants.REWARD == success.REWARD
    assert constants.HF_LEROBOT_HOME == locate.HF_LEROBOT_HOME
    assert constants.HF_LEROBOT_HUB_CACHE == locate.HF_LEROBOT_HUB_CACHE


@pytest.mark.parametrize(
    "options", [{}, {"small_files": True}, {"state": 3, "environment_state": 2}]
)
def test_values_are_those_that_lerobot_reads(
    record_dataset: Callable[..., Path], options: dict
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    tasks = ("pick up the cube", ("open", "close"))
    root = record_dataset(lengths=(7, 9, 5), cameras=(), tasks=tasks, **options)
    theirs = LeRobotDataset("local/recorded", root=root)
    every: list[Any] = [theirs[i] for i in range(len(theirs))]
    names = ["action", "observation.environment_state", "observation.state"]
    names = [name for name in names if name in theirs.features]
    found = recordings(root)
    assert sorted(found) == [0, 1, 2]
    for episode, ours in found.items():
        assert isinstance(ours, EpisodeRecording)
        rows = [row for row in every if int(row["episode_index"]) == episode]
        values = [np.concatenate([row[name].numpy() for name in names]) for row in rows]
        np.testing.assert_array_equal(ours.values, np.array(values, dtype=np.float64))
        np.testing.assert_array_equal(ours.timestamp, [float(row["timestamp"]) for row in rows])
        np.testing.assert_array_equal(ours.frame_index, [int(row["frame_index"]) for row in rows])
        assert ours.task == " / ".join(dict.fromkeys(row["task"] for row in rows))
        assert ours.declared == len(rows)


def test_joints_are_paired_by_name_or_by_place(small: Path) -> None:
    assert read(small).signals.pairs == tuple((i, i + 6) for i in range(6))
    path = small / "meta/info.json"
    content = json.loads(path.read_text())
    names = [f"joint_{i}.pos" for i in range(5)] + ["gripper.pos"]
    content["features"]["action"]["names"] = names
    content["features"]["observation.state"]["names"] = {"motors": names[::-1]}
    path.write_text(json.dumps(content))
    signals = read(small).signals
    assert signals.pairs == tuple((i, 11 - i) for i in range(6))
    assert [signals.names[i] for i in signals.grippers] == [
        "action.gripper.pos",
        "observation.state.gripper.pos",
    ]


def test_reading_imports_neither_lerobot_nor_torch(small: Path) -> None:
    script = (
        "import sys\nfrom lerobot_topreward.cli import main\n"
        f"try: main(['check', '--json', '--root', {str(small)!r}])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not {'torch', 'lerobot', 'transformers', 'scipy'} & {*sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def change_times(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    (path,) = (root / "meta/episodes").rglob("*.parquet")
    pq.write_table(change(pq.read_table(path)), path)


FRONT = "observation.images.front"


def test_videos_last_as_long_as_lerobot_says(record_dataset: Callable[..., Path]) -> None:
    root = record_dataset(lengths=(7, 9, 5))
    for episode, recording in recordings(root).items():
        assert isinstance(recording, EpisodeRecording)
        assert recording.video_s.keys() == {FRONT, "observation.images.wrist"}
        lasts = len(recording.timestamp) / 10
        np.testing.assert_allclose([*recording.video_s.values()], lasts, rtol=1e-6)
        assert episode == recording.episode_index
    found = inspect_dataset(read(root), range(3))
    assert not [f for f in found.findings if f.defect == "short video"]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([0.7, 1.3, 2.1], "lacks 3 of its 9 frames"),
        ([0.7, None, 2.1], None),
        ([0.7, float("nan"), float("inf")], None),
        (None, None),  # an older recorder's table has no such column
    ],
)
def test_a_video_that_is_too_short_for_its_rows_is_found(
    record_dataset: Callable[..., Path], ends: list | None, said: str | None
) -> None:
    root = record_dataset(lengths=(7, 9, 5), cameras=("front",))
    name = f"videos/{FRONT}/to_timestamp"
    if ends is None:
        change_times(root, lambda table: table.drop_columns([name]))
    else:
        change_times(root, replace_column(name, pa.array(ends, pa.float64())))
    found = [f for f in inspect_dataset(read(root), range(3)).findings if f.defect == "short video"]
    assert [(f.episode_index, f.level) for f in found] == ([(1, "broken")] if said else [])
    assert not said or said in found[0].text


def test_frames_that_lerobots_encoder_drops_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    vector = {"dtype": "float32", "shape": (6,), "names": None}
    picture = {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/streamed",
        fps=10,
        features={"action": vector, "observation.state": vector, FRONT: picture},
        root=tmp_path / "streamed",
        streaming_encoding=True,
        rgb_encoder=RGBEncoderConfig(vcodec="h264"),
    )
    feed, rng = StreamingVideoEncoder.feed_frame, np.random.default_rng(0)
    fed = 0

    def feed_some(self: StreamingVideoEncoder, *arguments: Any) -> None:
        """Drop every fourth frame of the first episode, as where the queue is full."""
        nonlocal fed
        fed += 1
        if fed > 20 or fed % 4:
            feed(self, *arguments)

    monkeypatch.setattr(StreamingVideoEncoder, "feed_frame", feed_some)
    for _ in range(2):
        for _ in range(20):
            values = rng.normal(size=6).astype(np.float32)
            image = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            frame = {"action": values, "observation.state": values, FRONT: image, "task": "pick"}
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    found = inspect_dataset(read(dataset.root), range(2)).findings
    short = [(f.episode_index, f.level, f.text) for f in found if f.defect == "short video"]
    assert [(episode, level) for episode, level, _ in short] == [(0, "broken")]
    assert "lacks 5 of its 20 frames" in short[0][2]


def test_times_that_are_no_numbers_are_said(record_dataset: Callable[..., Path]) -> None:
    root = record_dataset(lengths=(7, 9), cameras=("front",))
    name = f"videos/{FRONT}/to_timestamp"
    change_times(root, replace_column(name, pa.array(["soon", "later"])))
    with pytest.raises(UserError, match="meta/episodes cannot be read"):
        read(root)


def rewrite(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    (path,) = (root / "data").rglob("*.parquet")
    pq.write_table(change(pq.read_table(path)), path)


def replace_column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["action"]), "lacks the columns action"),
        (lambda t: t.drop_columns(["timestamp"]), "lacks the columns timestamp"),
        (
            replace_column("action", pa.array(["x"] * 12)),
            "column action cannot be used: it must hold numbers",
        ),
        (
            replace_column("action", pa.array([[1.0] * 5] * 12, pa.list_(pa.float32()))),
            "column action must have 6 numbers in every row",
        ),
        (
            replace_column("action", pa.array([None, *[[1.0] * 6] * 11], pa.list_(pa.float32()))),
            "column action must have 6 numbers in every row; it has 18 in 4 rows",
        ),
    ],
)
def test_episodes_that_cannot_be_read_say_why(
    small: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    rewrite(small, change)
    found = recordings(small)
    assert sorted(found) == [0, 1, 2]
    assert isinstance(found[0], EpisodeError)
    assert said in str(found[0])


def test_a_file_that_is_cut_or_missing_fails_its_episodes(small: Path) -> None:
    (path,) = (small / "data").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:200])
    assert all("cannot be read" in str(error) for error in recordings(small).values())
    path.unlink()
    assert all("is missing" in str(error) for error in recordings(small).values())


def test_links_out_of_the_dataset_are_refused(small: Path, tmp_path: Path) -> None:
    (path,) = (small / "data").rglob("*.parquet")
    shutil.move(path, tmp_path / "elsewhere.parquet")
    path.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(UserError, match="out of"):
        recordings(small)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="regular file"):
        recordings(small)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"length": ["x"] * 3}, "cannot be read"),
        ({"episode_index": [0, 0, 1]}, "must list the episodes 0, 1, 2"),
        ({"data/file_index": [0, None, 0]}, "must list the episodes 0, 1, 2"),
    ],
)
def test_a_table_of_episodes_that_is_wrong_is_refused(
    small: Path, columns: dict[str, list], said: str
) -> None:
    (path,) = (small / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path)
    with pytest.raises(UserError, match=said):
        read(small)


def test_a_row_of_more_numbers_than_memory_holds_is_refused(small: Path) -> None:
    path = small / "meta/info.json"
    content = json.loads(path.read_text())
    content["features"]["action"]["shape"] = [10**6, 10**6]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="action must have at most 100000 numbers in a row"):
        read(small)


@pytest.mark.parametrize("column", ["task_index", "frame_index", "episode_index", "timestamp"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300, -1e300, 0.5])
def test_indices_that_are_none_are_no_traceback(small: Path, column: str, value: float) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = table[column].to_numpy().astype(np.float64)
        values[5] = value
        return table.set_column(table.column_names.index(column), column, pa.array(values))

    rewrite(small, spoil)
    dataset = read(small)
    found = inspect_dataset(dataset, range(3))
    assert 1 in found.broken  # the fifth row is of the second episode
