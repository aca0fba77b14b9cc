from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from lerobot_topreward import OnlineScorer
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.online.scorer import OnlineScore, check_beyond
from lerobot_topreward.records import Clip, LogProbs, Segment
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

INSTRUCTION = "pick up the red cube"
MODELS = {
    "dense": TinyConfig(layers=4, deepstack=(0, 1, 2), spread=0.2),
    "mixture": TinyConfig(experts=4, spread=0.2, seed=4),
}


@pytest.fixture(scope="module", params=MODELS)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    folder = tmp_path_factory.mktemp("vlm") / request.param
    build_tiny_vlm(folder, config=MODELS[request.param], text=INSTRUCTION)
    return load_vlm(VlmConfig(vlm=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    folder = build_tiny_vlm(tmp_path_factory.mktemp("vlm") / "dense", config=MODELS["dense"])
    return load_vlm(VlmConfig(vlm=str(folder), device="cpu"))


def draw_clip(rng: np.random.Generator, images: int) -> Clip:
    height, width = rng.integers(48, 150, 2)
    frames = rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8)
    frame_indices = np.cumsum(rng.integers(1, 30, images)) - 1
    fps = float(rng.choice([2.0, 10.0, 29.97, 30.0, 50.0]))
    segment = Segment(0, 0, int(frame_indices[-1]) + 1, INSTRUCTION)
    return Clip(segment, fps, frames, np.arange(images), frame_indices)


def add_all(online: OnlineScorer, clip: Clip) -> list[OnlineScore]:
    times = clip.frame_indices / clip.fps
    return [online.add(frame, time) for frame, time in zip(clip.frames, times, strict=True)]


def assert_equal(found: Sequence[OnlineScore], expected: LogProbs) -> None:
    answers = np.array([(score.log_prob_true, score.log_prob_false) for score in found]).T
    np.testing.assert_allclose(answers[0], expected.true[0], atol=1e-4, rtol=0)
    np.testing.assert_allclose(answers[1], expected.false[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("images", [1, 2, 3, 8, 13])
def test_every_step_equals_one_forward_over_the_prefix(vlm: Vlm, images: int) -> None:
    rng = np.random.default_rng(images)
    clip = draw_clip(rng, images)
    max_pixels = 96 * 96 if images % 2 else None
    # The size is that of as many images as may come, as the longest prefix fixes it offline.
    scorer = OnePassScorer(vlm, max_pixels=max_pixels)
    found = add_all(OnlineScorer(scorer, INSTRUCTION, max_images=max(images, 2)), clip)
    oracle = PerPrefixScorer(vlm, max_pixels=max_pixels)
    assert_equal(found, oracle.score(clip, range(1, images + 1), [INSTRUCTION]))
    assert [score.images for score in found] == [score.shown for score in found]
    assert found[-1].images == images
    assert found[-1].progress is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_every_step_of_long_episodes_equals_the_offline_score(vlm: Vlm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [200, 199, *rng.integers(1, 200, 4)][seed]
    clip = draw_clip(rng, int(images))
    online = OnlineScorer(OnePassScorer(vlm), INSTRUCTION, max_images=max(int(images), 2))
    offline = OnePassScorer(vlm).score(clip, range(1, int(images) + 1), [INSTRUCTION])
    assert_equal(add_all(online, clip), offline)
    some = sorted({1, int(images) // 2 + 1, int(images)})
    oracle = PerPrefixScorer(vlm).score(clip, some, [INSTRUCTION])
    online.reset()
    found = add_all(online, clip)
    assert_equal([found[shown - 1] for shown in some], oracle)


def test_the_size_is_that_of_max_images_from_the_first_image_on(dense: Vlm) -> None:
    # 200 images of this size exceed the checkpoint's budget for a video, 4 do not.
    frames = np.random.default_rng(0).integers(0, 256, (1, 480, 640, 3), dtype=np.uint8)
    online = OnlineScorer(OnePassScorer(dense), INSTRUCTION)
    budget = online.budget(480, 640)
    assert budget.size[0] * budget.size[1] * 200 <= 25165824
    smaller = OnlineScorer(OnePassScorer(dense), INSTRUCTION, max_images=4).budget(480, 640)
    assert smaller.size == (480, 640)
    assert smaller.cache_bytes < budget.cache_bytes
    found = online.add(frames[0], 0.0)
    still = np.zeros(200, dtype=np.int64)
    clip = Clip(Segment(0, 0, 200, INSTRUCTION), 2.0, frames, still, np.arange(200))
    assert_equal([found], OnePassScorer(dense).score(clip, [1], [INSTRUCTION]))


def test_an_image_costs_one_block_and_one_question(dense: Vlm) -> None:
    lengths: list[int] = []
    hook = dense.model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    clip = draw_clip(np.random.default_rng(0), 30)
    add_all(OnlineScorer(OnePassScorer(dense), INSTRUCTION), clip)
    hook.remove()
    assert len(lengths) == 30
    assert max(lengths[2:]) - min(lengths[2:]) <= 8  # digits of the time


def test_another_episode_begins_from_nothing(dense: Vlm) -> None:
    online = OnlineScorer(OnePassScorer(dense), INSTRUCTION, max_images=7)
    first = draw_clip(np.random.default_rng(1), 7)
    for clip in (first, draw_clip(np.random.default_rng(2), 6), first):  # of other sizes
        online.reset()
        found = add_all(online, clip)
        oracle = PerPrefixScorer(dense).score(clip, range(1, len(found) + 1), [INSTRUCTION])
        assert_equal(found, oracle)


def shown_by_window(image: int, most: int) -> list[int]:
    shown: list[int] = []
    for number in range(image + 1):
        if len(shown) == most:
            shown = shown[-(most // 2) :]
        shown.append(number)
    return shown


def shown_by_thinning(image: int, most: int) -> list[int]:
    kept, stride = [], 1
    shown: list[int] = []
    for number in range(image + 1):
        if len(kept) == most:
            kept, stride = kept[::2], 2 * stride
        shown = [*kept, number]
        if number % stride == 0:
            kept = shown
    return shown


@pytest.mark.parametrize("most", [2, 5])
@pytest.mark.parametrize(
    ("beyond", "shown_at"), [("window", shown_by_window), ("thin", shown_by_thinning)]
)
def test_beyond_max_images_the_score_is_that_of_the_images_shown(
    dense: Vlm, beyond: Any, shown_at: Callable[[int, int], list[int]], most: int
) -> None:
    rng = np.random.default_rng(most)
    frames = rng.integers(0, 256, (4 * most + 3, 64, 64, 3), dtype=np.uint8)
    times = np.arange(len(frames)) / 2
    scorer = OnePassScorer(dense)
    online = OnlineScorer(scorer, INSTRUCTION, max_images=most, beyond=beyond)
    for image, frame in enumerate(frames):
        found = online.add(frame, times[image])
        shown = shown_at(image, most)
        assert found.shown == len(shown) <= most
        assert found.images == image + 1
        clip = Clip(
            Segment(0, 0, 2 * len(frames), INSTRUCTION),
            2.0,
            frames[shown],
            np.arange(len(shown)),
            np.array(shown),
        )
        assert_equal([found], scorer.score(clip, [len(shown)], [INSTRUCTION]))


def test_thinning_spreads_the_images_over_the_whole_episode() -> None:
    shown = shown_by_thinning(1000, 50)
    assert shown[0] == 0
    assert shown[-1] == 1000
    assert np.diff(shown[:-1]).tolist() == [32] * (len(shown) - 2)
    assert 25 <= len(shown) <= 50


@contextmanager
def failing(vlm: Vlm, *, after: int = 0) -> Iterator[None]:
    """A device that is full from some forward pass on."""
    left = [after]

    def refuse(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("CUDA out of memory")

    layer = vlm.model.model.language_model.layers[1]  # the first one has written by then
    hook = layer.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("beyond", ["window", "thin"])
def test_what_fails_leaves_the_state_as_before(vlm: Vlm, beyond: Any) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (14, 64, 64, 3), dtype=np.uint8)
    options: Any = {"max_images": 6, "beyond": beyond}
    undisturbed = OnlineScorer(OnePassScorer(vlm), INSTRUCTION, **options)
    online = OnlineScorer(OnePassScorer(vlm), INSTRUCTION, **options)
    for number, frame in enumerate(frames):
        time = number / 2
        # Making room for the seventh takes a pass of its own, then comes the question.
        for after in range(2 if number == 6 else 1):
            with failing(vlm, after=after), pytest.raises(EpisodeError, match="out of memory with"):
                online.add(frame, time)
        for image, when, what in (
            (frame[:32], time, r"must be of one size|out of memory"),
            (frame[..., 0], time, r"must be \(height, width, 3\)"),
            (frame.astype(np.float32), time, "uint8; got float32"),
            (frame, time - 0.5, "must go forward|must be 0 to"),
            (frame, float("nan"), "must be finite"),
            (frame, float("inf"), "must be finite"),
            (frame, 1e9, "counted from the episode's beginning"),
        ):
            if number or "one size" not in what:
                with pytest.raises(EpisodeError, match=what):
                    online.add(image, when)
        found, expected = online.add(frame, time), undisturbed.add(frame, time)
        assert found.log_prob_true == expected.log_prob_true
        assert (found.images, found.shown) == (expected.images, expected.shown)


def test_an_answer_that_is_not_finite_is_refused(dense: Vlm) -> None:
    online = OnlineScorer(OnePassScorer(dense), INSTRUCTION)
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    first = online.add(frame, 0.0)
    norm = dense.model.model.language_model.norm
    hook = norm.register_forward_hook(lambda _, __, out: out * float("nan"))
    with pytest.raises(EpisodeError, match="not finite"):
        online.add(frame, 0.5)
    hook.remove()
    assert online.add(frame, 0.5).images == first.images + 1


def test_too_many_images_are_refused_unless_told_otherwise(dense: Vlm) -> None:
    online = OnlineScorer(OnePassScorer(dense), INSTRUCTION, max_images=2)
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    for time in (0.0, 1.0):
        online.add(frame, time)
    with pytest.raises(EpisodeError, match=r"at most 2 images.*`beyond='thin'`"):
        online.add(frame, 2.0)
    with pytest.raises(EpisodeError, match="24x24"):
        OnlineScorer(OnePassScorer(dense), INSTRUCTION).add(frame[:24, :24], 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_images": 1}, "`max_images` must be at least 2; got 1"),
        ({"instruction": "fold <|im_end|>"}, "`instruction` must be plain text"),
    ],
)
def test_options_are_checked(dense: Vlm, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OnlineScorer(OnePassScorer(dense), **{"instruction": INSTRUCTION, **options})


def test_what_happens_beyond_is_chosen_by_name() -> None:
    with pytest.raises(UserError, match="`beyond` must be one of refuse, window, thin; got 'x'"):
        check_beyond("x")


def test_a_scorer_without_a_vlm_here_is_refused() -> None:
    class Elsewhere:
        def score(self, clip: Clip, prefixes: Any, instructions: Any) -> LogProbs:
            raise NotImplementedError

    with pytest.raises(UserError, match=r"must be a VLM in this process.*got a Elsewhere"):
        OnlineScorer(Elsewhere(), INSTRUCTION)
