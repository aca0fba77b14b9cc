import random
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import static_control
from lerobot_topreward.simulation.student import Pupil, watch
from lerobot_topreward.simulation.tasks import OTHER_TASKS, instruction
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.simulation.train_vlm import TeachConfig, exercise, main
from lerobot_topreward.simulation.training_data import Lesson
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer


def _lesson(images: int, *, seed: int = 0) -> Lesson:
    rng = np.random.default_rng(seed)
    return Lesson(
        seed=seed,
        colour="red",
        frames=rng.integers(0, 255, (images, 64, 64, 3), dtype=np.uint8),
        frame_indices=np.arange(images) * 5,
        progress=np.linspace(0, 1, images, dtype=np.float32),
        places=rng.normal(size=(images, 10)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    folder = build_tiny_vlm(tmp_path_factory.mktemp("tiny") / "vlm", config=TinyConfig(spread=0.2))
    return load_vlm(VlmConfig(vlm=str(folder), device="cpu", dtype="float32"))


def _clip(lesson: Lesson) -> Clip:
    return Clip(
        segment=Segment(0, 0, int(lesson.frame_indices[-1]) + 1, instruction(lesson.colour)),
        fps=10.0,
        frames=lesson.frames,
        shown=np.arange(len(lesson.frames)),
        frame_indices=lesson.frame_indices,
    )


def test_teaching_sees_what_scoring_sees(vlm: Vlm) -> None:
    clips = [_clip(_lesson(7)), _clip(_lesson(4, seed=1))]
    asked = [[1, 2, 5, 6, 7], [3, 4]]
    taught = watch(vlm, clips, asked).answers
    scorer = OnePassScorer(vlm)
    for clip, prefixes, answers in zip(clips, asked, taught, strict=True):
        scored = scorer.score(clip, prefixes, [clip.segment.instruction])
        expected = np.stack([scored.true[0], scored.false[0]], axis=1)
        np.testing.assert_allclose(answers.detach().numpy(), expected, atol=1e-5)


def test_every_distinct_block_is_seen_once(vlm: Vlm) -> None:
    watched = watch(vlm, [_clip(_lesson(5)), static_control(_clip(_lesson(4)))], [[3, 5], [4]])
    assert watched.shown == [(0, 0, 1), (0, 2, 2), (0, 2, 3), (0, 4, 4), (1, 0, 0)]
    assert watched.seen.shape == (5, 4 * TinyConfig().hidden)


def test_every_parameter_that_is_used_gets_a_gradient(vlm: Vlm) -> None:
    answers = watch(vlm, [_clip(_lesson(5))], [[2, 5]]).answers
    vlm.model.zero_grad()
    answers[0].sum().backward()
    assert all(parameter.grad is not None for parameter in vlm.model.parameters())


def test_a_pupil_survives_being_saved(tmp_path: Path) -> None:
    pupil = Pupil.fresh(text="\n".join(OTHER_TASKS), size=64, places=10)
    clip = _clip(_lesson(3))
    with torch.inference_mode():
        before = watch(pupil.vlm, [clip], [[1, 2, 3]]).answers[0].numpy().copy()
    pupil.save(tmp_path / "vlm")
    loaded = load_vlm(VlmConfig(vlm=str(tmp_path / "vlm"), device="cpu", dtype="float32"))
    after = OnePassScorer(loaded).score(clip, [1, 2, 3], [clip.segment.instruction])
    np.testing.assert_allclose(after.true[0], before[:, 0], atol=0.01)


def _config(tmp_path: Path, *, static: float = 0.0, wrong: float = 0.0) -> TeachConfig:
    return TeachConfig(output=tmp_path / "new", static_share=static, wrong_share=wrong)


def test_lessons_teach_progress(tmp_path: Path) -> None:
    lesson = _lesson(12)
    one = exercise(lesson, _config(tmp_path), random.Random(0))
    assert len(one.prefixes) == 8
    assert one.prefixes[-1] == 12
    np.testing.assert_allclose(
        one.targets, np.clip(lesson.progress[np.array(one.prefixes) - 1], 0.01, 0.99)
    )
    assert one.clip.segment.instruction == "put the red cube on the green disc"


def test_static_lessons_go_nowhere(tmp_path: Path) -> None:
    one = exercise(_lesson(12), _config(tmp_path, static=1.0), random.Random(0))
    assert not one.clip.shown.any()
    np.testing.assert_allclose(one.targets, 0.01)


def test_another_task_is_never_done(tmp_path: Path) -> None:
    texts = set()
    for seed in range(20):
        one = exercise(_lesson(5), _config(tmp_path, wrong=1.0), random.Random(seed))
        np.testing.assert_allclose(one.targets, 0.01)
        texts.add(one.clip.segment.instruction)
    assert instruction("red") not in texts
    assert instruction("blue") in texts
    assert texts & set(OTHER_TASKS)


def test_held_out_seeds_are_never_taught(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stay below 100000"):
        TeachConfig(output=tmp_path / "new", seeds="99999:100001")


def test_a_users_mistake_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["--output", str(tmp_path)]) == 2
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
    assert main(["--output", str(tmp_path / "new"), "--steps", "0"]) == 2
    assert (
        main(["--output", str(tmp_path / "new"), "--static-share", "0.9", "--wrong-share", "1"])
        == 2
    )
