"""Exact mode: the request that a server gets makes it compute what the built-in scorer does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vllm_server import State, serve

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import reversed_control, static_control
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import Vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.server.client import Patience
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.probe import identify_served
from lerobot_topreward.vlm.server.scorer import ServerScorer

HASTY = Patience(waits_s=(0.01, 0.02), answer_s=20, connect_s=5)
INSTRUCTIONS = ("pick up the red cube", "fold the towel, then öffne die Schublade")


def make_clip(
    *, images: int, size: tuple[int, int] = (64, 64), fps: float = 10.0, step: int = 3
) -> Clip:
    rng = np.random.default_rng(images)
    frames = rng.integers(0, 256, (images, *size, 3), dtype=np.uint8)
    segment = Segment(0, 0, step * images, INSTRUCTIONS[0])
    return Clip(segment, fps, frames, np.arange(images), step * np.arange(images))


def connect(
    *servers: State, vlm: Path | str, max_pixels: int | None = None, **options: object
) -> ServerScorer:
    config = ServerConfig(server=tuple(state.url for state in servers), **options)  # pyright: ignore[reportArgumentType]
    identity = identify_served(VlmConfig(vlm=str(vlm)), config, patience=HASTY)
    return ServerScorer(config, identity, max_pixels=max_pixels, patience=HASTY)


@pytest.mark.parametrize(
    ("images", "size", "fps", "step"),
    [
        *(
            (1, (64, 64), 2.0, 3),
            (2, (64, 96), 30.0, 3),
            (5, (96, 64), 0.7, 3),
            (8, (70, 50), 10.0, 3),
        ),
        *((1, (64, 64), 2.0, 1), (5, (64, 64), 2.0, 1)),  # every frame is shown
    ],
)
def test_exact_mode_equals_one_pass(
    tiny_vlm: Path, served_vlm: Vlm, images: int, size: tuple[int, int], fps: float, step: int
) -> None:
    clip = make_clip(images=images, size=size, fps=fps, step=step)
    prefixes = list(range(1, images + 1))
    with serve(served_vlm) as state:
        scorer = connect(state, vlm=tiny_vlm)
        ours = scorer.score(clip, prefixes, INSTRUCTIONS)
        scorer.close()
    built_in = OnePassScorer(served_vlm)
    theirs = built_in.score(clip, prefixes, INSTRUCTIONS)
    np.testing.assert_allclose(ours.true, theirs.true, atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours.false, theirs.false, atol=1e-4, rtol=0)
    assert ours.true_censored is None
    assert len(state.bodies) == 2 * images


def test_controls_and_a_pixel_limit_stay_exact(tiny_vlm: Path, served_vlm: Vlm) -> None:
    clip = make_clip(images=5, size=(128, 160))
    built_in = OnePassScorer(served_vlm, max_pixels=64 * 96)
    with serve(served_vlm) as state:
        scorer = connect(state, vlm=tiny_vlm, max_pixels=64 * 96)
        assert scorer.shown_size(clip) == built_in.shown_size(clip)
        for shown in (clip, static_control(clip), reversed_control(clip)):
            ours = scorer.score(shown, [3, 4], INSTRUCTIONS[:1])
            theirs = built_in.score(shown, [3, 4], INSTRUCTIONS[:1])
            np.testing.assert_allclose(ours.true, theirs.true, atol=1e-4, rtol=0)
        scorer.close()


def test_a_small_short_prefix_is_not_enlarged(tiny_vlm: Path, served_vlm: Vlm) -> None:
    """The processor's least number of pixels is of a whole video: prefixes have the longest's size."""
    clip = make_clip(images=6, size=(32, 32))
    with serve(served_vlm) as state:
        scorer = connect(state, vlm=tiny_vlm)
        ours = scorer.score(clip, [1, 6], INSTRUCTIONS[:1])
        scorer.close()
    theirs = OnePassScorer(served_vlm).score(clip, [1, 6], INSTRUCTIONS[:1])
    np.testing.assert_allclose(ours.true, theirs.true, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "template",
    [
        # As transformers 5.10 and newer leave the checkpoint's own: the wrapper stays.
        "<|im_start|>user\n<|vision_start|><|vision_start|><|video_pad|><|vision_end|>"
        "<|vision_end|>{{ messages[0].content[1].text }}",
        "<|im_start|>user\n<|video_pad|>{{ messages[0].content[1].text }}<|im_end|>\n",
        "<|im_start|>user\n{{ messages[0].content[1].text }}<|video_pad|>",
        "<|video_pad|>{{ messages[0].content[1].text }}",
    ],
)
def test_another_prompt_is_refused_before_the_first_episode(
    tiny_vlm: Path, served_vlm: Vlm, template: str
) -> None:
    with serve(served_vlm, template=template) as state:
        scorer = connect(state, vlm=tiny_vlm)
        with pytest.raises(UserError, match=r"another prompt: token \d+ must.*serve-args") as error:
            scorer.try_out(make_clip(images=5))
        scorer.close()
    assert ("keeps a wrapper" in str(error.value)) == ("<|vision_start|><|vision" in template)
    assert len(state.bodies) == 1


def test_a_prompt_longer_than_the_window_says_what_to_do(tiny_vlm: Path, served_vlm: Vlm) -> None:
    with serve(served_vlm, max_tokens=200) as state:
        scorer = connect(state, vlm=tiny_vlm)
        with pytest.raises(
            UserError, match=r"with 60 images.*maximum context length.*`max_images`"
        ):
            scorer.try_out(make_clip(images=60))
        with pytest.raises(EpisodeError, match=r"maximum context length is 200"):
            scorer.score(make_clip(images=60), [2, 60], INSTRUCTIONS[:1])
        scorer.close()


def test_a_server_that_takes_no_times_says_what_to_do(tiny_vlm: Path, served_vlm: Vlm) -> None:
    with serve(served_vlm, trusted=False) as state:
        scorer = connect(state, vlm=tiny_vlm)
        with pytest.raises(UserError, match=r"frames with their times.*serve-args"):
            scorer.try_out(make_clip(images=3))
        scorer.close()


def test_the_processor_is_enough(tiny_vlm: Path, served_vlm: Vlm, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for file in tiny_vlm.iterdir():
        if file.suffix in (".json", ".jinja"):
            (folder / file.name).write_bytes(file.read_bytes())
    with serve(served_vlm) as state:
        with_weights = connect(state, vlm=tiny_vlm)
        without = connect(state, vlm=folder)
        clip = make_clip(images=3)
        ours, theirs = (s.score(clip, [3], INSTRUCTIONS[:1]) for s in (without, with_weights))
        np.testing.assert_array_equal(ours.true, theirs.true)
        config = ServerConfig(server=(state.url,))
        one, other = (identify_served(VlmConfig(vlm=str(f)), config) for f in (folder, tiny_vlm))
        assert replace(one, folder=None) == replace(other, folder=None)
        with_weights.close()
        without.close()


def test_colors_that_vllm_would_change_are_refused(
    tiny_vlm: Path, served_vlm: Vlm, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "tiny"))
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"]["image_mean"] = [0.48, 0.46, 0.41]
    (folder / "processor_config.json").write_text(json.dumps(settings))
    with (
        serve(served_vlm) as state,
        pytest.raises(UserError, match="image_mean of the image processor"),
    ):
        connect(state, vlm=folder)


def test_scores_come_from_every_server(tiny_vlm: Path, served_vlm: Vlm) -> None:
    clip = make_clip(images=8)
    with serve(served_vlm) as one, serve(served_vlm) as other:
        scorer = connect(one, other, vlm=tiny_vlm, concurrency=2)
        ours = scorer.score(clip, list(range(1, 9)), INSTRUCTIONS)
        scorer.close()
    assert min(len(one.bodies), len(other.bodies)) > 1
    assert max(one.most_at_once, other.most_at_once) <= 2
    theirs = OnePassScorer(served_vlm).score(clip, list(range(1, 9)), INSTRUCTIONS)
    np.testing.assert_allclose(ours.true, theirs.true, atol=1e-4, rtol=0)
