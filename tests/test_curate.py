import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.configs.default import DatasetConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from rich.console import Console

import lerobot_topreward.curate.make
from lerobot_topreward.cli import main
from lerobot_topreward.curate.command import CurateConfig, curate
from lerobot_topreward.curate.rules import RulesConfig
from lerobot_topreward.dataset import write_columns
from lerobot_topreward.errors import UserError
from lerobot_topreward.fingerprints import dataset_fingerprint
from lerobot_topreward.labelled import LabelledDataset, open_labelled
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.sidecar import SIDECAR_NAME, read_sidecar
from lerobot_topreward.source import frame_table, open_source
from lerobot_topreward.store import ScoreKey
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import read_labels

RecordDataset = Callable[..., Path]
Run = Callable[..., str]

KEY = ScoreKey(
    vlm="a/vlm",
    vlm_revision="0" * 40,
    dtype="float32",
    quantize=None,
    engine="one-pass",
    prompt="",
    camera="observation.images.front",
    instruction=None,
    sample_fps=2.0,
    final_frame=True,
    prefixes=None,
    max_pixels=None,
)
ENDS = (-0.1, -4.0, -3.5, -0.2, -0.15)  # success scores: episodes 1 and 2 are bad
GOOD = [0, 3, 4]


def write_labels(
    root: Path, output: Path, *, ends: Sequence[float] = ENDS, unlabelled: Sequence[int] = ()
) -> Path:
    """Label a dataset with log-probabilities that soon rise from -5 to an end of their own."""
    source = open_source(repo_id=None, root=root, revision=None)
    table = frame_table(source)
    log_prob = np.zeros(len(table.index))
    for episode, end in enumerate(ends):
        rows = table.rows(episode)
        time = np.linspace(1, 0, rows.stop - rows.start)[::-1]
        log_prob[rows] = np.interp(time, [0, 0.3], [-5, end])
    labelled = ~np.isin(table.episode_index, unlabelled)
    values = np.where(labelled, log_prob, 0).astype(np.float32)
    rewards = FrameRewards(
        index=table.index,
        episode_index=table.episode_index,
        frame_index=table.frame_index,
        labelled=labelled,
        log_prob_true=values,
        log_prob_false=np.where(labelled, -1, 0).astype(np.float32),
        progress=np.exp(values) * labelled,
        advantage=values * 0,
    )
    provenance = {
        "dataset": "local/cups",
        "scoring": asdict(KEY),
        "normalize": "episode",
        "scale": "log-prob",
        "horizon_frames": 10,
    }
    fingerprint = dataset_fingerprint(source, table)
    write_columns(root, rewards, output, fingerprint=fingerprint, provenance=provenance)
    return output


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(
        lengths=(24, 21, 30, 22, 26), tasks=("stack the cups", "pour"), cameras=("front",)
    )


@pytest.fixture(scope="module")
def dataset(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five labelled episodes; meta/episodes knows which succeeded."""
    root = tmp_path_factory.mktemp("curate") / "cups"
    write_labels(recorded, root)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    success = pa.array([episode in GOOD for episode in table["episode_index"].to_pylist()])
    pq.write_table(table.append_column("success", success), path)
    return root


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return what it printed, which must be an exit code of 0."""

    def command(*options: str | Path, code: int = 0) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["curate", *map(str, options)])
        said = capfd.readouterr()
        assert stopped.value.code == code, said
        assert "Traceback" not in said.err
        return " ".join((said.out if code == 0 else said.err).split())

    return command


def labelled(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def frame(dataset: LeRobotDataset, index: int) -> dict[str, Any]:
    found: Any = dataset[index]
    return found


def contents(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_without_an_output_it_only_says_what_would_go(run: Run, dataset: Path):
    before = contents(dataset.parent)
    said = run("--root", dataset)
    assert contents(dataset.parent) == before
    assert "rules final progress at least 0.8" in said
    assert "2 episodes go" in said
    assert said.index("1 2.1 -4.00") < said.index("2 3.0 -3.50")  # the worst first
    assert "final progress 0.31 < 0.80" in said
    assert "3 of 5 0.1 of 0.2 all" in said
    assert "nothing was written" in said


def test_the_new_dataset_is_one_for_lerobot_and_for_training(
    run: Run, dataset: Path, recorded: Path, tmp_path: Path
):
    before, output = contents(dataset), tmp_path / "good"
    assert "3 episodes are now a dataset" in run("--root", dataset, "--output", output)
    assert contents(dataset) == before
    assert [path.name for path in tmp_path.iterdir()] == ["good"]

    made = LeRobotDataset("local/good", root=output)
    whole = LeRobotDataset("local/cups", root=dataset)
    assert (made.num_episodes, made.num_frames) == (3, 24 + 22 + 26)
    first = 0
    for old, length in zip(GOOD, (24, 22, 26), strict=True):
        assert whole.meta.episodes is not None
        start = whole.meta.episodes[old]["dataset_from_index"]
        for place in (0, length - 1):
            new, there = frame(made, first + place), frame(whole, start + place)
            image = "observation.images.front"
            assert float((new[image] - there[image]).abs().mean()) < 0.03  # encoded once more
            for name in ("observation.state", "action", "topreward.log_prob", "timestamp"):
                assert np.isfinite(np.asarray(new[name])).all()
                np.testing.assert_array_equal(new[name], there[name])
            assert new["task"] == there["task"]
        first += length
    assert made.meta.stats is not None
    assert {"topreward.progress", "topreward.labelled", "action"} <= set(made.meta.stats)
    assert made.meta.episodes is not None
    assert list(made.meta.episodes["success"]) == [True, True, True]

    source = open_source(repo_id=None, root=output, revision=None)
    table = frame_table(source)
    fingerprint = dataset_fingerprint(source, table)
    assert len(read_sidecar(output / SIDECAR_NAME, fingerprint=fingerprint).index) == 72
    config = WeightingConfig()
    weighed = read_labels(source, table, episodes=None, config=config)
    assert weighed.labelled.all()
    scores = {one.segment.episode_index: one for one in labelled(dataset).scores}
    for new, one in enumerate(labelled(output).scores):
        assert one.segment.episode_index == new
        np.testing.assert_array_equal(one.log_prob_true, scores[GOOD[new]].log_prob_true)

    record = json.loads((output / "curation.json").read_text())
    assert record["kept"] == {"0": 0, "3": 1, "4": 2}
    assert set(record["dropped"]) == {"1", "2"}
    assert record["source"]["fingerprint"] == labelled(dataset).fingerprint
    assert record["fingerprint"] == fingerprint
    assert record["rules"]["limits"] == {"min_final_progress": 0.8}


def test_the_same_again_changes_nothing_and_other_rules_replace(
    run: Run, dataset: Path, tmp_path: Path
):
    output = tmp_path / "good"
    run("--root", dataset, "--output", output)
    before = contents(output)
    assert "nothing changed" in run(
        "--root", dataset, "--output", output, "--min-final-progress", "0.8"
    )
    assert contents(output) == before
    run("--root", dataset, "--output", output, "--keep-top", "0.4")
    assert LeRobotDataset("local/good", root=output).num_episodes == 3
    run("--root", dataset, "--output", output, "--min-success", "-0.4", "--min-voc", "0")
    assert list(json.loads((output / "curation.json").read_text())["kept"]) == ["0", "3", "4"]
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_what_was_curated_stays_as_it_is_under_the_same_rules(
    run: Run, dataset: Path, tmp_path: Path
):
    rules = ("--keep-top", "0.5")
    run("--root", dataset, "--output", tmp_path / "once", *rules)
    said = run("--root", tmp_path / "once", *rules)
    assert "already curated by these rules" in said
    run("--root", tmp_path / "once", *rules, "--output", tmp_path / "twice")
    once, twice = labelled(tmp_path / "once"), labelled(tmp_path / "twice")
    assert once.fingerprint == twice.fingerprint
    assert len(twice.provenance["curated"]) == 2
    # Other rules are judged anew, by what is left.
    assert "already" not in run("--root", tmp_path / "once", "--keep-top", "0.6")


def test_an_interruption_leaves_nothing_half_made(
    run: Run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "good"
    with monkeypatch.context() as patched:
        patched.setattr(lerobot_topreward.curate.make, "write_sidecar", stop)
        run("--root", dataset, "--output", output, code=130)
    assert list(tmp_path.iterdir()) == []
    # One that was killed could not even clear up.
    (tmp_path / ".good.curate" / "draft" / "meta").mkdir(parents=True)
    run("--root", dataset, "--output", output)
    assert labelled(output).episodes == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_the_list_of_episodes_is_what_lerobot_takes(run: Run, dataset: Path, tmp_path: Path):
    path = tmp_path / "lists" / "kept.json"
    said = run("--root", dataset, "--episodes-file", path)
    assert f'--dataset.episodes="$(cat {path})"' in said
    text = path.read_text().strip()
    config = draccus.parse(DatasetConfig, args=["--repo_id=a/b", f"--episodes={text}"])
    assert config.episodes == GOOD


def test_videos_are_shared_where_nothing_is_dropped(run: Run, dataset: Path, tmp_path: Path):
    run("--root", dataset, "--output", tmp_path / "all", "--min-voc", "-1")
    video = "videos/observation.images.front/chunk-000/file-000.mp4"
    assert os.path.samefile(tmp_path / "all" / video, dataset / video)
    assert LeRobotDataset("local/all", root=tmp_path / "all").num_episodes == 5


@pytest.mark.slow
@pytest.mark.parametrize("video", [False, True])
def test_files_of_an_episode_each_and_images_in_the_data(
    run: Run, record_dataset: RecordDataset, tmp_path: Path, video: bool
):
    root = record_dataset(
        lengths=(22, 21, 23), cameras=("front", "wrist"), video=video, file_per_episode=video
    )
    source = write_labels(root, tmp_path / "source", ends=(-0.1, -4, -0.1))
    run("--root", source, "--output", tmp_path / "good")
    made = LeRobotDataset("local/good", root=tmp_path / "good")
    whole = LeRobotDataset("local/source", root=source)
    assert made.num_frames == 45
    last, there = frame(made, 44), frame(whole, 65)
    for camera in ("observation.images.front", "observation.images.wrist"):
        np.testing.assert_array_equal(last[camera], there[camera])


def decisions(path: Path, dataset: Path, said: Any, **changes: Any) -> Path:
    content = {
        "format": 1,
        "dataset": "local/cups",
        "fingerprint": labelled(dataset).fingerprint,
        "decisions": said,
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_a_persons_decisions_win(run: Run, dataset: Path, tmp_path: Path):
    path = decisions(tmp_path / "decisions.json", dataset, {"0": "drop", "1": "keep"})
    said = run("--root", dataset, "--decisions", path, "--output", tmp_path / "good")
    assert "decided by a person" in said
    assert "drops 1, and keeps 1 that a rule drops" in said
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert list(record["kept"]) == ["1", "3", "4"]
    assert "already curated" in run("--root", tmp_path / "good", "--decisions", path)
    assert "must be about this dataset" in run(
        *("--root", tmp_path / "good", "--decisions", path, "--keep-top", "1"), code=2
    )


@pytest.mark.parametrize(
    ("said", "changes", "expected"),
    [
        ({"9": "drop"}, {}, "speaks of episode 9; the dataset has 0..4"),
        ({"0": "maybe"}, {}, "episode 0 must be keep or drop; got 'maybe'"),
        ({"0": None}, {}, "episode 0 must be keep or drop; got None"),
        ({"first": "drop"}, {}, "an episode must be a number; got 'first'"),
        ([], {}, "must have decisions and a fingerprint"),
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


def test_a_threshold_learnt_from_success(run: Run, dataset: Path, tmp_path: Path):
    said = run("--root", dataset, "--auto", "--output", tmp_path / "good")
    assert "chosen automatically, by the column success of meta/episodes of 5 episodes" in said
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["rules"]["limits"] == {"min_success": "auto"}
    assert -3.5 < record["threshold"] < -0.2
    assert list(record["kept"]) == ["0", "3", "4"]
    assert "already curated" in run("--root", tmp_path / "good", "--auto")
    success = tmp_path / "success.csv"
    success.write_text("episode_index,success\n0,false\n1,true\n2,false\n3,true\n")
    said = run("--root", dataset, "--auto", "--success-file", success)
    assert f"by --success-file {success} of 4 episodes" in said


def test_a_threshold_needs_known_success(run: Run, recorded: Path, dataset: Path, tmp_path: Path):
    unknown = write_labels(recorded, tmp_path / "cups")
    assert "--auto learns from which episodes succeeded" in run("--root", unknown, "--auto", code=2)
    success = tmp_path / "success.csv"
    success.write_text("episode_index,success\n0,true\n1,false\n2,true\n")
    few = run("--root", unknown, "--auto", "--success-file", success, code=2)
    assert "has 2 and 1 among the labelled episodes" in few
    success.write_text("episode_index,success\n0,perhaps\n")
    vague = run("--root", unknown, "--auto", "--success-file", success, code=2)
    assert "must be true or false" in vague


@pytest.mark.slow
def test_episodes_without_labels_stay_unless_told_otherwise(
    run: Run, recorded: Path, tmp_path: Path
):
    source = write_labels(recorded, tmp_path / "cups", unlabelled=(3, 4))
    assert "2 episodes, 2 stay (--unlabelled drop" in run("--root", source)
    said = run("--root", source, "--unlabelled", "drop", "--output", tmp_path / "good")
    assert "2 episodes, 0 stay" in said
    record = json.loads((tmp_path / "good/curation.json").read_text())
    assert record["dropped"]["3"] == ["not labelled"]
    assert list(record["kept"]) == ["0", "1"]
    run("--root", source, "--output", tmp_path / "more")
    assert labelled(tmp_path / "more").episodes == [0, 1]
    assert LeRobotDataset("local/more", root=tmp_path / "more").num_episodes == 4


def test_labels_that_lie_beside_the_dataset(
    run: Run, dataset: Path, recorded: Path, tmp_path: Path
):
    (tmp_path / "labels").mkdir()
    shutil.copyfile(dataset / SIDECAR_NAME, tmp_path / "labels" / SIDECAR_NAME)
    run("--root", recorded, "--labels", tmp_path / "labels", "--output", tmp_path / "good")
    made = labelled(tmp_path / "good")
    assert not [name for name in made.source.meta.features if name.startswith("topreward")]
    weighed = read_labels(made.source, made.frames, episodes=None, config=WeightingConfig())
    assert weighed.labelled.all()


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


def test_rules_in_a_preset(run: Run, dataset: Path, tmp_path: Path):
    path = decisions(tmp_path / "decisions.json", dataset, {"4": "drop"})
    preset = tmp_path / "strict.yaml"
    preset.write_text(f"curate:\n  min-success: -0.18\n  decisions: {path}\n  trim-margin: 1\n")
    said = run("--root", dataset, "--config", preset)
    assert "success score at least -0.18 nats; a person's decisions" in said
    assert "1 of 5" in said
    preset.write_text("curate:\n  min_succes: -1\n")
    assert "did you mean min_success?" in run("--root", dataset, "--config", preset, code=2)


def test_rules_that_drop_much_are_warned_of(run: Run, dataset: Path):
    said = run("--root", dataset, "--min-success", "-0.12")
    assert "warning: --min-success drops 4 of 5 episodes, more than half" in said
    assert "warning: nothing remains of the task 'pour'" in said


def test_a_task_that_never_succeeds_is_warned_of(run: Run, recorded: Path, tmp_path: Path):
    source = write_labels(recorded, tmp_path / "cups", ends=(-0.1, -3, -0.1, -4, -0.1))
    said = run("--root", source)
    assert "warning: in no episode of 'pour' does the VLM find success likelier than not" in said
    assert "of 'stack the cups'" not in said


def hold(root: Path, episode: int, *, head: int, tail: int) -> None:
    """Let state and action stand still at the ends of an episode."""
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    [rows] = np.nonzero(table["episode_index"].to_numpy() == episode)
    for name in ("observation.state", "action"):
        values = np.array(table[name].to_pylist(), dtype=np.float32)
        values[rows] = np.cumsum(values[rows] * 0 + 1, axis=0)
        values[rows[: head + 1]] = values[rows[0]]
        values[rows[len(rows) - tail - 1 :]] = values[rows[-1]]
        place = table.column_names.index(name)
        column = pa.array(values.tolist(), table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), column)
    pq.write_table(table, path)


@pytest.fixture
def holding(record_dataset: RecordDataset, tmp_path: Path) -> Path:
    """Two episodes of 40 frames at 10 Hz; the second stands still in 12 and 13 at its ends."""
    root = tmp_path / "recorded"
    shutil.copytree(record_dataset(lengths=(40, 40), cameras=("front",)), root)
    hold(root, 0, head=0, tail=0)
    hold(root, 1, head=12, tail=13)
    source = write_labels(root, tmp_path / "source", ends=(-5, -5))
    return source


def test_what_stands_still_is_trimmed_without_touching_a_video(
    run: Run, holding: Path, tmp_path: Path
):
    before = contents(holding)
    options = ("--min-voc", "-1", "--trim", "--output", tmp_path / "short")
    said = run("--root", holding, *options, "--trim-margin", "0.3")
    # Movement in frames 13..25, with the margin 10..28; the VLM's own scores are at 10 and 30.
    assert "trimmed: 1 of 2 episodes, 1.9 s in all" in said
    assert contents(holding) == before
    record = json.loads((tmp_path / "short/curation.json").read_text())
    assert record["trimmed"] == {"1": [10, 31]}

    made = LeRobotDataset("local/short", root=tmp_path / "short")
    whole = LeRobotDataset("local/source", root=holding)
    assert (made.num_frames, made.meta.total_frames) == (61, 61)
    for new in range(61):
        ours, theirs = frame(made, new), frame(whole, new if new < 40 else new + 10)
        for name in ("observation.images.front", "observation.state", "topreward.log_prob"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert int(ours["index"]) == new
        assert float(ours["timestamp"]) == pytest.approx((new % 40) / 10, abs=1e-6)
    assert made.meta.episodes is not None
    assert list(made.meta.episodes["length"]) == [40, 21]
    assert made.meta.stats is not None
    held = np.array([frame(made, i)["action"] for i in range(61)])
    np.testing.assert_allclose(made.meta.stats["action"]["mean"], held.mean(axis=0), rtol=1e-5)

    short, long = labelled(tmp_path / "short"), labelled(holding)
    wanted = {
        int(f): v
        for f, v in zip(long.scores[1].frame_index, long.scores[1].log_prob_true, strict=True)
    }
    found = {
        int(f) + 10: v
        for f, v in zip(short.scores[1].frame_index, short.scores[1].log_prob_true, strict=True)
    }
    assert found == {end: wanted[end] for end in (10, 15, 20, 25, 30)}

    again = ("--min-voc", "-1", "--trim", "--trim-margin", "0.3")
    assert "trimmed: 0" not in run(
        "--root", tmp_path / "short", *again, "--output", tmp_path / "same"
    )
    assert labelled(tmp_path / "same").fingerprint == short.fingerprint


@pytest.mark.slow
def test_trimming_and_dropping_together(run: Run, holding: Path, tmp_path: Path):
    path = decisions(tmp_path / "decisions.json", holding, {"0": "drop"})
    options = ("--min-voc", "-1", "--decisions", path, "--trim", "--trim-margin", "0.3")
    run("--root", holding, *options, "--output", tmp_path / "short")
    made = LeRobotDataset("local/short", root=tmp_path / "short")
    whole = LeRobotDataset("local/source", root=holding)
    assert made.num_frames == 21
    image = "observation.images.front"
    difference = np.asarray(frame(made, 20)[image]) - np.asarray(frame(whole, 40 + 30)[image])
    assert np.abs(difference).mean() < 0.03
    # A trimmed dataset can be edited further by LeRobot.
    run("--root", tmp_path / "short", "--keep-top", "1", "--output", tmp_path / "copy")


def test_an_outcome_is_never_trimmed(run: Run, holding: Path, tmp_path: Path):
    root = tmp_path / "outcome"
    shutil.copytree(holding, root)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    done = [index in (39, 79) for index in range(80)]
    table = table.append_column("next.done", pa.array(done))
    described = json.loads((table.schema.metadata or {})[b"huggingface"])
    described["info"]["features"]["next.done"] = {"dtype": "bool", "_type": "Value"}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    options = ("--min-voc", "-1", "--trim", "--trim-margin", "0.3")
    run("--root", root, *options, "--output", tmp_path / "short")
    record = json.loads((tmp_path / "short/curation.json").read_text())
    assert record["trimmed"] == {"1": [10, 40]}


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
    run("--root", short, "--output", tmp_path / "two")
    assert LeRobotDataset("local/two", root=tmp_path / "two").num_frames == 29


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
        (("--success-file", "x.csv"), "--success-file is what --auto learns from"),
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
    said = run("--root", recorded, code=2)
    assert "is not labelled" in said
    assert "lerobot-topreward label" in said


def test_a_dataset_that_lacks_a_video(run: Run, dataset: Path, tmp_path: Path):
    root = tmp_path / "cups"
    shutil.copytree(dataset, root)
    shutil.rmtree(root / "videos")
    said = run("--root", root, "--output", tmp_path / "good", code=2)
    assert "file-000.mp4 is missing. Restore it, or use --episodes-file" in said
    assert not (tmp_path / "good").exists()
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
    from lerobot_topreward.store import output_lock

    config = CurateConfig(root=dataset, output=tmp_path / "good", rules=RulesConfig())
    with (
        output_lock(tmp_path / ".good.curate"),
        pytest.raises(UserError, match="in use by another run"),
    ):
        curate(config, console=Console(quiet=True))
    assert not (tmp_path / "good").exists()
