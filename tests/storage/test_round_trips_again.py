"""A labelled dataset that is edited, then curated or labelled again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from trips import (
    LENGTHS,
    TASKS,
    Label,
    RecordDataset,
    Run,
    assert_columns_kept,
    assert_scores_kept,
    delete,
    evaluated,
    frame_episodes,
    merge,
    rows_of,
    scores_of,
    split,
)

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.records import COLUMNS, FEATURES
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import read_labels

pytestmark = pytest.mark.slow

# Curated, then edited


def test_curated_then_deleted(labelled: Path, tmp_path: Path, run: Run) -> None:
    rules = ("--keep-top", "0.6", "--force-rules", "--output", tmp_path / "good")
    assert run("curate", "--root", labelled, *rules)[0] == 0
    record = json.loads((tmp_path / "good/curation.json").read_text())
    kept = [int(old) for old in record["kept"]]
    judged = evaluated(run, labelled)
    assert evaluated(run, tmp_path / "good") == [judged[old] for old in kept]
    made = delete(tmp_path / "good", [0], tmp_path / "fewer")
    assert_columns_kept(made.root, rows_of(labelled))
    assert_scores_kept(made.root, labelled)
    assert evaluated(run, made.root) == [judged[old] for old in kept[1:]]


def test_what_was_edited_is_curated(labelled: Path, tmp_path: Path, run: Run) -> None:
    made = delete(labelled, [1], tmp_path / "fewer")
    rules = ("--min-voc", "-1", "--output", tmp_path / "again")
    assert run("curate", "--root", made.root, *rules)[0] == 0
    assert (tmp_path / "again" / SIDECAR_NAME).is_file()
    assert_columns_kept(tmp_path / "again", rows_of(labelled))
    assert_scores_kept(tmp_path / "again", labelled)
    page = tmp_path / "page.html"
    assert run("report", "--root", made.root, "--videos", "none", "--output", page)[0] == 0
    assert page.is_file()


def test_curated_parts_are_merged(labelled: Path, tmp_path: Path, run: Run) -> None:
    judged = evaluated(run, labelled)
    roots = []
    for name, episodes in (("a", [0, 1]), ("b", [2, 3, 4])):
        [part] = split(labelled, tmp_path / "parts", **{name: episodes})
        roots.append(tmp_path / f"curated-{name}")
        options = ("--min-voc", "-1", "--output", roots[-1])
        assert run("curate", "--root", part.root, *options)[0] == 0
    made = merge(roots, tmp_path / "merged")
    assert_scores_kept(made.root, labelled)
    assert evaluated(run, made.root) == judged


@pytest.fixture(scope="session")
def held(record_dataset: RecordDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of 40 frames at 10 Hz; the second one moves in frames 13..25 alone."""
    root = shutil.copytree(
        record_dataset(lengths=(40, 40), tasks=TASKS, cameras=("front",), size=(64, 64)),
        tmp_path_factory.mktemp("held") / "dataset",
    )
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name in ("observation.state", "action"):
        values = np.array(table[name].to_pylist(), dtype=np.float32)
        values[40:53], values[66:] = values[52], values[65]
        column = pa.array(list(values), table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    pq.write_table(table, path)
    return root


@pytest.mark.parametrize("prefixes", ["every", "15"])
def test_trimmed_episodes_have_the_scores_that_were_given(
    held: Path, tiny_vlm: Path, tmp_path: Path, run: Run, label: Label, prefixes: str
) -> None:
    options = ("--vlm", tiny_vlm, "--output", tmp_path / "labelled", "--prefixes", prefixes)
    assert run("label", "--root", held, *options)[0] == 0
    trim = ("--min-voc", "-1", "--trim", "--trim-margin", "0.3", "--output", tmp_path / "short")
    assert run("curate", "--root", tmp_path / "labelled", *trim)[0] == 0
    record = json.loads((tmp_path / "short/curation.json").read_text())
    start, stop = record["trimmed"]["1"]
    [(_, whole), (_, long)] = scores_of(tmp_path / "labelled")
    [(_, first), (_, short)] = scores_of(tmp_path / "short")
    np.testing.assert_array_equal(first.log_prob_true, whole.log_prob_true)
    ends = long.prefix_length - 1
    left = (ends >= start) & (ends < stop)
    assert 3 <= left.sum() < len(ends)
    np.testing.assert_array_equal(short.prefix_length, long.prefix_length[left] - start)
    np.testing.assert_array_equal(short.log_prob_true, long.log_prob_true[left])
    np.testing.assert_array_equal(short.log_prob_false, long.log_prob_false[left])
    # LeRobot drops the sidecar, and the other episode.
    made = delete(tmp_path / "short", [0], tmp_path / "shorter")
    [(_, alone)] = scores_of(made.root)
    np.testing.assert_array_equal(alone.log_prob_true, short.log_prob_true)
    np.testing.assert_array_equal(alone.prefix_length, short.prefix_length)
    # A shorter episode is another video: it is scored, and so is the other one, in a new place.
    assert label(tmp_path / "short", tmp_path / "again") == 2


# Labelled again


@pytest.fixture
def source(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "dataset")


def replace_by(source: Path, made: LeRobotDataset) -> None:
    shutil.rmtree(source)
    shutil.move(made.root, source)


def shards(output: Path) -> set[str]:
    return {path.name for path in output.glob("topreward/*/episode_*.parquet")}


def test_labelled_again_after_episodes_were_deleted(
    source: Path, tmp_path: Path, label: Label, labelled: Path
) -> None:
    output = tmp_path / "labels"
    assert label(source, output) == 5
    assert label(source, output) == 0
    replace_by(source, delete(source, [1], tmp_path / "fewer"))
    shutil.rmtree(output / "data")  # what is labelled now is another dataset; its scores are kept
    for name in ("meta", "videos", SIDECAR_NAME):
        path = output / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert label(source, output) == 0
    assert_columns_kept(output, rows_of(labelled))
    replace_by(source, delete(source, [0, 2], tmp_path / "fewer"))
    assert label(source, output) == 0
    assert_scores_kept(output, labelled)
    assert frame_episodes(output) == [0, 1]


def test_labelled_again_in_another_order(
    source: Path, tmp_path: Path, label: Label, labelled: Path
) -> None:
    output = tmp_path / "labels"
    assert label(source, output) == 5
    first, second = split(source, tmp_path / "parts", a=[0, 1], b=[2, 3, 4])
    parts = [second.root, first.root]
    # Joined into one file, H.264 would have other bytes, and count as other videos.
    replace_by(source, merge(parts, tmp_path / "merged", concatenate_videos=False))
    assert label(source, output) == 0
    assert_columns_kept(output, rows_of(labelled))
    assert shards(output) == {f"episode_{number:06d}.parquet" for number in range(5)}


def test_labelled_again_after_pictures_were_encoded_anew(
    record_dataset: RecordDataset, tmp_path: Path, label: Label
) -> None:
    # Episodes that share a video file: LeRobot encodes those that are left once more.
    recorded = record_dataset(lengths=(9, 8, 7), cameras=("front",), size=(64, 64))
    source = shutil.copytree(recorded, tmp_path / "dataset")
    assert label(source, tmp_path / "labels") == 3
    replace_by(source, delete(source, [0], tmp_path / "fewer"))
    assert label(source, tmp_path / "labels") == 2


def record_one(root: Path, **values: np.ndarray) -> None:
    """Record one more episode of six frames with LeRobot's own API."""
    dataset = LeRobotDataset.resume(f"local/{root.name}", root=root)
    rng = np.random.default_rng(7)
    for _ in range(6):
        frame = {
            "observation.images.front": rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
            "observation.state": rng.normal(size=6).astype(np.float32),
            "action": rng.normal(size=6).astype(np.float32),
            "task": TASKS[0],
        }
        dataset.add_frame({**frame, **values})
    dataset.save_episode()
    dataset.finalize()


def test_recorded_into_the_source(
    source: Path, tmp_path: Path, label: Label, labelled: Path
) -> None:
    output = tmp_path / "labels"
    assert label(source, output) == 5
    record_one(source)
    assert label(source, output) == 1
    before = rows_of(labelled)
    after = rows_of(output)
    assert len(after) == 6
    for key, [rows] in before.items():
        for name in COLUMNS:
            assert after[key][0][name].combine_chunks() == rows[name].combine_chunks()


def test_recorded_into_the_labelled_copy(
    source: Path, tmp_path: Path, run: Run, tiny_vlm: Path, labelled: Path
) -> None:
    assert run("label", "--root", source, "--vlm", tiny_vlm)[0] == 0
    copy = tmp_path / "dataset_topreward"
    nothing = {name: np.zeros(1, dtype=feature["dtype"]) for name, feature in FEATURES.items()}
    record_one(copy, **nothing)
    advice = "record that into local/dataset and label local/dataset again: scores already there"
    judged = evaluated(run, labelled)
    for command in (
        ("evaluate",),
        ("report", "--videos", "none", "--output", tmp_path / "page.html"),
        ("curate", "--min-voc", "-1", "--unlabelled", "keep", "--episodes-file", tmp_path / "kept"),
    ):
        code, _, err = run(command[0], "--root", copy, *command[1:])
        assert code == 0, err
        assert len([line for line in err.splitlines() if advice in line]) == 1
    assert evaluated(run, copy) == judged
    code, _, err = run("label", "--root", copy, "--vlm", tiny_vlm)
    assert code == 2
    assert advice in err
    assert not copy.with_name("dataset_topreward_topreward").exists()
    found = open_source(repo_id=None, root=copy, revision=None)
    weighed = read_labels(found, episodes=None, config=WeightingConfig())
    assert weighed.labelled.tolist() == [True] * sum(LENGTHS) + [False] * 6
