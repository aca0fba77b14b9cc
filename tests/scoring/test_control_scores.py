import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, PrefixScores
from lerobot_topreward.scoring.control_scores import (
    ControlScores,
    choose_swapped,
    read_controls,
    sample_episodes,
    score_controls,
)
from lerobot_topreward.scoring.rescoring import list_labelled_shards
from lerobot_topreward.scoring.scorer import (
    CONTROLS,
    reversed_control,
    score_clip,
    static_control,
)
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

RecordDataset = Callable[..., Path]

TASKS = ("pick up the cube", "open the drawer")
QUIET = Console(quiet=True)


def label(root: Path, vlm: Path, output: Path, *options: str) -> Path:
    with pytest.raises(SystemExit) as stopped:
        main(["label", "--root", str(root), "--vlm", str(vlm), "--output", str(output), *options])
    assert stopped.value.code == 0
    return output


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(31, 18, 25, 12), tasks=TASKS, cameras=("front",))


@pytest.fixture(scope="module")
def labelled(recorded: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label(recorded, tiny_vlm, tmp_path_factory.mktemp("labels") / "dataset")


@pytest.fixture
def dataset(labelled: Path, tmp_path: Path) -> LabelledDataset:
    """A labelled dataset that a test may score controls of."""
    return reopen(Path(shutil.copytree(labelled, tmp_path / "dataset")))


@pytest.fixture(scope="module")
def vlm(tiny_vlm: Path) -> Vlm:
    return load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu"))


def reopen(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def score(
    dataset: LabelledDataset,
    vlm: Path | None,
    *,
    controls: Sequence[str] = CONTROLS,
    episodes: Sequence[int] | None = None,
    swapped: str | None = None,
    output: Path | None = None,
    **options: Any,
) -> ControlScores:
    given = VlmConfig(vlm=str(vlm), **options) if vlm is not None else VlmConfig(**options)
    return score_controls(
        dataset,
        controls=controls,
        episodes=dataset.episodes if episodes is None else episodes,
        vlm=given,
        swapped_instruction=swapped,
        output=output,
        console=QUIET,
    )


def refuse(*_: object) -> None:
    raise AssertionError("the VLM was loaded")


def clip_of(dataset: LabelledDataset, scores: PrefixScores) -> Clip:
    return read_clip(
        dataset.source,
        camera=dataset.key.camera,
        segment=scores.segment,
        sample_fps=dataset.key.sample_fps,
        final_frame=dataset.key.final_frame,
    )


def test_controls_are_exact(dataset: LabelledDataset, tiny_vlm: Path, vlm: Vlm) -> None:
    found = score(dataset, tiny_vlm)
    assert found.failed == {}
    assert found.reasons == {}
    assert found.scored == 4
    assert found.real == dataset.scores
    oracle = PerPrefixScorer(vlm)
    for control, scores in found.controls.items():
        assert [one.segment for one in scores] == [one.segment for one in dataset.scores]
        for one, real in zip(scores, dataset.scores, strict=True):
            clip = clip_of(dataset, one)
            images = len(clip.shown)
            order = {"static": [0] * images, "reversed": list(range(images))[::-1]}
            # Shown as a video of its own, at the times of the true one.
            shown = order.get(control, list(range(images)))
            video = replace(clip, frames=clip.frames[shown], shown=np.arange(images))
            other = TASKS[1 - TASKS.index(one.segment.instruction)]
            text = other if control == "swapped" else one.segment.instruction
            exact = oracle.score(video, range(1, images + 1), [text])
            np.testing.assert_allclose(one.log_prob_true, exact.true[0], atol=1e-4, rtol=0)
            np.testing.assert_allclose(one.log_prob_false, exact.false[0], atol=1e-4, rtol=0)
            assert one.control == control
            assert one.prefix_length.tolist() == real.prefix_length.tolist()
            assert one.frame_index.tolist() == real.frame_index.tolist()
    real = [one.log_prob_true for one in dataset.scores]
    for scores in found.controls.values():
        assert any(
            np.abs(one.log_prob_true - own).max() > 0.01
            for one, own in zip(scores, real, strict=True)
        )


class Counting:
    """Counts the passes and what each of them asks."""

    def __init__(self, scorer: OnePassScorer) -> None:
        self.scorer = scorer
        self.passes: list[tuple[str, ...]] = []

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> Any:
        self.passes.append(tuple(instructions))
        return self.scorer.score(clip, prefixes, instructions)


def test_two_instructions_of_one_video_cost_one_pass(dataset: LabelledDataset, vlm: Vlm) -> None:
    real = dataset.scores[0]
    clip = clip_of(dataset, real)
    counting = Counting(OnePassScorer(vlm))
    controls = ("swapped", "static", "none", "reversed")
    found = score_clip(clip, counting, controls, None, swapped=TASKS[1])
    assert counting.passes == [(TASKS[1], TASKS[0]), (TASKS[0],), (TASKS[0],)]
    assert [one.control for one in found] == list(controls)
    np.testing.assert_allclose(found[2].log_prob_true, real.log_prob_true, atol=1e-4, rtol=0)
    alone = OnePassScorer(vlm).score(clip, range(1, len(clip.shown) + 1), [TASKS[1]])
    np.testing.assert_allclose(found[0].log_prob_true, alone.true[0], atol=1e-4, rtol=0)


def test_controls_change_only_which_image_is_shown(dataset: LabelledDataset) -> None:
    clip = clip_of(dataset, dataset.scores[0])
    last = len(clip.frames) - 1
    assert reversed_control(clip).shown.tolist() == list(range(last, -1, -1))
    assert static_control(clip).shown.tolist() == [0] * (last + 1)
    for other in (reversed_control(clip), static_control(clip)):
        assert other.frame_indices is clip.frame_indices
        assert other.frames is clip.frames


def test_a_second_run_asks_no_vlm(
    dataset: LabelledDataset, tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = score(dataset, tiny_vlm, episodes=(0, 2))
    assert (first.scored, sorted(first.controls)) == (2, sorted(CONTROLS))
    monkeypatch.setattr(lerobot_topreward.vlm.loading, "load_vlm", refuse)
    again = score(reopen(dataset.source.root), tiny_vlm, episodes=(0, 2))
    assert again.scored == 0
    for control in CONTROLS:
        for one, before in zip(again.controls[control], first.controls[control], strict=True):
            assert one.log_prob_true.tolist() == before.log_prob_true.tolist()
    stored = read_controls(dataset)
    assert {control: len(scores) for control, scores in stored.items()} == dict.fromkeys(
        CONTROLS, 2
    )
    with pytest.raises(AssertionError, match="loaded"):
        score(dataset, tiny_vlm, episodes=(0, 1))


def test_only_what_is_missing_is_scored(dataset: LabelledDataset, tiny_vlm: Path) -> None:
    score(dataset, tiny_vlm, controls=["static"], episodes=[0, 1])
    shards = {path: path.stat().st_mtime_ns for path in dataset.store.folder.glob("*.static.*")}
    assert len(shards) == 2
    assert read_controls(dataset).keys() == {"static"}
    assert score(dataset, tiny_vlm, controls=["static", "reversed"]).scored == 4
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    assert len(list(dataset.store.folder.glob("*.reversed.parquet"))) == 4


def test_another_swapped_instruction_is_not_taken_for_it(
    dataset: LabelledDataset, tiny_vlm: Path
) -> None:
    swap = ["swapped"]
    (own,) = score(dataset, tiny_vlm, controls=swap, episodes=[0]).controls["swapped"]
    shard = dataset.store.path(0, "swapped")
    header = json.loads(pq.read_schema(shard).metadata[b"topreward"])
    assert header["asked"] == ["open the drawer"]
    found = score(dataset, tiny_vlm, controls=swap, episodes=[0], swapped="fold the towel")
    assert found.scored == 1
    assert json.loads(pq.read_schema(shard).metadata[b"topreward"])["asked"] == ["fold the towel"]
    assert found.controls["swapped"][0].log_prob_true.tolist() != own.log_prob_true.tolist()
    for text, fits in (("open the drawer", False), ("fold the towel", True)):
        (wanted,) = list_labelled_shards(dataset, [0], swap, swapped={TASKS[0]: text})
        assert (dataset.store.read(wanted) is not None) == fits
    (kept,) = read_controls(dataset)["swapped"]
    assert kept.log_prob_true.tolist() == found.controls["swapped"][0].log_prob_true.tolist()


def test_one_instruction_alone_cannot_be_swapped(
    recorded: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    output = label(recorded, tiny_vlm, tmp_path / "one", "--instruction", "tidy up")
    dataset = reopen(output)
    found = score(dataset, tiny_vlm, controls=["swapped", "static"], episodes=[3])
    assert "--swapped-instruction TEXT" in found.reasons["swapped"]
    assert found.controls.keys() == {"static"}
    given = score(dataset, tiny_vlm, controls=["swapped"], episodes=[3], swapped="fold the towel")
    assert given.reasons == {}
    assert len(given.controls["swapped"]) == 1
    with pytest.raises(UserError, match=r"'Tidy  up\.' is what every episode was asked"):
        score(dataset, tiny_vlm, controls=["swapped"], swapped="Tidy  up.")


def test_choose_swapped_are_those_of_other_episodes(dataset: LabelledDataset) -> None:
    assert choose_swapped(dataset, given=None) == {
        TASKS[0]: TASKS[1],
        TASKS[1]: TASKS[0],
    }
    # Episodes of the instruction that is given have no other one to be asked about.
    assert choose_swapped(dataset, given=TASKS[1]) == {TASKS[0]: TASKS[1]}
    with pytest.raises(UserError, match="blank"):
        choose_swapped(dataset, given=" . ")
    part = replace(dataset.scores[0].segment, instruction="close the lid")
    grown = replace(dataset, scores=(*dataset.scores, replace(dataset.scores[0], segment=part)))
    swapped = choose_swapped(grown, given=None)
    assert set(swapped) == {*TASKS, "close the lid"}
    assert all(text != other for text, other in swapped.items())


def test_every_segment_of_an_episode_is_asked_about_another(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=(20, 14), tasks=(("reach", "lift"),), cameras=("front",))
    dataset = reopen(label(root, tiny_vlm, tmp_path / "dataset"))
    found = score(dataset, tiny_vlm)
    assert found.failed == {}
    for scores in found.controls.values():
        assert [one.segment for one in scores] == [one.segment for one in dataset.scores]
    header = pq.read_schema(dataset.store.path(0, "swapped")).metadata[b"topreward"]
    assert json.loads(header)["asked"] == ["lift", "reach"]
    assert score(dataset, tiny_vlm).scored == 0
    # An episode that holds the given instruction cannot be asked about another one as a whole.
    given = score(dataset, tiny_vlm, controls=["swapped"], swapped="lift")
    assert (given.scored, given.controls) == (0, {})
    assert "no other one to ask" in given.reasons["swapped"]


def test_a_misspelt_control_gets_a_suggestion(dataset: LabelledDataset) -> None:
    with pytest.raises(UserError, match="did you mean reversed"):
        score(dataset, None, controls=["reverse"])


def test_samples_take_turns_between_tasks(dataset: LabelledDataset) -> None:
    many = replace(
        dataset,
        scores=tuple(
            replace(
                dataset.scores[0],
                segment=replace(
                    dataset.scores[0].segment,
                    episode_index=i,
                    instruction=TASKS[0] if i < 27 else TASKS[1],
                ),
            )
            for i in range(30)
        ),
    )
    six = sample_episodes(many, 6)
    assert six == sorted(set(six))
    assert {27, 28, 29} < set(six)
    assert set(sample_episodes(many, 4)) < set(six)
    assert sample_episodes(many, 6) == six
    assert sample_episodes(many, 6, seed=1) != six
    assert sample_episodes(many, 99) == list(range(30))


def test_what_differs_from_the_labels_is_said(
    dataset: LabelledDataset, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"made with dtype=float32; --dtype bfloat16 would not"):
        score(dataset, tiny_vlm, dtype="bfloat16")
    with pytest.raises(UserError, match=r"made with quantize=None; --quantize 4bit would not"):
        score(dataset, tiny_vlm, quantize="4bit")
    with pytest.raises(UserError, match=r"folder named 'tiny'.*--vlm FOLDER"):
        score(dataset, None)
    with pytest.raises(UserError, match=r"made with vlm=tiny; --vlm builtin:so101-demo would not"):
        score(dataset, Path("builtin:so101-demo"))
    other = Path(shutil.copytree(tiny_vlm, tmp_path / "tiny"))
    settings = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps({**settings, "temperature": 0.5}))
    with pytest.raises(UserError, match=r"made with vlm_revision=.*another checkpoint of this"):
        score(dataset, other)
    gone = replace(dataset, key=replace(dataset.key, camera="observation.images.top"))
    with pytest.raises(UserError, match=r"camera=observation\.images\.top.*it has: .*front"):
        score(gone, tiny_vlm)
    asked_otherwise = replace(dataset, key=replace(dataset.key, prompt="?"))
    with pytest.raises(UserError, match="another version's prompt"):
        score(asked_otherwise, tiny_vlm)
    assert list(dataset.store.folder.glob("*.static.*")) == []
    monkeypatch.chdir(tiny_vlm.parent)
    assert score(dataset, None, controls=["static"], episodes=[3]).scored == 1


def test_an_unwritable_folder_sends_shards_elsewhere(
    labelled: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = reopen(labelled)

    def in_cache(dataset: LabelledDataset) -> LabelledDataset:
        # As a snapshot of the Hub is: it has a revision, and its files are not ours to add to.
        snapshot = replace(dataset.source, revision="0" * 40, repo_id="me/robot")
        return replace(dataset, source=snapshot)

    before = sorted(path.name for path in labelled.rglob("*"))
    found = score(
        in_cache(dataset), tiny_vlm, controls=["static"], episodes=[3], output=tmp_path / "mine"
    )
    assert len(found.controls["static"]) == 1
    assert sorted(path.name for path in labelled.rglob("*")) == before
    assert len(list((tmp_path / "mine").glob("topreward/*/episode_000003.static.parquet"))) == 1
    assert read_controls(in_cache(dataset)) == {}
    stored = read_controls(in_cache(dataset), output=tmp_path / "mine")
    assert len(stored["static"]) == 1


def test_an_episode_that_fails_is_reported(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=(12, 12), cameras=("front",), file_per_episode=True)
    dataset = reopen(label(root, tiny_vlm, tmp_path / "dataset"))
    os.truncate(sorted((tmp_path / "dataset" / "videos").rglob("*.mp4"))[1], 600)
    found = score(dataset, tiny_vlm, controls=["static", "reversed"])
    assert list(found.failed) == [1]
    assert found.scored == 1
    assert [len(scores) for scores in found.controls.values()] == [1, 1]


SCORE = """
import sys
from pathlib import Path
from lerobot_topreward.scoring.control_scores import score_controls
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.vlm.identity import VlmConfig
from rich.console import Console

dataset = open_labelled(repo_id=None, root=Path(sys.argv[1]), revision=None)
score_controls(dataset, controls=("static", "reversed"), episodes=dataset.episodes,
    vlm=VlmConfig(vlm=sys.argv[2]), swapped_instruction=None, output=None, console=Console())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_controls_that_were_stopped_go_on(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root = record_dataset(lengths=[20] * 5, cameras=("front",))
    slow = ("--engine", "per-prefix", "--sample-fps", "10")
    whole = label(root, tiny_vlm, tmp_path / "whole", *slow)
    stopped = Path(shutil.copytree(whole, tmp_path / "stopped"))
    process = subprocess.Popen(
        [sys.executable, "-c", SCORE, str(stopped), str(tiny_vlm)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(controls_of(stopped)) < 2:
        assert process.poll() is None, "the run ended too soon"
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
    kept = {path: path.stat().st_mtime_ns for path in controls_of(stopped)}
    assert 2 <= len(kept) < 10
    score(reopen(stopped), tiny_vlm, controls=["static", "reversed"])
    score(reopen(whole), tiny_vlm, controls=["static", "reversed"])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(stopped) == contents(whole)


def controls_of(root: Path) -> list[Path]:
    return sorted(root.glob("topreward/*/episode_??????.*.parquet"))


def contents(root: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in controls_of(root)}


def test_labels_elsewhere_hold_their_controls(
    recorded: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    labels = label(recorded, tiny_vlm, tmp_path / "labels", "--write", "sidecar")
    dataset = open_labelled(repo_id=None, root=recorded, revision=None, labels=labels)
    assert score(dataset, tiny_vlm, controls=["reversed"], episodes=[1]).scored == 1
    assert [path.parent.parent.parent for path in controls_of(labels)] == [labels]
    assert open_source(repo_id=None, root=recorded, revision=None).root == recorded
