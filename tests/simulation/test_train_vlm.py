import random
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import static_control
from lerobot_topreward.simulation.student import Student, forward
from lerobot_topreward.simulation.tasks import OTHER_TASKS, instruction
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.simulation.train_vlm import TrainVlmConfig, main, make_example
from lerobot_topreward.simulation.training_data import Sample
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer


def _sample(images: int, *, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(
        seed=seed,
        color="red",
        frames=rng.integers(0, 255, (images, 64, 64, 3), dtype=np.uint8),
        frame_indices=np.arange(images) * 5,
        progress=np.linspace(0, 1, images, dtype=np.float32),
        places=rng.normal(size=(images, 10)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    folder = build_tiny_vlm(tmp_path_factory.mktemp("tiny") / "vlm", config=TinyConfig(spread=0.2))
    return load_vlm(VlmConfig(vlm=str(folder), device="cpu", dtype="float32"))


def _clip(sample: Sample) -> Clip:
    return Clip(
        segment=Segment(0, 0, int(sample.frame_indices[-1]) + 1, instruction(sample.color)),
        fps=10.0,
        frames=sample.frames,
        shown=np.arange(len(sample.frames)),
        frame_indices=sample.frame_indices,
    )


def test_training_computes_what_scoring_computes(vlm: Vlm) -> None:
    clips = [_clip(_sample(7)), _clip(_sample(4, seed=1))]
    asked = [[1, 2, 5, 6, 7], [3, 4]]
    trained = forward(vlm, clips, asked).log_probs
    scorer = OnePassScorer(vlm)
    for clip, prefixes, answers in zip(clips, asked, trained, strict=True):
        scored = scorer.score(clip, prefixes, [clip.segment.instruction])
        expected = np.stack([scored.true[0], scored.false[0]], axis=1)
        np.testing.assert_allclose(answers.detach().numpy(), expected, atol=1e-5)


def test_every_distinct_block_is_seen_once(vlm: Vlm) -> None:
    outputs = forward(vlm, [_clip(_sample(5)), static_control(_clip(_sample(4)))], [[3, 5], [4]])
    assert outputs.blocks == [(0, 0, 1), (0, 2, 2), (0, 2, 3), (0, 4, 4), (1, 0, 0)]
    assert outputs.block_features.shape == (5, 4 * TinyConfig().hidden)


def test_every_parameter_that_is_used_gets_a_gradient(vlm: Vlm) -> None:
    answers = forward(vlm, [_clip(_sample(5))], [[2, 5]]).log_probs
    vlm.model.zero_grad()
    answers[0].sum().backward()
    assert all(parameter.grad is not None for parameter in vlm.model.parameters())


def test_a_student_survives_being_saved(tmp_path: Path) -> None:
    student = Student.fresh(text="\n".join(OTHER_TASKS), size=64, places=10)
    clip = _clip(_sample(3))
    with torch.inference_mode():
        before = forward(student.vlm, [clip], [[1, 2, 3]]).log_probs[0].numpy().copy()
    student.save(tmp_path / "vlm")
    loaded = load_vlm(VlmConfig(vlm=str(tmp_path / "vlm"), device="cpu", dtype="float32"))
    after = OnePassScorer(loaded).score(clip, [1, 2, 3], [clip.segment.instruction])
    np.testing.assert_allclose(after.true[0], before[:, 0], atol=0.01)


def _config(tmp_path: Path, *, static: float = 0.0, wrong: float = 0.0) -> TrainVlmConfig:
    return TrainVlmConfig(output=tmp_path / "new", static_share=static, wrong_share=wrong)


def test_examples_are_about_progress(tmp_path: Path) -> None:
    sample = _sample(12)
    example = make_example(sample, _config(tmp_path), random.Random(0))
    assert len(example.prefixes) == 8
    assert example.prefixes[-1] == 12
    np.testing.assert_allclose(
        example.targets, np.clip(sample.progress[np.array(example.prefixes) - 1], 0.01, 0.99)
    )
    assert example.clip.segment.instruction == "put the red cube on the green disc"


def test_static_examples_have_no_progress(tmp_path: Path) -> None:
    example = make_example(_sample(12), _config(tmp_path, static=1.0), random.Random(0))
    assert not example.clip.shown.any()
    np.testing.assert_allclose(example.targets, 0.01)


def test_another_task_is_never_done(tmp_path: Path) -> None:
    texts = set()
    for seed in range(20):
        example = make_example(_sample(5), _config(tmp_path, wrong=1.0), random.Random(seed))
        np.testing.assert_allclose(example.targets, 0.01)
        texts.add(example.clip.segment.instruction)
    assert instruction("red") not in texts
    assert instruction("blue") in texts
    assert texts & set(OTHER_TASKS)


def test_held_out_seeds_are_never_trained_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stay below 100000"):
        TrainVlmConfig(output=tmp_path / "new", seeds="99999:100001")


def test_a_users_mistake_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["--output", str(tmp_path)]) == 2
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
    assert main(["--output", str(tmp_path / "new"), "--steps", "0"]) == 2
    assert (
        main(["--output", str(tmp_path / "new"), "--static-share", "0.9", "--wrong-share", "1"])
        == 2
    )
