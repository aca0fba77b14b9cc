from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.rewards.sarm.rabc import RABCWeights

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import read_labels
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.schemes import Filter, Uniform

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

LENGTHS = (7, 5, 6)
FRAMES = sum(LENGTHS)
PROGRESS = np.linspace(0, 1, FRAMES)
SCORING = {"instruction": None, "sample_fps": 2.0, "final_frame": False, "prefixes": None}


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=LENGTHS, cameras=(), tasks=("pick", "place"))


def opened(root: Path) -> Source:
    return open_source(repo_id=None, root=root, revision=None)


def read(root: Path, *, episodes: list[int] | None = None, **options: object) -> FrameLabels:
    config = WeightingConfig(**options)  # pyright: ignore[reportArgumentType]
    return read_labels(opened(root), episodes=episodes, config=config)


def replace_column(root: Path, name: str, values: np.ndarray) -> None:
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    column = table.schema.get_field_index(name)
    field = table.schema.field(name)
    table = table.set_column(column, field, pa.array(list(values), type=field.type))
    path.unlink()  # linked to nobody's file
    pq.write_table(table, path)


@pytest.mark.parametrize("source", ["auto", "columns", "sidecar"])
def test_columns_and_sidecar_say_the_same(
    recorded: Path, write_labels: WriteLabels, source: str
) -> None:
    root = write_labels(
        recorded, progress=PROGRESS, unlabelled=[1], scoring=SCORING, normalize="task"
    )
    labels = read(root, source=source)
    assert labels.normalize == "task"
    dataset = LeRobotDataset("local/labelled", root=root)
    for name, column in (("progress", "progress"), ("log_prob", "log_prob")):
        expected = np.array(dataset.hf_dataset[f"topreward.{column}"], dtype=np.float32)
        np.testing.assert_array_equal(getattr(labels, name), expected.reshape(-1))
    np.testing.assert_array_equal(labels.index, np.arange(FRAMES))
    np.testing.assert_array_equal(labels.labelled, np.repeat([True, False, True], LENGTHS))
    np.testing.assert_array_equal(labels.episode_index, np.repeat([0, 1, 2], LENGTHS))
    assert [labels.tasks[i] for i in labels.task_index[[0, 7, 12]]] == ["pick", "place", "pick"]
    assert labels.fps == 10.0


@pytest.mark.parametrize("said", ["mean", ["task"], 10**30])
@pytest.mark.parametrize("source", ["columns", "sidecar"])
def test_how_labels_were_normalized_may_be_unknown(
    recorded: Path, write_labels: WriteLabels, source: str, said: object
) -> None:
    root = write_labels(recorded, progress=PROGRESS, normalize=said)
    assert read(root, source=source).normalize is None


def test_a_subset_of_episodes_keeps_its_global_index(
    recorded: Path, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded, progress=PROGRESS)
    labels = read(root, episodes=[2, 0])
    subset = LeRobotDataset("local/labelled", root=root, episodes=[2, 0])
    asked = sorted(int(subset[i]["index"]) for i in range(len(subset)))  # pyright: ignore
    assert labels.index.tolist() == asked == [*range(7), *range(12, 18)]
    np.testing.assert_allclose(labels.progress, PROGRESS[labels.index], atol=1e-6)
    with pytest.raises(UserError, match=r"\[7\]` has no frames; the dataset has episodes 0..2"):
        read(root, episodes=[7])


@pytest.mark.parametrize("source", ["columns", "sidecar"])
def test_where_prefixes_end(recorded: Path, write_labels: WriteLabels, source: str) -> None:
    # Every fifth frame, counted from each episode's start.
    root = write_labels(recorded, progress=PROGRESS, unlabelled=[1], scoring=SCORING)
    ends = read(root, source=source).prefix_end
    assert ends is not None
    assert np.flatnonzero(ends).tolist() == [0, 5, 12, 17]
    ends = read(root, source=source, episodes=[2]).prefix_end
    assert ends is not None
    assert np.flatnonzero(ends).tolist() == [0, 5]


def test_labels_of_the_label_command(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=(12, 7), cameras=("front",), video=False)
    options = ("--root", root, "--vlm", tiny_vlm, "--output", tmp_path / "out", "--prefixes", 4)
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options), "--episodes", "1"])
    assert stopped.value.code == 0
    labels = read(tmp_path / "out")
    shard = pq.read_table(next((tmp_path / "out").glob("topreward/*/episode_*.parquet")))
    assert labels.prefix_end is not None
    ends = np.flatnonzero(labels.prefix_end)
    assert (ends - 12 + 1).tolist() == shard["prefix_length"].to_pylist()
    np.testing.assert_array_equal(labels.log_prob[ends], shard["log_prob_true"].to_numpy())
    assert labels.labelled.tolist() == [False] * 12 + [True] * 7


def test_labels_survive_lerobots_own_editing(
    recorded: Path, write_labels: WriteLabels, tmp_path: Path
) -> None:
    dataset = LeRobotDataset("local/labelled", root=write_labels(recorded, progress=PROGRESS))
    delete_episodes(dataset, episode_indices=[0], output_dir=tmp_path / "fewer", repo_id="a/b")
    labels = read(tmp_path / "fewer")
    np.testing.assert_allclose(labels.progress, PROGRESS[7:], atol=1e-6)
    assert labels.labelled.all()


def test_an_unlabelled_dataset(recorded: Path, write_labels: WriteLabels) -> None:
    command = f"lerobot-topreward label `root={recorded}`"
    for source in ("auto", "columns", "sidecar"):
        with pytest.raises(UserError) as said:
            read(recorded, source=source)
        assert command in str(said.value)
        assert len(str(said.value).splitlines()) <= 2
    assert not read(recorded, scheme=Uniform()).labelled.any()
    root = write_labels(recorded, unlabelled=[1])
    with pytest.raises(UserError, match="none of the 5 frames that are trained on"):
        read(root, episodes=[1])


def test_columns_are_read_where_the_sidecar_is_stale(
    recorded: Path, write_labels: WriteLabels, capfd: pytest.CaptureFixture[str]
) -> None:
    root = write_labels(recorded, progress=PROGRESS)
    replace_column(root, "action", np.zeros((FRAMES, 6)))
    with pytest.raises(UserError, match=r"is stale: .* Or use `weighting.source=columns`"):
        read(root, source="sidecar")
    np.testing.assert_allclose(read(root).progress, PROGRESS, atol=1e-6)
    [said] = capfd.readouterr().err.splitlines()
    assert "was edited since it was labeled" in said
    assert "Its columns topreward.* are read" in said


def test_a_sidecar_given_by_hand_must_be_this_datasets(
    recorded: Path, record_dataset: RecordDataset, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded, progress=PROGRESS)
    elsewhere = root.parent / "mine.parquet"
    (root / SIDECAR_NAME).rename(elsewhere)
    np.testing.assert_allclose(read(recorded, sidecar=elsewhere).progress, PROGRESS, atol=1e-6)
    other = write_labels(record_dataset(lengths=LENGTHS, cameras=(), seed=1))
    with pytest.raises(UserError, match="is stale"):
        read(root, sidecar=other / SIDECAR_NAME)
    with pytest.raises(UserError, match="there is no"):
        read(root, sidecar=root / "absent.parquet")


@pytest.mark.parametrize(
    ("column", "row", "value", "expected"),
    [
        ("topreward.progress", 8, 0.125, "progress of 1 frames, first frame 1 of episode 1"),
        ("topreward.log_prob", 0, -9.0, "log_prob of 1 frames, first frame 0 of episode 0"),
        ("topreward.labelled", 17, False, "labelled or not of 1 frames, first frame 5 of episo"),
    ],
)
def test_columns_and_sidecar_that_disagree(
    recorded: Path,
    write_labels: WriteLabels,
    column: str,
    row: int,
    value: float,
    expected: str,
) -> None:
    root = write_labels(recorded, progress=PROGRESS)
    (path,) = root.glob("data/*/*.parquet")
    values = pq.read_table(path)[column].to_numpy().copy()
    values[row] = value
    replace_column(root, column, values)
    with pytest.raises(UserError) as said:
        read(root)
    assert expected in str(said.value)
    assert "`weighting.source=sidecar` or `weighting.source=columns`" in str(said.value)
    assert read(root, source="sidecar").progress[8] == np.float32(PROGRESS[8])


def test_columns_must_be_finite(recorded: Path, write_labels: WriteLabels) -> None:
    root = write_labels(recorded, sidecar=False)
    replace_column(root, "topreward.progress", np.full(FRAMES, np.nan, dtype=np.float32))
    with pytest.raises(UserError, match="must be finite; frame 0 of episode 0"):
        read(root)


def write_foreign(path: Path, progress: np.ndarray, **columns: object) -> Path:
    """Write a sidecar in the form of LeRobot's own compute_rabc_weights."""
    rows = {
        "index": np.arange(FRAMES),
        "episode_index": np.repeat([0, 1, 2], LENGTHS),
        "frame_index": np.concatenate([np.arange(n) for n in LENGTHS]),
        "progress_sparse": progress.astype(np.float32),
    }
    pq.write_table(pa.table({**rows, **columns}), path)
    return path


def test_a_sidecar_of_lerobots_own(recorded: Path, tmp_path: Path) -> None:
    progress = PROGRESS.copy()
    progress[3] = np.nan  # what LeRobot takes as no label
    path = write_foreign(tmp_path / "sarm_progress.parquet", progress)
    labels = read(recorded, sidecar=path)
    lerobots = RABCWeights(path, chunk_size=2)
    assert dict(
        zip(labels.index[labels.labelled].tolist(), labels.progress[labels.labelled], strict=True)
    ) == pytest.approx(lerobots.progress_lookup)
    assert labels.prefix_end is None
    with pytest.raises(UserError, match=r"`weighting.by=success` needs log-probabilities"):
        read(recorded, sidecar=path, scheme=Filter(by="success", threshold=-5.0))
    assert read(recorded, sidecar=path, scheme=Filter(by="advantage", threshold=0.0)) is not None


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"index": np.arange(FRAMES) + 1}, "are not among the dataset's 18 frames"),
        ({"index": np.zeros(FRAMES, dtype=np.int64)}, "names frames twice"),
        ({"frame_index": np.arange(FRAMES)}, "index 7 is frame 7 of episode 1, in the dataset fr"),
    ],
)
def test_a_foreign_sidecar_of_another_dataset(
    recorded: Path, tmp_path: Path, columns: dict[str, np.ndarray], expected: str
) -> None:
    path = write_foreign(tmp_path / "sarm_progress.parquet", PROGRESS, **columns)
    with pytest.raises(UserError, match=expected):
        read(recorded, sidecar=path)


def test_a_file_that_is_no_sidecar(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"index": [0]}), path)
    with pytest.raises(UserError, match="it lacks episode_index, frame_index, progress_sparse"):
        read(recorded, sidecar=path)
    path.write_text("text")
    with pytest.raises(UserError, match="cannot be read"):
        read(recorded, sidecar=path)


def test_lerobots_own_sidecar_is_not_taken_for_ours(recorded: Path, tmp_path: Path) -> None:
    dataset = LeRobotDataset("local/recorded", root=recorded)
    root = tmp_path / "copy"
    delete_episodes(dataset, episode_indices=[2], output_dir=root, repo_id="a/b")
    write_foreign(root / SIDECAR_NAME, PROGRESS)
    with pytest.raises(UserError, match=r"To use its progress .* `weighting.sidecar="):
        read(root)
