import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cups import contents, decisions, write_labels
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from rich.console import Console

from lerobot_topreward.curate.command import CurateConfig, curate
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.rules import RulesConfig

RecordDataset = Callable[..., Path]
Run = Callable[..., str]


@pytest.mark.parametrize(
    ("said", "changes", "expected"),
    [
        ({"9": "drop"}, {}, "names episode 9; the dataset has 0..4"),
        ({"0": "maybe"}, {}, "episode 0 must be keep or drop; got 'maybe'"),
        ({"0": None}, {}, "episode 0 must be keep or drop; got None"),
        ({"first": "drop"}, {}, "an episode must be a number; got 'first'"),
        ({"²": "drop"}, {}, "an episode must be a number; got '²'"),
        ({"1" * 5000: "drop"}, {}, "an episode must be a number; got '1111"),
        ([], {}, "must have decisions and a fingerprint"),
        ({}, {"notes": []}, "notes must be an object by episode"),
        ({}, {"notes": {"-1": {"text": "x"}}}, "a note must be of an episode; got '-1'"),
        ({}, {"notes": {"9": {"text": "x"}}}, "names episode 9; the dataset has 0..4"),
        ({}, {"notes": {"0": "slips"}}, "the note of episode 0 must have a text of one printable"),
        ({}, {"notes": {"0": {"text": "a\x1b[2Jb"}}}, "must have a text of one printable line"),
        ({}, {"notes": {"0": {"text": "a\nb"}}}, "must have a text of one printable line"),
        ({}, {"notes": {"0": {"text": "x" * 501}}}, "at most 500 characters"),
        ({}, {"notes": {"0": {"text": 7}}}, "must have a text of one printable line"),
        ({}, {"notes": {"0": {"tags": "grasp"}}}, "at most 20 tags"),
        ({}, {"notes": {"0": {"tags": ["x"] * 21}}}, "at most 20 tags"),
        ({}, {"notes": {"0": {"tags": ["x" * 41]}}}, "a tag of episode 0 must be 1..40 printable"),
        ({}, {"notes": {"0": {"tags": ["", "\u202e"]}}}, "a tag of episode 0 must be 1..40"),
        ({}, {"notes": {"0": {"tags": [{}]}}}, "a tag of episode 0 must be 1..40"),
        ({}, {"format": 2}, "must have format 1; got 2"),
        ({}, {"fingerprint": "f" * 64}, "must be about this dataset"),
        ({str(episode): "drop" for episode in range(5)}, {}, "every episode"),
    ],
)
def test_decisions_that_cannot_be_right(
    run: Run, dataset: Path, tmp_path: Path, said: Any, changes: dict, expected: str
):
    path = decisions(tmp_path / "decisions.json", dataset, said, **changes)
    refused = run("--root", dataset, "--decisions", path, "--output", tmp_path / "good", code=2)
    assert expected in refused
    assert not (tmp_path / "good").exists()


def test_decisions_that_are_no_json(run: Run, dataset: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("keep all")
    for name in ("notes.txt", "nowhere.json"):
        assert "must be a JSON file" in run(
            "--root", dataset, "--decisions", tmp_path / name, code=2
        )


def test_a_threshold_needs_known_success(run: Run, recorded: Path, dataset: Path, tmp_path: Path):
    unknown = write_labels(recorded, tmp_path / "cups")
    assert "--auto learns from which episodes succeeded" in run("--root", unknown, "--auto", code=2)
    success = tmp_path / "success.csv"
    success.write_text("episode_index,success\n0,true\n1,false\n2,true\n")
    few = run("--root", unknown, "--auto", "--success-file", success, code=2)
    assert "has 2 and 1 among the labeled episodes" in few
    success.write_text("episode_index,success\n0,perhaps\n")
    vague = run("--root", unknown, "--auto", "--success-file", success, code=2)
    assert "must be true or false" in vague


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--min-success", "-0.05"), "--min-success -0.05 alone drops 5 of 5. Choose a looser"),
        (("--output", "DATASET"), "must not lie within the dataset"),
        (("--output", "DATASET/good"), "must not lie within the dataset"),
        (("--output", "DATASET/.."), "must not lie within the dataset"),
        (("--output", "FILLED"), "is not empty: it holds notes.txt, which curate did not write"),
        (("--output", "FILLED/notes.txt"), "must be a folder; it is a file"),
        (("--output", "FILLED/notes.txt/good"), "is not a folder"),
        (("--episodes-file", "FILLED"), "cannot be written"),
        (("--trim",), "--trim works on the new dataset; name its folder with --output"),
        (("--trim-margin", "-1"), "--trim-margin must be at least 0 s"),
        (("--push-to-hub",), "--push-to-hub works on the new dataset"),
        (("--push-to-hub", "--output", "NEW"), "--push-to-hub needs --hub-repo-id"),
        (("--auto", "--min-success", "-1"), "--auto chooses --min-success"),
        (("--success-file", "nothing.csv"), "--success-file nothing.csv cannot be read"),
        (("--keep-top", "1.5"), "--keep-top must be in 0..1; got 1.5"),
    ],
)
def test_mistakes_end_with_one_message(
    run: Run, dataset: Path, tmp_path: Path, options: tuple[str, ...], expected: str
):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled/notes.txt").write_text("mine")
    places = {"DATASET": dataset, "FILLED": tmp_path / "filled", "NEW": tmp_path / "new"}
    before = contents(tmp_path), contents(dataset)
    named = [
        option
        if option.split("/")[0] not in places
        else str(places[option.split("/")[0]] / option.partition("/")[2])
        for option in options
    ]
    assert expected in run("--root", dataset, *named, code=2)
    assert (contents(tmp_path), contents(dataset)) == before


def test_an_unlabelled_dataset(run: Run, recorded: Path):
    about_labels = (("--min-voc", "0"), ("--auto",), ("--success-file", "x.csv"))
    for options in (*about_labels, ("--labels", recorded)):
        said = run("--root", recorded, *options, code=2)
        assert "lerobot-topreward label" in said
    assert "--min-voc judges by labels" in run("--root", recorded, "--min-voc", "0", code=2)


def test_a_dataset_that_lacks_a_video(run: Run, dataset: Path, tmp_path: Path):
    root = tmp_path / "cups"
    shutil.copytree(dataset, root)
    shutil.rmtree(root / "videos")
    outputs = ("--output", tmp_path / "good", "--episodes-file", tmp_path / "no.json")
    for options in (outputs, (*outputs, "--dry-run")):
        said = run("--root", root, *options, code=2)
        assert "file-000.mp4 is missing. Restore it, or use --episodes-file" in said
    assert not (tmp_path / "good").exists()
    assert not (tmp_path / "no.json").exists()
    run("--root", root, "--episodes-file", tmp_path / "kept.json")


@pytest.mark.slow
def test_another_curations_folder_is_refused(
    run: Run, dataset: Path, holding: Path, tmp_path: Path
):
    run("--root", dataset, "--output", tmp_path / "good")
    said = run("--root", holding, "--min-voc", "-1", "--output", tmp_path / "good", code=2)
    assert "it holds what was kept of local/cups" in said
    (tmp_path / "good/notes.txt").write_text("mine")
    said = run("--root", dataset, "--output", tmp_path / "good", code=2)
    assert "it holds notes.txt" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(run: Run, dataset: Path, tmp_path: Path):
    tmp_path.chmod(0o500)
    assert "is not writable" in run("--root", dataset, "--output", tmp_path / "good", code=2)


def test_two_runs_do_not_make_the_same_folder(dataset: Path, tmp_path: Path):
    from lerobot_topreward.files.atomic import output_lock

    config = CurateConfig(root=dataset, output=tmp_path / "good", rules=RulesConfig())
    with (
        output_lock(tmp_path / ".good.curate"),
        pytest.raises(UserError, match="in use by another run"),
    ):
        curate(config, console=Console(quiet=True))
    assert not (tmp_path / "good").exists()


@pytest.mark.slow
def test_a_single_episode_and_episodes_of_one_frame(
    run: Run, record_dataset: RecordDataset, tmp_path: Path
):
    one = write_labels(record_dataset(lengths=(9,)), tmp_path / "one", ends=(-0.1,))
    run("--root", one, "--output", tmp_path / "kept", "--trim", "--outliers", "3.5")
    assert LeRobotDataset("local/kept", root=tmp_path / "kept").num_frames == 9

    short = write_labels(
        record_dataset(lengths=(1, 28, 1)), tmp_path / "short", ends=(-4.9, -0.1, -0.2)
    )
    said = run("--root", short, "--min-voc", "0", "--trim", "--output", tmp_path / "all")
    assert "undefined, so it passes, in 2" in said
    made = LeRobotDataset("local/all", root=tmp_path / "all")
    assert made.meta.episodes is not None
    assert [made.meta.episodes[episode]["length"] for episode in (0, 2)] == [1, 1]
    run("--root", short, "--output", tmp_path / "two", "--min-final-progress", "0.8")
    assert LeRobotDataset("local/two", root=tmp_path / "two").num_frames == 29


@pytest.mark.slow
def test_an_episode_without_frames_goes(run: Run, recorded: Path, tmp_path: Path):
    root = tmp_path / "recorded"
    shutil.copytree(recorded, root)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    empty = {"episode_index": 5, "length": 0, "dataset_from_index": rows[4]["dataset_to_index"]}
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[4], **empty}], table.schema), path)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_episodes": 6}))
    source = write_labels(root, tmp_path / "cups")
    run("--root", source, "--output", tmp_path / "good", "--min-voc", "-1", "--trim")
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["dropped"] == {"5": ["no frames"]}
    assert LeRobotDataset("local/good", root=tmp_path / "good").num_episodes == 5
