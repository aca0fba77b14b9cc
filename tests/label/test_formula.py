"""Debiasing by gray videos and by other tasks, and the formula that the evidence favors: by the CLI."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from vlm_passes import Passes

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main
from lerobot_topreward.data.schedule import sample_frames
from lerobot_topreward.judging.judgment import judge_labels
from lerobot_topreward.records import Segment
from lerobot_topreward.rewards import Formula
from lerobot_topreward.scoring.blank import GRAY, blank_clip
from lerobot_topreward.scoring.other_instructions import NEUTRAL
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, read_sidecar
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer

RecordDataset = Callable[..., Path]
TASKS = ("pick up the cube", "open the drawer", "fold the towel")
LENGTHS = (31, 18, 25, 44)


def run(*options: str | Path, command: str = "label") -> int:
    with pytest.raises(SystemExit) as stopped:
        main([command, *map(str, options)])
    return int(stopped.value.code or 0)


def reopen(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def progress(root: Path) -> np.ndarray:
    return read_sidecar(root / SIDECAR_NAME, fingerprint=None)[0].progress


def no_vlm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the VLM was loaded")

    monkeypatch.setattr(lerobot_topreward.vlm.loading, "load_vlm", refuse)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=LENGTHS, tasks=TASKS, cameras=("front",))


@pytest.fixture(scope="module")
def labelled(recorded: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("labels") / "out"
    assert run("--root", recorded, "--vlm", tiny_vlm, "--output", output, "--control", "all") == 0
    return output


@pytest.fixture
def output(labelled: Path, tmp_path: Path) -> Path:
    """Labels with every control scored, that a test may change."""
    return Path(shutil.copytree(labelled, tmp_path / "out"))


@pytest.fixture(scope="module")
def debiased(
    recorded: Path, labelled: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same, debiased by gray videos; a test may not change them."""
    output = Path(shutil.copytree(labelled, tmp_path_factory.mktemp("debiased") / "out"))
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    assert run(*options, "--debias", "blank") == 0
    return output


def test_log_odds_need_no_vlm(
    recorded: Path, tiny_vlm: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_vlm(monkeypatch)
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    assert run(*options, "--scale", "log-odds") == 0
    dataset = reopen(output)
    assert dataset.formula == Formula("log-odds")
    for part in dataset.scores:
        odds = part.log_prob_true.astype(np.float64) - part.log_prob_false
        rows = np.flatnonzero(dataset.stored.episode_index == part.segment.episode_index)
        expected = (odds - odds.min()) / np.ptp(odds)
        got = dataset.stored.progress[rows][part.prefix_length - 1]
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert run(*options, "--scale", "log-odds", "--debias", "static", "--normalize", "task") == 0
    dataset = reopen(output)
    assert dataset.formula == Formula("log-odds", "static")
    np.testing.assert_allclose(dataset.rewards().progress, progress(output), atol=1e-6)


def test_a_gray_video_costs_one_pass_per_instruction(
    recorded: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    passes = Passes(monkeypatch)
    output = tmp_path / "out"
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output, "--debias", "blank")
    assert run(*options) == 0
    assert passes.made[:3] == [(-1, (task,)) for task in sorted(TASKS)]
    assert len(passes.made) == 3 + len(LENGTHS)
    assert "one per instruction: 3 (the static control takes one per episode: 4)" in " ".join(
        capfd.readouterr().out.split()
    )
    made = len(passes.made)
    assert run(*options, "--horizon", "0.2") == 0
    assert len(passes.made) == made
    # One gray video is lost: one pass.
    dataset = reopen(output)
    files = sorted(dataset.store.folder.glob("blank_*.parquet"))
    assert len(files) == 3
    files[0].unlink()
    assert reopen(output).baselines == ()  # so what is stored is all there is
    assert run(*options) == 0
    assert len(passes.made) == made + 1
    assert reopen(output).formula == reopen(output).known_formula == Formula(debias="blank")


def test_each_prefix_takes_the_gray_video_of_as_many_images(
    recorded: Path, tiny_vlm: Path, output: Path
) -> None:
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    assert run(*options, "--debias", "blank", "--normalize", "task") == 0
    dataset = reopen(output)
    scorer = OnePassScorer(load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu", dtype="float32")))
    longest = {TASKS[0]: 44, TASKS[1]: 18, TASKS[2]: 25}  # episodes 0 and 3 share a task
    for part, gray in zip(dataset.scores, dataset.baselines, strict=True):
        assert (gray.segment, gray.control) == (part.segment, "blank")
        text = part.segment.instruction
        shape = dataset.source.meta.features["observation.images.front"]["shape"]
        clip = blank_clip(
            Segment(-1, 0, longest[text], text), dataset.key, fps=dataset.fps, size=shape[:2]
        )
        assert (clip.frames == GRAY).all()
        shown = sample_frames(part.segment.length, fps=dataset.fps)
        images = np.searchsorted(shown, part.prefix_length).clip(1)
        found = scorer.score(clip, sorted(set(images.tolist())), [text])
        expected = found.true[0][np.unique(images, return_inverse=True)[1]]
        np.testing.assert_allclose(gray.log_prob_true, expected, atol=1e-4)
    np.testing.assert_allclose(dataset.rewards().progress, progress(output), atol=1e-6)


def test_a_longer_episode_asks_for_a_gray_video_of_its_own(
    record_dataset: RecordDataset,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ("--vlm", tiny_vlm, "--output", tmp_path / "out", "--debias", "blank")
    short = record_dataset(lengths=(20, 30), tasks=TASKS[:1], cameras=("front",))
    assert run("--root", short, *options, "--episodes", "0:1") == 0
    passes = Passes(monkeypatch)
    # The gray video was made for the longest episode at once, whichever were labeled.
    assert run("--root", short, *options) == 0
    assert [episode for episode, _ in passes.made] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["values", "positive", "rows", "pipe", "text", "another"])
def test_a_strangers_gray_video_is_not_believed(
    damage: str,
    recorded: Path,
    tiny_vlm: Path,
    debiased: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = Path(shutil.copytree(debiased, tmp_path / "out"))
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output, "--debias", "blank")
    before = progress(output)
    first, second, *_ = sorted(reopen(output).store.folder.glob("blank_*.parquet"))
    table = pq.read_table(first)
    if damage in ("values", "positive"):
        value = np.nan if damage == "values" else 1.0
        column = table.column_names.index("log_prob_true")
        values = np.full(len(table), value, dtype=np.float32)
        table = table.set_column(column, table.schema.field("log_prob_true"), [values])
    if damage in ("values", "positive", "rows"):
        pq.write_table(table.slice(0, 3 if damage == "rows" else None), first)
    elif damage == "pipe":
        first.unlink()
        os.mkfifo(first)
    elif damage == "text":
        first.write_text("not a table")
    else:
        shutil.copy(second, first)  # another instruction's
    assert reopen(output).baselines == ()
    assert run("--root", output, command="evaluate") == 0
    passes = Passes(monkeypatch)
    if damage == "pipe":
        first.unlink()
    assert run(*options) == 0
    assert [episode for episode, _ in passes.made] == [-1]
    assert progress(output).tolist() == before.tolist()


def test_other_tasks_are_asked_in_the_same_pass(
    recorded: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    passes = Passes(monkeypatch)
    output = tmp_path / "out"
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    assert run(*options, "--debias", "contrast", "--normalize", "task") == 0
    assert "in the same pass: 2" in " ".join(capfd.readouterr().out.split())
    assert [episode for episode, _ in passes.made] == [0, 1, 2, 3]
    for _, asked in passes.made:
        assert sorted(asked) == sorted(TASKS)
    dataset = reopen(output)
    assert dataset.provenance["contrast"] == 3  # as asked for; there are two others
    assert [part.control for part in dataset.baselines] == ["contrast1"] * 4 + ["contrast2"] * 4
    np.testing.assert_allclose(dataset.rewards().progress, progress(output), atol=1e-6)
    for i, (part, curve) in enumerate(zip(dataset.scores, dataset.curves(), strict=True)):
        others = [dataset.baselines[i], dataset.baselines[4 + i]]
        mean = np.mean([other.log_prob_true for other in others], axis=0, dtype=np.float64)
        np.testing.assert_allclose(curve, part.log_prob_true - mean, atol=1e-6)
    header = pq.read_schema(dataset.store.path(0, "contrast1")).metadata[b"topreward"]
    (other,) = json.loads(header)["asked"]
    assert other in TASKS[1:]
    # Fewer others need no VLM, and are other labels.
    made = len(passes.made)
    both = progress(output)
    assert run(*options, "--debias", "contrast", "--contrast", "1", "--normalize", "task") == 0
    assert len(passes.made) == made
    assert np.abs(progress(output) - both).max() > 1e-3
    assert {part.control for part in reopen(output).baselines} == {"contrast1"}
    np.testing.assert_allclose(reopen(output).rewards().progress, progress(output), atol=1e-6)


def test_one_task_alone_is_contrasted_with_a_neutral_one(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root = record_dataset(lengths=(12, 9), tasks=TASKS[:1], cameras=("front",))
    output = tmp_path / "out"
    assert run("--root", root, "--vlm", tiny_vlm, "--output", output, "--debias", "contrast") == 0
    assert "in the same pass: 1" in " ".join(capfd.readouterr().out.split())
    dataset = reopen(output)
    assert dataset.known_formula == Formula(debias="contrast")
    header = pq.read_schema(dataset.store.path(1, "contrast1")).metadata[b"topreward"]
    assert json.loads(header)["asked"] == [NEUTRAL]
    options = ("--root", root, "--output", tmp_path / "other", "--debias", "contrast")
    assert run(*options, "--vlm", tiny_vlm, "--instruction", NEUTRAL) == 2
    assert "--debias contrast needs another task" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scale", "prob", "--debias", "blank"), "--debias blank subtracts log-probs"),
        (("--scale", "prob", "--debias", "contrast"), "leave out one of them"),
        (("--formula", "auto", "--scale", "log-odds"), "--formula auto chooses scale and debias"),
        (("--formula", "auto", "--debias", "static"), "leave out --scale log-prob and --debias"),
        (("--debias", "contrast", "--contrast", "4"), "--contrast must be 1..3; got 4"),
        (("--debias", "contrast", "--contrast", "0"), "--contrast must be 1..3; got 0"),
        (("--contrast", "2"), "--contrast 2 needs --debias contrast"),
        (("--success-file", "nothing.csv"), "nothing.csv"),
    ],
)
def test_wrong_combinations_are_said_before_a_vlm_is_loaded(
    options: tuple[str, ...],
    said: str,
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    no_vlm(monkeypatch)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    assert run("--root", recorded, "--output", output, *options) == 2
    assert said in " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert not output.exists()


def test_the_favored_formula_is_taken_and_says_why(
    recorded: Path,
    tiny_vlm: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    no_vlm(monkeypatch)
    assert run("--root", output, "--json", command="evaluate") == 0
    said = json.loads(capfd.readouterr().out)["formulas"]
    names = {(row["formula"]["scale"], row["formula"]["debias"]) for row in said["rows"]}
    assert len(said["rows"]) == len(names) == 9
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output, "--formula", "auto")
    assert run(*options) == 0
    assert "formula " in capfd.readouterr().out
    provenance = reopen(output).provenance
    assert provenance["formula"] == {"option": "auto", "why": said["sentence"]}
    favored = {"scale": provenance["scale"], "debias": provenance["debias"]}
    assert favored == said["favored"]
    # Named by hand, nobody chose.
    assert run(*options[:-2], "--scale", "log-odds") == 0
    assert "formula" not in reopen(output).provenance


def test_a_task_that_has_gone_is_not_asked_about(
    recorded: Path, record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    options = ("--vlm", tiny_vlm, "--output", tmp_path / "out", "--debias", "contrast")
    assert run("--root", recorded, *options) == 0
    store = reopen(tmp_path / "out").store
    assert store.path(0, "contrast2").exists()
    root = Path(shutil.copytree(recorded, tmp_path / "recorded"))
    tasks = root / "meta/tasks.parquet"
    table = pd.read_parquet(tasks)
    table.index = pd.Index([TASKS[0], TASKS[1], f"{TASKS[1]}."], name=table.index.name)
    table.to_parquet(tasks)
    assert run("--root", root, *options, "--normalize", "task") == 0
    dataset = reopen(tmp_path / "out")
    assert {part.control for part in dataset.baselines} == {"contrast1"}
    assert not store.path(0, "contrast2").exists()
    np.testing.assert_allclose(dataset.rewards().progress, progress(tmp_path / "out"), atol=1e-6)


def test_columns_alone_know_the_formula(recorded: Path, tiny_vlm: Path, output: Path) -> None:
    options = ("--root", recorded, "--vlm", tiny_vlm, "--output", output)
    for more in ("blank", "contrast"):
        assert run(*options, "--debias", more, "--scale", "log-odds", "--normalize", "task") == 0
        (output / SIDECAR_NAME).unlink()
        dataset = reopen(output)
        assert dataset.known_formula == Formula("log-odds", more)
        shutil.rmtree(dataset.store.folder)  # as on the Hub
        alone = reopen(output)
        assert (alone.formula, alone.known_formula) == (dataset.formula, Formula("log-odds"))
        assert alone.rewards().progress.tolist() == dataset.stored.progress.tolist()
        judgment = judge_labels(alone, controls={}, success=None)
        assert judgment.level == "usable with care" or "range" in judgment.reasons[0]
        assert "what is subtracted is not stored here" in judgment.evidence[-1].text
