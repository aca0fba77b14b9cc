import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.evaluate.gvl import (
    GvlQuestion,
    GvlResult,
    Part,
    UnusableAnswerError,
    choose_frames,
    gvl_baseline,
    make_prompt,
    parse_percentages,
    read_answer,
)
from lerobot_topreward.evaluate.summary import GvlSummary, summarize_gvl
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.vlm.generate import TextGenerator
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm

RecordDataset = Callable[..., Path]

QUIET = Console(quiet=True)
GOOD = """\
Frame 1: Frame Description: the gripper holds the cube, Task Completion Percentages:60%
Frame 2: Frame Description: the arm reaches, over the table, Task Completion Percentages: 15%
Frame 3: Frame Description: done, Task Completion Percentage: 99.5%
"""


def line(number: int | str, percentage: object, description: str = "a cube") -> str:
    return f"Frame {number}: Frame Description: {description}, Task Completion Percentages:{percentage}%"


def test_an_answer_in_the_format_asked_for_is_read() -> None:
    assert parse_percentages(GOOD, count=3).tolist() == [60, 15, 99.5]


def test_lines_may_come_in_any_order_with_prose_between() -> None:
    text = (
        f"Sure, here they are.\n\n{line(2, 100)}\n  {line(1, 0)}  \n\nFrames are in random order."
    )
    assert parse_percentages(text, count=2).tolist() == [0, 100]
    assert parse_percentages(line(1, 7) + ".", count=1).tolist() == [7]
    assert parse_percentages("", count=0).tolist() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "frames missing: 1, 2 of 2"),
        ("I cannot see any frames.", "frames missing: 1, 2 of 2"),
        (line(1, 5), "frames missing: 2 of 2"),
        (line(1, 5) + "\nFrame 2: Frame Descr", "other format: 'Frame 2: Frame Descr'"),
        (f"{line(1, 5)}\n{line(1, 6)}\n{line(2, 7)}", "answered twice: frame 1"),
        (f"{line(1, 5)}\n{line(2, 6)}\n{line(3, 7)}", "no such frame: 3 of 2"),
        (f"{line(0, 5)}\n{line(1, 6)}\n{line(2, 7)}", "no such frame: 0 of 2"),
        (f"{line(1, 101)}\n{line(2, 6)}", "beyond 100%: frame 1 has 101%"),
        (f"{line(1, -5)}\n{line(2, 6)}", f"other format: {line(1, -5)!r}"),
        (f"{line(1, '5-10')}\n{line(2, 6)}", f"other format: {line(1, '5-10')!r}"),
        (f"{line(1, 'nan')}\n{line(2, 6)}", f"other format: {line(1, 'nan')!r}"),
        (f"{line(1, '')}\n{line(2, 6)}", f"other format: {line(1, '')!r}"),
        (f"{line(1, 5)} or so\n{line(2, 6)}", f"other format: {line(1, 5) + ' or so'!r}"),
        ("Frame 1: 5%\nFrame 2: 6%", "other format: 'Frame 1: 5%'"),
        (f"**{line(1, 5)}**\n{line(2, 6)}", "frames missing: 1 of 2"),
        (line(1, 5) + "; " + line(2, 6), "frames missing: 2 of 2"),
    ],
)
def test_an_answer_that_breaks_a_rule_is_not_guessed_at(text: str, reason: str) -> None:
    with pytest.raises(UnusableAnswerError) as refused:
        parse_percentages(text, count=2)
    assert str(refused.value) == reason


def make_clip(images: int, *, episode: int = 3, start: int = 100, step: int = 5) -> Clip:
    frames = np.zeros((images, 32, 48, 3), dtype=np.uint8)
    frames += np.arange(images, dtype=np.uint8)[:, None, None, None]
    return Clip(
        segment=Segment(episode, start, (images - 1) * step + 1, "open the {drawer}"),
        fps=10,
        frames=frames,
        shown=np.arange(images),
        frame_indices=np.arange(images) * step,
    )


def test_all_but_the_first_frame_are_shuffled() -> None:
    clip = make_clip(12)
    question = choose_frames(clip, frames=30, seed=0)
    assert question.first == 100
    shown = question.frame_index.tolist()
    assert sorted(shown) == list(range(105, 160, 5))
    assert shown != sorted(shown)
    assert choose_frames(clip, frames=30, seed=0).frame_index.tolist() == shown
    assert choose_frames(clip, frames=30, seed=1).frame_index.tolist() != shown
    other = replace(clip, segment=replace(clip.segment, episode_index=4))
    assert choose_frames(other, frames=30, seed=0).frame_index.tolist() != shown
    few = choose_frames(clip, frames=4, seed=0)
    assert sorted([few.first, *few.frame_index.tolist()]) == [100, 120, 135, 155]


def test_the_prompt_is_the_papers() -> None:
    clip = make_clip(3)
    question = GvlQuestion(clip.segment, first=100, frame_index=np.array([110, 105]))
    parts = make_prompt(clip, question)
    images = [part for part in parts if not isinstance(part, str)]
    assert [int(image[0, 0, 0]) for image in images] == [0, 2, 1]
    text = "".join(part if isinstance(part, str) else "[IMG]" for part in parts)
    assert text.startswith("You are an expert roboticist tasked to predict task completion perc")
    assert text.endswith(
        "Initial robot scene: [IMG]\n"
        "In the initial robot scene, the task completion percentage is 0.\n"
        "Now, for the task of open the {drawer}, output the task completion percentage for the "
        "following frames that are presented in random order. For each frame, format your response "
        "as follow: Frame {i}: Frame Description: {}, Task Completion Percentages:{}%\n"
        "Frame 1: [IMG]\nFrame 2: [IMG]"
    )


def test_percentages_go_back_into_the_order_of_time() -> None:
    question = GvlQuestion(Segment(0, 0, 40, "x"), 0, np.array([20, 10, 30]))
    answer = read_answer(question, GOOD)
    assert answer.frame_index.tolist() == [10, 20, 30]
    assert answer.percentages is not None
    assert answer.percentages.tolist() == [15, 60, 99.5]
    assert answer.voc == pytest.approx(1)
    unusable = read_answer(question, "no")
    assert unusable.percentages is None
    assert unusable.reason == "frames missing: 1, 2, 3 of 3"
    assert np.isnan(unusable.voc)


class Scripted:
    """Answers with the brightness of each image, which the recorded frames make grow with time."""

    def __init__(self, answer: Callable[[int, float], str] = line) -> None:
        self.answer = answer
        self.asked = 0

    def generate(self, parts: Sequence[Part], *, max_new_tokens: int) -> str:
        self.asked += 1
        images = [part for part in parts if not isinstance(part, str)][1:]
        shares = [100 * float(np.mean(image[..., 0] > 120)) for image in images]
        return "\n".join(
            self.answer(number, round(share, 1)) for number, share in enumerate(shares, start=1)
        )


@pytest.fixture(scope="module")
def labelled(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = record_dataset(lengths=(31, 18, 25), cameras=("front",))
    output = tmp_path_factory.mktemp("labels") / "dataset"
    with pytest.raises(SystemExit) as stopped:
        main(["label", "--root", str(root), "--vlm", str(tiny_vlm), "--output", str(output)])
    assert stopped.value.code == 0
    return output


@pytest.fixture
def dataset(labelled: Path, tmp_path: Path) -> LabelledDataset:
    root = Path(shutil.copytree(labelled, tmp_path / "dataset"))
    return open_labelled(repo_id=None, root=root, revision=None)


def run(dataset: LabelledDataset, vlm: Path, **options: object) -> GvlResult:
    given: dict = {"episodes": dataset.episodes, "frames": 5, **options}
    return gvl_baseline(dataset, vlm=VlmConfig(vlm=str(vlm)), console=QUIET, **given)


def summarize(found: GvlResult, dataset: LabelledDataset) -> GvlSummary:
    return summarize_gvl(found, dataset.scores)


@pytest.mark.slow
def test_answers_are_scored_and_kept(dataset: LabelledDataset, tiny_vlm: Path) -> None:
    scripted = Scripted()
    found = run(dataset, tiny_vlm, generator=scripted)
    summary = summarize(found, dataset)
    assert (found.asked, summary.usable, found.failed) == (3, 3, {})
    assert found.reasons == {}
    assert (summary.voc.value, summary.voc.undefined) == (
        pytest.approx(1),
        0,
    )  # the red bar of the recorded frames grows
    assert [answer.segment for answer in found.answers] == [s.segment for s in dataset.scores]
    assert all(len(answer.frame_index) == 4 for answer in found.answers)
    again = run(dataset, tiny_vlm, generator=scripted)
    assert (again.asked, scripted.asked) == (0, 3)
    assert [answer.text for answer in again.answers] == [answer.text for answer in found.answers]
    assert summarize(again, dataset).voc == summary.voc
    # Another protocol has answers of its own.
    assert run(dataset, tiny_vlm, generator=scripted, frames=6).asked == 3
    assert run(dataset, tiny_vlm, generator=scripted, seed=1).asked == 3
    assert len(list(dataset.store.folder.glob("gvl_*"))) == 3


def test_a_damaged_or_stale_answer_is_asked_again(dataset: LabelledDataset, tiny_vlm: Path) -> None:
    run(dataset, tiny_vlm, generator=Scripted())
    first, second, _ = sorted(dataset.store.folder.glob("gvl_*/*.json"))
    first.write_text(first.read_text()[:50])
    kept = json.loads(second.read_text())
    second.write_text(json.dumps({**kept, "fingerprint": "0" * 64}))
    assert run(dataset, tiny_vlm, generator=Scripted()).asked == 2


def test_unusable_answers_are_counted_by_rule(dataset: LabelledDataset, tiny_vlm: Path) -> None:
    def cheerful(number: int, share: float) -> str:
        return line(number, share) if number < 3 else f"Frame {number}: great!"

    found = run(dataset, tiny_vlm, generator=Scripted(cheerful))
    assert (found.asked, summarize(found, dataset).usable) == (3, 0)
    assert found.reasons == {"other format": 3}
    assert np.isnan(summarize(found, dataset).voc.value)
    constant = run(
        dataset, tiny_vlm, generator=Scripted(lambda number, _: line(number, 50)), frames=4
    )
    summary = summarize(constant, dataset)
    assert (summary.usable, summary.voc.undefined) == (3, 3)


@pytest.mark.slow
def test_a_tiny_vlm_is_counted_not_believed(dataset: LabelledDataset, tiny_vlm: Path) -> None:
    found = run(dataset, tiny_vlm, frames=3)
    assert (found.asked, summarize(found, dataset).usable) == (3, 0)
    assert found.reasons == {"frames missing": 3}
    assert found.failed == {}
    assert run(dataset, tiny_vlm, frames=3).asked == 0


def test_the_vlm_is_not_loaded_again(
    dataset: LabelledDataset, tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dataset, tiny_vlm, generator=Scripted())

    def refuse(*_: object) -> None:
        raise AssertionError("the VLM was loaded")

    monkeypatch.setattr(lerobot_topreward.vlm.loading, "load_vlm", refuse)
    assert summarize(run(dataset, tiny_vlm), dataset).usable == 3


def test_an_episode_that_cannot_be_asked_is_reported(
    dataset: LabelledDataset, tiny_vlm: Path
) -> None:
    class Full(Scripted):
        def generate(self, parts: Sequence[Part], *, max_new_tokens: int) -> str:
            if self.asked == 1:
                self.asked += 1
                raise EpisodeError("out of memory with 5 images")
            return super().generate(parts, max_new_tokens=max_new_tokens)

    found = run(dataset, tiny_vlm, generator=Full())
    assert found.failed == {1: "out of memory with 5 images"}
    assert [answer.segment.episode_index for answer in found.answers] == [0, 2]
    assert run(dataset, tiny_vlm, generator=Scripted()).asked == 1


def test_every_segment_is_asked_about_on_its_own(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path: Path
) -> None:
    root = record_dataset(lengths=(20, 3), tasks=(("reach", "lift"),), cameras=("front",))
    with pytest.raises(SystemExit):
        main(
            ["label", "--root", str(root), "--vlm", str(tiny_vlm), "--output", str(tmp_path / "x")]
        )
    dataset = open_labelled(repo_id=None, root=tmp_path / "x", revision=None)
    found = run(dataset, tiny_vlm, generator=Scripted())
    assert [answer.segment.instruction for answer in found.answers] == ["reach", "lift"] * 2
    assert [len(answer.frame_index) for answer in found.answers] == [2, 2, 1, 0]
    assert all(
        (answer.frame_index > answer.segment.start).all()
        and (answer.frame_index < answer.segment.start + answer.segment.length).all()
        for answer in found.answers
    )
    summary = summarize(found, dataset)
    assert (summary.usable, summary.voc.undefined) == (4, 2)  # too few frames to be in an order


def test_one_frame_alone_is_no_baseline(dataset: LabelledDataset, tiny_vlm: Path) -> None:
    with pytest.raises(UserError, match="at least 2 frames"):
        run(dataset, tiny_vlm, frames=1)


def test_generation_is_greedy_bounded_and_reads_images(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "sampling"))
    settings = json.loads((folder / "generation_config.json").read_text())
    # As the Hub's Qwen3-VL has it.
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    (folder / "generation_config.json").write_text(json.dumps({**settings, **sampling}))
    vlm = load_vlm(VlmConfig(vlm=str(folder), device="cpu"))
    rng = np.random.default_rng(0)
    dark, noise = np.zeros((64, 96, 3), np.uint8), rng.integers(0, 256, (64, 96, 3), np.uint8)
    generator = TextGenerator(vlm)

    def answer(image: np.ndarray, tokens: int = 12) -> str:
        return generator.generate(["Look: ", image, " What is it?"], max_new_tokens=tokens)

    assert answer(noise) == answer(noise)
    assert answer(noise) != answer(dark)
    assert 0 < len(answer(noise, 3)) < len(answer(noise))
    seen: list[torch.Size] = []
    hook = vlm.model.register_forward_pre_hook(
        lambda _, __, options: seen.append(options["pixel_values"].shape), with_kwargs=True
    )
    TextGenerator(vlm, max_pixels=32 * 32).generate([noise, dark], max_new_tokens=1)
    hook.remove()
    assert seen[0][0] == 2 * 4  # two images of 32x32, in patches of 16x16
    with pytest.raises(EpisodeError, match="cannot be shown to this model"):
        generator.generate([np.zeros((2, 640, 3), np.uint8)], max_new_tokens=1)
