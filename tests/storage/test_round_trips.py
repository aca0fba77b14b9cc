"""What LeRobot's own tools do to a labelled dataset, and what is left of its labels: all of it."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import dataset_tools as tools
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.rewards.sarm.rabc import RABCWeights

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.storage.columns import COLUMNS, FEATURES
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import read_labels

RecordDataset = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
Label = Callable[..., int]
Actions = bytes  # of an episode: no two recordings share them

LENGTHS = (14, 9, 16, 11, 8)
TASKS = ("pick up the cube", "open the drawer")


@pytest.fixture(scope="session")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=LENGTHS, tasks=TASKS, cameras=("front",), size=(64, 64), file_per_episode=True
    )


@pytest.fixture(scope="session")
def labelled(recorded: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes of two tasks, labelled by the command; a test may not change them."""
    output = tmp_path_factory.mktemp("round-trips") / "labelled"
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, ("--root", recorded, "--vlm", tiny_vlm, "--output", output))])
    assert stopped.value.code == 0
    return output


@pytest.fixture(scope="session")
def others(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Another dataset, labelled alike."""
    source = record_dataset(lengths=(7, 10), tasks=TASKS, cameras=("front",), size=(64, 64), seed=1)
    output = tmp_path_factory.mktemp("round-trips") / "others"
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, ("--root", source, "--vlm", tiny_vlm, "--output", output))])
    assert stopped.value.code == 0
    return output


@pytest.fixture
def copy(labelled: Path, tmp_path: Path) -> Path:
    """The labelled dataset, to be changed."""
    return shutil.copytree(labelled, tmp_path / "copy")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    return call


@pytest.fixture
def label(run: Run, tiny_vlm: Path) -> Label:
    """Label a dataset and return how many episodes went through the VLM."""

    def call(root: Path, output: Path) -> int:
        code, out, err = run("label", "--root", root, "--vlm", tiny_vlm, "--output", output)
        assert code == 0, err
        [line] = [line for line in out.splitlines() if line.startswith("of these scored now")]
        return int(line.split()[-1])

    return call


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
        (actions(table.filter(pa.array(index == one.segment.episode_index))), one)
        for one in dataset.scores
    ]


def assert_scores_kept(root: Path, before: Path, *also: Path, tasks: bool = True) -> None:
    """Compare the raw scores of every episode with those of the same recording, exactly."""
    known = {key: one for folder in (before, *also) for key, one in scores_of(folder)}
    found = scores_of(root)
    assert len(found) == len(frame_episodes(root))
    for key, one in found:
        for name in ("prefix_length", "frame_index", "log_prob_true", "log_prob_false"):
            np.testing.assert_array_equal(getattr(one, name), getattr(known[key], name))
        assert (one.segment.instruction == known[key].segment.instruction) == tasks


def frame_episodes(root: Path) -> list[int]:
    source = open_source(repo_id=None, root=root, revision=None)
    return np.unique(source.frames.episode_index).tolist()


def evaluated(run: Run, root: Path) -> list[tuple[float, float]]:
    """What evaluate makes of the raw scores of each episode."""
    code, out, err = run("evaluate", "--root", root, "--json")
    assert code == 0, err
    found = json.loads(out)["episodes"]
    return [(one["success_score"], one["log_odds"]) for one in found]


# Edits that keep everything


@dataclass(frozen=True, slots=True)
class Edit:
    """What LeRobot does to a labelled dataset."""

    name: str
    make: Callable[[Path, Path], Sequence[LeRobotDataset]]  # dataset, folder for new ones
    kept: tuple[tuple[int, ...], ...]  # of each dataset made, the old episodes in their new order
    without: tuple[str, ...] = ()


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


def _merged_again(root: Path, folder: Path) -> list[LeRobotDataset]:
    first, second = split(root, folder / "parts", a=[0, 1], b=[2, 3, 4])
    return [merge([second.root, first.root], folder / "merged")]


def _merged_with_a_part(root: Path, folder: Path) -> list[LeRobotDataset]:
    [part] = split(root, folder / "parts", a=[3])
    return [merge([root, part.root], folder / "merged")]


def _deleted_twice(root: Path, folder: Path) -> list[LeRobotDataset]:
    once = delete(root, [0], folder / "once")
    return [delete(once.root, [2], folder / "twice")]


def _added(root: Path, folder: Path) -> list[LeRobotDataset]:
    extra = (np.zeros(sum(LENGTHS), np.float32), {"dtype": "float32", "shape": (1,), "names": None})
    made = tools.add_features(
        load(root), {"extra": extra}, output_dir=folder / "added", repo_id="local/added"
    )
    return [made]


def _recomputed(root: Path, _: Path) -> list[LeRobotDataset]:
    return [tools.recompute_stats(load(root))]


def _reencoded(root: Path, _: Path) -> list[LeRobotDataset]:
    return [tools.reencode_dataset(load(root), rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=40))]


def _removed(name: str) -> Callable[[Path, Path], list[LeRobotDataset]]:
    return lambda root, folder: [remove(root, name, folder / "removed")]


ALL = tuple(range(len(LENGTHS)))
EDITS = [
    Edit("load", lambda root, _: [load(root)], (ALL,)),
    Edit("delete", lambda root, folder: [delete(root, [1], folder / "a")], ((0, 2, 3, 4),)),
    Edit("delete twice", _deleted_twice, ((1, 2, 4),)),
    Edit("split", lambda r, folder: split(r, folder, a=[0, 3], b=[1, 2, 4]), ((0, 3), (1, 2, 4))),
    Edit("split and merge", _merged_again, ((2, 3, 4, 0, 1),)),
    Edit("merge with its own part", _merged_with_a_part, ((0, 1, 2, 3, 4, 3),)),
    Edit("recompute statistics", _recomputed, (ALL,)),
    Edit("add a feature", _added, (ALL,)),
    Edit("remove another's feature", _removed("observation.state"), (ALL,)),
    Edit("remove progress", _removed("topreward.progress"), (ALL,), ("topreward.progress",)),
    Edit("remove advantage", _removed("topreward.advantage"), (ALL,), ("topreward.advantage",)),
    Edit("reencode videos", _reencoded, (ALL,)),
]
QUICK = {"delete", "split", "recompute statistics"}


@pytest.mark.parametrize(
    "edit",
    [pytest.param(e, id=e.name, marks=[pytest.mark.slow] * (e.name not in QUICK)) for e in EDITS],
)
def test_labels_outlive(edit: Edit, copy: Path, labelled: Path, tmp_path: Path, run: Run) -> None:
    before, judged = rows_of(labelled), evaluated(run, labelled)
    for made, kept in zip(edit.make(copy, tmp_path / "made"), edit.kept, strict=True):
        assert made.num_episodes == len(kept)
        assert_columns_kept(made.root, before, without=edit.without)
        assert_scores_kept(made.root, labelled)
        assert evaluated(run, made.root) == [judged[old] for old in kept]


@pytest.mark.slow
def test_columns_that_were_removed_are_made_of_the_raw_scores(
    labelled: Path, tmp_path: Path
) -> None:
    made = remove(labelled, "topreward.advantage", tmp_path / "removed")
    whole = open_labelled(repo_id=None, root=labelled, revision=None)
    found = open_labelled(repo_id=None, root=made.root, revision=None)
    np.testing.assert_array_equal(found.stored.progress, whole.stored.progress)
    np.testing.assert_array_equal(found.stored.advantage, whole.stored.advantage)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topreward.log_prob", "topreward.scored"])
def test_what_cannot_be_made_again_is_named(
    labelled: Path, tmp_path: Path, run: Run, name: str
) -> None:
    made = remove(labelled, name, tmp_path / "removed")
    code, _, err = run("evaluate", "--root", made.root)
    assert code == 2
    assert f"lacks the column {name}: it was removed" in err
    assert "label again, which takes seconds where the raw scores are kept" in err


@pytest.mark.slow
def test_datasets_labelled_alike_are_merged(
    labelled: Path, others: Path, tmp_path: Path, run: Run
) -> None:
    made = merge([others, labelled], tmp_path / "merged")
    assert_columns_kept(made.root, rows_of(labelled) | rows_of(others))
    assert_scores_kept(made.root, labelled, others)
    assert evaluated(run, made.root) == evaluated(run, others) + evaluated(run, labelled)


@pytest.mark.slow
def test_tasks_that_were_corrected_keep_their_old_scores(
    copy: Path, labelled: Path, run: Run
) -> None:
    corrected: dict[str, str] = dict.fromkeys(TASKS, "tidy up")
    tools.modify_tasks(load(copy), task_replacements=corrected)
    assert_columns_kept(copy, rows_of(labelled))
    assert_scores_kept(copy, labelled, tasks=False)
    code, _, err = run("evaluate", "--root", copy)
    assert code == 0
    [line] = [line for line in err.splitlines() if "was edited since it was labelled" in line]
    assert "they do not know of corrected tasks" in line


@pytest.mark.slow
def test_images_become_videos(
    record_dataset: RecordDataset, label: Label, tmp_path: Path, run: Run
) -> None:
    source = record_dataset(
        lengths=(9, 8), tasks=TASKS, cameras=("front",), size=(64, 64), video=False
    )
    root = tmp_path / "labelled"
    assert label(source, root) == 2
    made = tools.convert_image_to_video_dataset(
        load(root), output_dir=tmp_path / "videos", repo_id="local/videos"
    )
    assert_columns_kept(made.root, rows_of(root))
    assert_scores_kept(made.root, root)
    assert evaluated(run, made.root) == evaluated(run, root)


@pytest.mark.slow
def test_lerobots_command_in_place(
    copy: Path, labelled: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.scripts.lerobot_edit_dataset import main as edit

    options = ("--repo_id=local/copy", f"--root={copy}", f"--new_root={copy}")
    operation = ("--operation.type=delete_episodes", "--operation.episode_indices=[0,3]")
    monkeypatch.setattr(sys, "argv", ["lerobot-edit-dataset", *options, *operation])
    edit()
    assert not (copy / SIDECAR_NAME).exists()
    assert_columns_kept(copy, rows_of(labelled))
    judged = evaluated(run, labelled)
    assert evaluated(run, copy) == [judged[old] for old in (1, 2, 4)]


# Curated, then edited


@pytest.mark.slow
def test_curated_then_deleted(labelled: Path, tmp_path: Path, run: Run) -> None:
    rules = ("--keep-top", "0.6", "--output", tmp_path / "good")
    assert run("curate", "--root", labelled, *rules)[0] == 0
    record = json.loads((tmp_path / "good/curation.json").read_text())
    kept = [int(old) for old in record["kept"]]
    judged = evaluated(run, labelled)
    assert evaluated(run, tmp_path / "good") == [judged[old] for old in kept]
    made = delete(tmp_path / "good", [0], tmp_path / "fewer")
    assert_columns_kept(made.root, rows_of(labelled))
    assert_scores_kept(made.root, labelled)
    assert evaluated(run, made.root) == [judged[old] for old in kept[1:]]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("prefixes", ["every", pytest.param("15", marks=pytest.mark.slow)])
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# Used


@pytest.mark.slow
def test_training_reads_what_is_left(labelled: Path, tmp_path: Path) -> None:
    made = delete(labelled, [1], tmp_path / "fewer")
    labels = {}
    for name, root in (("before", labelled), ("after", made.root)):
        source = open_source(repo_id=None, root=root, revision=None)
        labels[name] = read_labels(source, episodes=None, config=WeightingConfig())
    kept = np.repeat([True, False, True, True, True], LENGTHS)
    assert labels["before"].prefix_end is not None
    for name in ("progress", "log_prob", "labelled", "prefix_end"):
        np.testing.assert_array_equal(
            getattr(labels["after"], name), getattr(labels["before"], name)[kept]
        )


def test_some_episodes_are_loaded(labelled: Path) -> None:
    dataset = load(labelled, episodes=[1, 3])
    before = pq.read_table(labelled / "data")
    assert len(dataset) == LENGTHS[1] + LENGTHS[3]
    for position in range(len(dataset)):
        item: Any = dataset[position]
        for name in COLUMNS:
            assert item[name].item() == before[name][int(item["index"])].as_py()


def test_lerobots_weights_read_the_sidecar(labelled: Path) -> None:
    progress = pq.read_table(labelled / "data")["topreward.progress"].to_numpy()
    weights = RABCWeights(labelled / SIDECAR_NAME, chunk_size=2, device=torch.device("cpu"))
    assert [weights.progress_lookup[index] for index in range(sum(LENGTHS))] == progress.tolist()


def test_a_stock_policy_takes_a_batch(labelled: Path) -> None:
    from lerobot.configs.types import PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.utils.feature_utils import dataset_to_policy_features

    times = {"action": [0.0, 0.1]}
    dataset = load(labelled, delta_timestamps=times)
    features: dict[str, PolicyFeature] = dataset_to_policy_features(dataset.meta.features)
    assert not [name for name in features if name.startswith("topreward")]
    config = ACTConfig(
        input_features={name: one for name, one in features.items() if name != "action"},
        output_features={"action": features["action"]},
        device="cpu",
        chunk_size=2,
        n_action_steps=2,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        use_vae=False,
        pretrained_backbone_weights=None,
    )
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=2)))  # pyright: ignore
    assert batch["topreward.scored"].tolist() == [True, False]
    loss, _ = ACTPolicy(config).forward(batch)
    assert torch.isfinite(loss)


def test_a_description_that_was_lost_is_said(copy: Path, run: Run) -> None:
    (copy / SIDECAR_NAME).unlink()
    path = copy / "meta/info.json"
    info = json.loads(path.read_text())
    del info["features"]["topreward.log_prob"]["info"]
    path.write_text(json.dumps(info))
    code, _, err = run("evaluate", "--root", copy)
    assert code == 2
    assert "info.json does not say how its scores were made" in err
    source = open_source(repo_id=None, root=copy, revision=None)
    weighed = read_labels(source, episodes=None, config=WeightingConfig())
    assert weighed.labelled.all()  # training needs no more than the columns


@pytest.mark.parametrize(
    "info",
    [
        [],
        {"scoring": []},
        {"scoring": {"vlm": 1}},
        {"horizon_frames": "x"},
        {"scale": "x"},
        {"normalize": {}},
        {"debias": None},
    ],
)
def test_a_description_is_input_from_a_stranger(copy: Path, info: Any) -> None:
    (copy / SIDECAR_NAME).unlink()
    path = copy / "meta/info.json"
    content = json.loads(path.read_text())
    feature = content["features"]["topreward.log_prob"]
    feature["info"] = info if isinstance(info, list) else {**feature["info"], **info}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"does not say how its (scores were|progress was) made"):
        open_labelled(repo_id=None, root=copy, revision=None)
