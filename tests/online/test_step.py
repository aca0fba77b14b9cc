import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import (
    DataProcessorPipeline,
    ProcessorStepRegistry,
    create_transition,
    identity_transition,
)
from lerobot.teleoperators.utils import TeleopEvents

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.online.background import BackgroundScorer
from lerobot_topreward.online.scorer import OnlineScore, OnlineScorer
from lerobot_topreward.online.step import INFO, OnlineRewardStep, find_image, to_rgb

NAME = "topreward_online_reward"
KEY = "observation.images.front"


class Scripted(OnlineScorer):
    """Says what it is told to, when it is told to."""

    def __init__(self, progress: Any = None) -> None:
        self.progress = progress
        self.images = 0
        self.times: list[float] = []
        self.seen: list[np.ndarray] = []
        self.gate = threading.Semaphore(1000)  # images that may be scored

    def reset(self) -> None:
        self.images = 0

    def add(self, image: np.ndarray, time: float) -> OnlineScore:
        self.gate.acquire()
        self.times.append(time)
        self.seen.append(image)
        value = self.progress[self.images] if self.progress else 0.5
        if isinstance(value, BaseException):
            raise value
        self.images += 1
        log_prob = float(np.log(value))
        return OnlineScore(self.images, self.images, time, log_prob, -1.0, value, 1.0)


@pytest.fixture
def make_step() -> Iterator[Callable[..., OnlineRewardStep]]:
    made: list[OnlineRewardStep] = []

    def make(scorer: OnlineScorer, **options: Any) -> OnlineRewardStep:
        made.append(OnlineRewardStep("pick it up", scorer=scorer, **options))
        return made[-1]

    yield make
    for step in made:
        step.close()


def transition(frame: int = 0, **changes: Any) -> Any:
    image = torch.full((1, 3, 8, 10), frame / 255)
    return create_transition(observation={KEY: image}, **changes)


def run(step: OnlineRewardStep, frames: int) -> list[Any]:
    """Transitions of an episode, each after all scores are there."""
    step.reset()
    found = []
    for frame in range(frames):
        found.append(step(transition(frame)))
        assert step.background.wait(10)
    return found


def test_reward_and_success_are_written(make_step: Callable[..., OnlineRewardStep]) -> None:
    values = [0.2, 0.95, 0.3, 0.9, 0.91, 0.92, 0.1, 0.1]
    step = make_step(Scripted(values), sample_fps=10.0)
    for _ in range(2):
        found = run(step, 8)
        # What is written is what was known when the transition came: one step old here.
        assert [t[TransitionKey.REWARD] for t in found] == [0.0, *values[:-1]]
        success = [t[TransitionKey.INFO][TeleopEvents.SUCCESS] for t in found]
        assert success == [False] * 6 + [True] * 2
        assert [t[TransitionKey.DONE] for t in found] == success
        assert "age" not in found[0][TransitionKey.INFO][INFO]
        assert found[3][TransitionKey.INFO][INFO]["images"] == 3
        assert found[3][TransitionKey.INFO][INFO]["age"] > 0


@pytest.mark.parametrize(
    ("reward", "expected"),
    [("gain", [0, 0, 0.5, -0.1, 0.2]), ("success", [0, 0, 0, 0, 1])],
)
def test_kinds_of_reward(
    make_step: Callable[..., OnlineRewardStep], reward: str, expected: list[float]
) -> None:
    step = make_step(
        Scripted([0.3, 0.8, 0.7, 0.9, 0.9]),
        sample_fps=10.0,
        reward=reward,
        success_threshold=0.7,
        terminate_on_success=False,
    )
    found = run(step, 5)
    assert [t[TransitionKey.REWARD] for t in found] == pytest.approx(expected)
    assert not any(t[TransitionKey.DONE] for t in found)


def test_images_are_shown_as_often_as_label_shows_them(
    make_step: Callable[..., OnlineRewardStep],
) -> None:
    from lerobot_topreward.data.schedule import sample_frames

    scorer = Scripted()
    step = make_step(scorer, fps=30.0, sample_fps=4.0)
    run(step, 60)
    expected = sample_frames(60, fps=30.0, sample_fps=4.0, final_frame=False)
    assert [round(time * 30) for time in scorer.times] == expected.tolist()
    assert [image[0, 0, 0] for image in scorer.seen] == expected.tolist()
    assert scorer.seen[0].shape == (8, 10, 3)


def test_a_score_is_counted_once_and_a_person_may_say_success(
    make_step: Callable[..., OnlineRewardStep],
) -> None:
    step = make_step(Scripted([0.95, 0.95]), sample_fps=1.0, success_steps=2)
    found = run(step, 10)
    assert not found[-1][TransitionKey.INFO][TeleopEvents.SUCCESS]
    assert found[-1][TransitionKey.REWARD] == 0.95
    said = step(transition(info={TeleopEvents.SUCCESS: True}))
    assert said[TransitionKey.INFO][TeleopEvents.SUCCESS]
    assert said[TransitionKey.DONE]


def test_the_loop_does_not_wait_for_the_vlm(make_step: Callable[..., OnlineRewardStep]) -> None:
    scorer = Scripted([0.1, 0.2, 0.3, 0.4])
    scorer.gate = threading.Semaphore(0)
    step = make_step(scorer, sample_fps=10.0)
    # Nothing may be scored, and yet all of these return.
    found = [step(transition(frame)) for frame in range(20)]
    assert [t[TransitionKey.REWARD] for t in found] == [0.0] * 20
    assert not step.background.wait(0)
    # Another episode begins while an image of the first is being scored: it counts no more.
    step.reset()
    scorer.gate.release()
    scorer.gate.release()
    step(transition(7))
    assert step.background.wait(10)
    known = step(transition(8))
    assert known[TransitionKey.INFO][INFO]["images"] == 1
    assert scorer.seen[-1][0, 0, 0] == 7
    scorer.gate.release(5)


def test_images_that_wait_are_replaced_by_newer_ones() -> None:
    scorer = Scripted()
    scorer.gate = threading.Semaphore(0)
    background = BackgroundScorer(scorer)
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    background.offer(image, 0.0)
    while background._waiting is not None:  # until its turn has come
        pass
    for time in (1.0, 2.0, 3.0):
        background.offer(image, time)
    scorer.gate.release(10)
    assert background.wait(10)
    newest = background.newest()
    assert newest is not None
    assert scorer.times == [0.0, 3.0]
    assert (newest.score.time, newest.skipped) == (3.0, 2)
    background.close()
    assert not background._thread.is_alive()


def test_what_cannot_be_scored_is_told_and_the_loop_goes_on(
    make_step: Callable[..., OnlineRewardStep],
) -> None:
    scorer = Scripted([0.4, 0.6])
    step = make_step(scorer, sample_fps=10.0)
    run(step, 1)
    scorer.progress = [0.4, EpisodeError("out of memory with 2 images")]
    step(transition(1))
    step.background.wait(10)
    told = step(transition(2))
    assert told[TransitionKey.INFO][INFO]["failure"] == "out of memory with 2 images"
    assert told[TransitionKey.REWARD] == 0.4
    step.background.wait(10)
    scorer.progress = [0.4, 0.6]
    step(transition(3))
    step.background.wait(10)
    told = step(transition(4))
    assert told[TransitionKey.INFO][INFO]["failure"] is None
    assert told[TransitionKey.REWARD] == 0.6


def test_a_bug_in_the_thread_is_raised_in_the_loop() -> None:
    background = BackgroundScorer(Scripted([KeyError("bug")]))
    background.offer(np.zeros((8, 8, 3), dtype=np.uint8), 0.0)
    with pytest.raises(RuntimeError, match="has ended with an error") as raised:
        background.wait(10)
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(RuntimeError):
        background.newest()
    background.close()


def test_it_is_made_from_yaml_and_saved_with_a_pipeline(tmp_path: Path, tiny_vlm: Path) -> None:
    text = f"""
    instruction: pick it up
    camera: front
    vlm: {tiny_vlm}
    device: cpu
    sample_fps: 10.0
    reward: gain
    max_images: 20
    """
    step = ProcessorStepRegistry.get(NAME)(**yaml.safe_load(text))
    pipeline = DataProcessorPipeline(
        steps=[step], to_transition=identity_transition, to_output=identity_transition
    )
    pipeline.save_pretrained(tmp_path, config_filename="env.json")
    again: Any = DataProcessorPipeline.from_pretrained(
        tmp_path,
        config_filename="env.json",
        to_transition=identity_transition,
        to_output=identity_transition,
    )
    assert again.steps[0].get_config() == step.get_config()
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # what precedes the first score, and what follows it
        found: Any = again(create_transition(observation={KEY: image}))
        again.steps[0].background.wait(30)
    direct = OnlineScorer(step.scorer._scorer, "pick it up", max_images=20)
    expected = direct.add(to_rgb(image), 0.0).log_prob_true
    assert found[TransitionKey.INFO][INFO]["log_prob_true"] == pytest.approx(expected, abs=1e-4)
    for made in (step, again.steps[0]):
        made.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0.0}, "`fps` must be > 0; got 0.0"),
        ({"sample_fps": -1.0}, "`sample_fps` must be > 0"),
        ({"success_threshold": 1.5}, "`success_threshold` must be > 0 and <= 1; got 1.5"),
        ({"success_steps": 0}, "`success_steps` must be at least 1; got 0"),
    ],
)
def test_options_are_checked_before_a_vlm_is_loaded(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OnlineRewardStep("pick it up", vlm="nobody/nothing", **options)


def test_images_are_found_by_name() -> None:
    front, wrist = object(), object()
    both = {"observation.state": 1, KEY: front, "observation.images.wrist": wrist}
    assert find_image(both, "wrist") is wrist
    assert find_image(both, KEY) is front
    assert find_image({KEY: front}, None) is front
    for observation, camera in ((both, None), (both, "top"), ({}, None)):
        with pytest.raises(ValueError, match="must be in the observation; it has"):
            find_image(observation, camera)


def test_any_image_becomes_rgb() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    chw = torch.from_numpy(image).permute(2, 0, 1)
    for given in (image, image[None], chw, chw[None].float() / 255, image / np.float32(255)):
        np.testing.assert_array_equal(to_rgb(given), image)
    copied = to_rgb(image)
    image[:] = 0
    assert copied.any()
    with pytest.raises(ValueError, match=r"got \(6, 9\)"):
        to_rgb(image[..., 0])
