"""The report: what its pictures show, what the command writes and what it refuses."""

import base64
import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from provenance import score_key
from report_pages import CAMERA, embedded

import lerobot_topreward.judging.kept_inspection
import lerobot_topreward.report.recording
from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source, segments
from lerobot_topreward.data.schedule import sample_frames
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.storage.store import Shard
from lerobot_topreward.storage.weights import TrainingWeights, write_weights

RecordDataset = Callable[..., Path]
Report = Callable[..., tuple[int, str, str]]

KEY = score_key(camera=CAMERA)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    """Four episodes, the second of two subtasks, the third of one frame, a file for each."""
    tasks = ("pick", ("reach", "lift"), "pick", "pour")
    return record_dataset(
        lengths=(24, 31, 1, 20), tasks=tasks, cameras=("front", "wrist"), file_per_episode=True
    )


def label(root: Path, output: Path, *, unlabelled: Sequence[int] = ()) -> Path:
    """Label with log-probabilities that rise, but for the last episode's."""
    source = open_source(repo_id=None, root=root, revision=None)
    table = source.frames
    rises = np.where(table.episode_index == 3, -4, -8 + 0.2 * table.frame_index)
    labelled = ~np.isin(table.episode_index, unlabelled)
    scored = np.zeros(len(table.index), dtype=bool)
    for parts in segments(source, range(4), instruction=None).values():
        assert isinstance(parts, list)
        for part in parts:
            first = table.rows(part.episode_index).start + part.start
            scored[first + sample_frames(part.length, fps=10)] = True
    values = np.where(labelled, rises, 0).astype(np.float32)
    rewards = FrameRewards(
        index=table.index,
        episode_index=table.episode_index,
        frame_index=table.frame_index,
        labelled=labelled,
        log_prob_true=values,
        log_prob_false=np.where(labelled, -1, 0).astype(np.float32),
        progress=values * 0,
        advantage=values * 0,
        scored=labelled & scored,
    )
    provenance = {"dataset": "local/cups", "scoring": KEY.to_json(), "normalize": "episode"}
    provenance |= {"scale": "log-prob", "horizon_frames": 10}
    fingerprint = source.fingerprints.dataset
    write_columns(root, rewards, output, fingerprint=fingerprint, provenance=provenance)
    return output


@pytest.fixture(scope="module")
def labelled(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four episodes with labels of all but the first."""
    return label(recorded, tmp_path_factory.mktemp("report") / "cups", unlabelled=[0])


@pytest.fixture
def report(labelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Report:
    """Run the command; its exit code, what it printed, and the page."""

    def run(*options: str, root: Path = labelled, output: str = "page.html") -> Any:
        path = tmp_path / output
        with pytest.raises(SystemExit) as stopped:
            main(["report", "--root", str(root), "--output", str(path), *options])
        printed = capfd.readouterr()
        text = path.read_text() if path.is_file() else ""
        return stopped.value.code, printed.out + printed.err, text

    return run


@pytest.mark.parametrize("way", ["strip", "none"])
def test_the_command_makes_a_page_of_a_labelled_dataset(
    report: Report, tmp_path: Path, way: str
) -> None:
    code, printed, text = report("--videos", way, "--title", "Cups")
    assert code == 0
    assert re.search(r"report  .*page\.html \(0\.\d MB, [\d.]+ s\)", printed)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    found = embedded(text)
    assert (found["title"], found["dataset"]) == ("Cups", "local/cups")
    assert found["columns"] == "scaled within each episode"
    assert [episode["index"] for episode in found["episodes"]] == [1, 2, 3]
    assert found["unlabelled"] == {"0": None}
    assert [part["instruction"] for part in found["episodes"][0]["parts"]] == ["reach", "lift"]
    assert found["episodes"][2]["metrics"]["voc"] is None
    assert set(found["rules"]) == {"min_final_progress", "max_idle", "drop_broken"}
    assert found["rules"]["min_final_progress"] == 0.8
    shown = [bool(pictures["strip"]) for pictures in found["media"].values()]
    assert shown == ([True] * 3 if way == "strip" else [])


def test_static_scores_of_the_store_are_drawn(report: Report, labelled: Path) -> None:
    dataset = open_labelled(repo_id=None, root=labelled, revision=None)
    fingerprints = dataset.source.fingerprints.episodes
    still = [part for part in dataset.scores if part.segment.episode_index == 1]
    still = [
        replace(part, control="static", log_prob_true=part.log_prob_true * 0 - 8) for part in still
    ]
    video = video_prints(dataset.source, camera=CAMERA, episodes=[1])[1]
    shard = Shard(tuple(part.segment for part in still), "static", fingerprints[1], video)
    dataset.store.write(shard, still)
    try:
        found = embedded(report("--videos", "none")[2])
    finally:
        shutil.rmtree(dataset.store.folder)
    assert [episode["static"] is None for episode in found["episodes"]] == [False, True, True]
    assert found["static_share"] == pytest.approx(0)
    [static] = [item for item in found["judgment"]["evidence"] if item["name"] == "static"]
    assert "the first frame repeated neither rises nor falls" in static["text"]


def test_rules_and_a_persons_word_are_kept_apart(report: Report, tmp_path: Path) -> None:
    _, _, text = report("--videos", "none", "--min-voc", "0.9", "--max-stall", "0.1")
    found = embedded(text)
    assert found["rules"] == {"min_voc": 0.9, "max_stall": 0.1, "drop_broken": 1}
    assert found["rule_texts"] == {
        "min_voc": "VOC at least 0.9",
        "max_stall": "no stall longer than 0.1 s",
        "drop_broken": "nothing broken in the recording",
    }
    without = embedded(report("--videos", "none", "--no-drop-broken", "--min-voc", "0.9")[2])
    assert without["rules"] == {"min_voc": 0.9}
    word = {"format": 1, "dataset": "x", "fingerprint": found["fingerprint"]}
    decided = tmp_path / "decisions.json"
    decided.write_text(json.dumps({**word, "decisions": {"2": "drop", "1": "keep"}}))
    again = embedded(report("--videos", "none", "--decisions", str(decided))[2])
    assert again["decisions"] == {"1": "keep", "2": "drop"}
    assert (
        again["episodes"][0]["drops"]
        == embedded(report("--videos", "none")[2])["episodes"][0]["drops"]
    )
    decided.write_text(json.dumps({**word, "fingerprint": "another", "decisions": {}}))
    code, printed, _ = report("--decisions", str(decided))
    assert code == 2
    assert "must be about this dataset" in printed


@pytest.fixture(scope="module")
def defective(record_dataset: RecordDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same episodes with labels of all but the first; a sensor has gaps in the first and the last."""
    force = np.sin(np.arange(76, dtype=np.float32))
    force[[3, 58, 59]] = np.nan
    root = record_dataset(
        lengths=(24, 31, 1, 20),
        tasks=("pick", ("reach", "lift"), "pick", "pour"),
        cameras=("front",),
        extra={"observation.force": force},
        file_per_episode=True,
    )
    return label(root, tmp_path_factory.mktemp("defective") / "cups", unlabelled=[0])


def test_what_the_recording_says_decides_as_in_curate(report: Report, defective: Path) -> None:
    options = ("--videos", "none", "--min-final-progress", "0")
    found = embedded(report(*options, root=defective)[2])
    [_, _, last] = found["episodes"]
    broken = [finding for finding in last["findings"] if finding["level"] == "broken"]
    assert [(finding["defect"], finding["frames"]) for finding in broken] == [
        ("not finite", [2, 3])
    ]
    assert last["drops"] == {"drop_broken": f"not finite: {broken[0]['text']}"}
    assert found["recording"]["reason"] is None
    assert found["recording"]["counts"]["broken"] == 2
    assert "not compared" in {finding["defect"] for finding in found["recording"]["findings"]}
    kept = embedded(report(*options, "--no-drop-broken", root=defective)[2])
    assert kept["episodes"][2]["drops"] == {}
    assert kept["episodes"][2]["findings"] == last["findings"]


def test_a_recording_that_cannot_be_inspected_costs_its_findings_only(
    report: Report, defective: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UserError("meta/episodes cannot be read")

    monkeypatch.setattr(lerobot_topreward.judging.kept_inspection, "open_recorded", refuse)
    code, printed, text = report("--videos", "none", root=defective)
    assert code == 0
    assert "recording not checked: meta/episodes cannot be read" in printed
    found = embedded(text)
    assert found["recording"]["reason"] == "meta/episodes cannot be read"
    assert found["rules"] == {"min_final_progress": 0.8}


def test_known_success_is_shown_with_its_origin(report: Report, tmp_path: Path) -> None:
    table = tmp_path / "success.csv"
    table.write_text("episode_index,success\n1,true\n3,false\n")
    found = embedded(report("--videos", "none", "--success-file", str(table))[2])
    assert [episode["success"] for episode in found["episodes"]] == [True, None, False]
    assert found["success_origin"] == f"--success-file {table}"
    assert found["success_auc"] in (0, 1)


def test_an_episode_without_video_is_told_and_shown(
    report: Report, labelled: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(labelled, tmp_path / "damaged")
    source = open_source(repo_id=None, root=root, revision=None)
    (root / source.meta.name_files(CAMERA)[3]).unlink()
    code, printed, text = report(root=root)
    assert code == 0
    assert "episode 3 has no pictures" in printed
    media = embedded(text)["media"]
    assert media["1"]["strip"]
    assert "missing" in media["3"]["reason"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "frint"], "Did you mean front?"),
        (["--videos", "inline"], "must be strip or none"),
        (["--max-mb", "0"], "--max-mb must be > 0"),
        (["--rerun", "x.mcap"], "--rerun must be named *.rrd"),
        (["--rerun", "nowhere/x.rrd", "--videos", "none"], "--rerun"),
    ],
)
def test_a_mistake_is_named_with_its_option(
    report: Report, options: list[str], message: str
) -> None:
    if "--rerun" in options and "nowhere" in options[1]:
        pytest.importorskip("rerun")
    code, printed, _ = report(*options)
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/page.html", "No such file or directory"),
        ("folder.html", "it is a folder"),
        ("page.txt", "must be named *.html"),
        ("file/page.html", "Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    report: Report, tmp_path: Path, output: str, message: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    code, printed, _ = report(output=output)
    assert code == 2
    assert message in printed
    assert "reading the pictures" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]


def test_a_page_of_before_stays_when_the_next_one_fails(report: Report, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("before")
    code, _, text = report("--camera", "frint")
    assert (code, text) == (2, "before")


def test_a_missing_rerun_says_how_to_get_it(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_topreward.report.recording, "find_spec", lambda _: None)
    code, printed, _ = report("--rerun", "x.rrd")
    assert code == 2
    assert "pip install 'lerobot-topreward[viz]'" in printed


def test_all_cameras_are_shown_where_that_is_asked_for(report: Report) -> None:
    code, _, text = report("--all-cameras")
    assert code == 0
    found = embedded(text)
    for episode in (1, 3):
        [other] = found["media"][str(episode)]["others"]
        assert other["camera"] == "observation.images.wrist"
        assert f'id="{other["strip"]["block"]}"' in text
    assert embedded(report()[2])["media"]["1"]["others"] == []


def test_the_command_of_the_page_names_the_dataset_as_a_shell_reads_it(
    report: Report, labelled: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(labelled, tmp_path / "my arm" / "cups")
    code, printed, text = report("--videos", "none", root=root)
    assert code == 0, printed
    found = embedded(text)
    words = shlex.split(found["command"])
    assert words == ["lerobot-topreward", "curate", "--root", str(root), "--unlabelled", "keep"]
    with pytest.raises(SystemExit) as stopped:
        main([*words[1:], "--min-final-progress", "0.8"])
    assert stopped.value.code == 0


def test_weights_of_training_are_drawn_and_are_a_number_of_each_episode(
    report: Report, labelled: Path, tmp_path: Path
) -> None:
    source = open_source(repo_id=None, root=labelled, revision=None)
    index = np.arange(24, 56)  # all of episode 1 and the frame of episode 2, none of episode 3
    weight = np.where(index < 34, 3, 0.1).astype(np.float32)
    path = tmp_path / "weights.parquet"
    stored = TrainingWeights(index, weight, "awr: <b>")
    write_weights(path, stored, fingerprint=source.fingerprints.dataset)
    code, printed, text = report("--videos", "none", "--weights", str(path))
    assert code == 0, printed
    found = embedded(text)
    assert found["weights"] == {"title": "awr: <b>", "high": 3}
    means = [episode["metrics"]["weight"] for episode in found["episodes"]]
    assert means == [pytest.approx(weight[:31].mean()), pytest.approx(0.1), None]
    assert found["metrics"][-1]["key"] == "weight"
    [block] = re.findall(r'id="weights-1">([^<]*)<', text)
    drawn = np.frombuffer(base64.b64decode(block), "<u2") / 65534 * 3
    np.testing.assert_allclose(drawn, weight[:31], atol=1e-4)
    assert embedded(report("--videos", "none")[2])["weights"] is None

    write_weights(path, stored, fingerprint="0" * 64)
    code, printed, _ = report("--weights", str(path))
    assert code == 2
    assert f"--weights {path} must belong to this dataset" in printed
    assert "lerobot-topreward train ... --dry-run" in printed


def test_commands_and_readings_are_in_the_page(report: Report) -> None:
    _, _, text = report("--videos", "none")
    signals = embedded(text)["signals"]
    assert len(signals["names"]) == len(signals["low"]) == len(signals["high"])
    assert all(f'id="signals-{episode}"' in text for episode in (1, 2, 3))
    assert embedded(report("--videos", "none", "--max-mb", "0.001")[2])["signals"] is None
