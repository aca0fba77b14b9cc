import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scored import TASKS, label, reopen, score

import lerobot_topreward.vlm.loading
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, PrefixScores
from lerobot_topreward.scoring.control_scores import (
    choose_swapped,
    read_controls,
    sample_episodes,
)
from lerobot_topreward.scoring.rescoring import list_labelled_shards
from lerobot_topreward.scoring.scorer import (
    CONTROLS,
    reversed_control,
    score_clip,
    static_control,
)
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

RecordDataset = Callable[..., Path]


@pytest.fixture(scope="module")
def vlm(tiny_vlm: Path) -> Vlm:
    return load_vlm(VlmConfig(vlm=str(tiny_vlm), device="cpu"))


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
    found = score_clip(clip, counting, controls, None, asked={"swapped": TASKS[1]})
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
        (wanted,) = list_labelled_shards(dataset, [0], swap, asked={"swapped": {TASKS[0]: text}})
        assert (dataset.store.read(wanted) is not None) == fits
    (kept,) = read_controls(dataset)["swapped"]
    assert kept.log_prob_true.tolist() == found.controls["swapped"][0].log_prob_true.tolist()


def test_one_instruction_alone_cannot_be_swapped(
    recorded: Path, tiny_vlm: Path, tmp_path: Path
) -> None:
    output = label(recorded, tiny_vlm, tmp_path / "one", "--instruction", "tidy up")
    dataset = reopen(output)
    found = score(dataset, tiny_vlm, controls=["swapped", "static"], episodes=[3])
    assert "`swapped_instruction=TEXT`" in found.reasons["swapped"]
    assert found.controls.keys() == {"static"}
    given = score(dataset, tiny_vlm, controls=["swapped"], episodes=[3], swapped="fold the towel")
    assert given.reasons == {}
    assert len(given.controls["swapped"]) == 1
    with pytest.raises(UserError, match=r"'Tidy  up\.'` is what every episode was asked"):
        score(dataset, tiny_vlm, controls=["swapped"], swapped="Tidy  up.")


def test_choose_swapped_are_those_of_other_episodes() -> None:
    assert choose_swapped(TASKS, given=None) == {
        TASKS[0]: TASKS[1],
        TASKS[1]: TASKS[0],
    }
    # Episodes of the instruction that is given have no other one to be asked about.
    assert choose_swapped(TASKS, given=TASKS[1]) == {TASKS[0]: TASKS[1]}
    with pytest.raises(UserError, match="blank"):
        choose_swapped(TASKS, given=" . ")
    swapped = choose_swapped([*TASKS, "close the lid"], given=None)
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
