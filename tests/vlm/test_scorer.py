import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.rewards.topreward.configuration_topreward import TOPRewardConfig
from lerobot.rewards.topreward.modeling_topreward import TOPRewardModel
from lerobot.rewards.topreward.processor_topreward import (
    TOPREWARD_FEATURE_PREFIX,
    TOPRewardEncoderProcessorStep,
)
from scipy.stats import rankdata
from transformers import Qwen3VLMoeForConditionalGeneration

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import FittingScorer, static_control
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.images import resize, resolution
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

INSTRUCTIONS = ("pick up the red cube", "fold the towel, then öffne die Schublade", "x")
MODELS = {
    "plain": TinyConfig(spread=0.2),
    "deep": TinyConfig(layers=5, vision_layers=4, deepstack=(0, 2, 3), spread=0.2, seed=1),
    "wide": TinyConfig(hidden=96, heads=6, kv_heads=3, head_dim=24, grid=6, spread=0.2, seed=2),
    "shallow": TinyConfig(layers=1, vision_layers=1, deepstack=(0,), kv_heads=4, seed=3),
    "mixture": TinyConfig(experts=4, spread=0.2, seed=4),
    "mixture-deep": TinyConfig(experts=6, layers=4, intermediate=48, spread=0.1, seed=5),
}
FPS = 2.0  # of the clips' clock, unless told otherwise
# images, height, width, fps of the clip's clock, instructions, tokens per chunk
SHAPES = [
    (1, 64, 64, 2.0, 1, 4096),
    (2, 64, 96, 2.0, 2, 4096),
    (7, 96, 64, 30.0, 3, 200),
    (16, 64, 64, 10.0, 1, 128),
    (41, 64, 96, 2.0, 1, 700),
    (60, 64, 64, 0.7, 1, 4096),
]


@pytest.fixture(scope="module", params=MODELS)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    folder = tmp_path_factory.mktemp("vlm") / request.param
    build_tiny_vlm(folder, config=MODELS[request.param], text=" ".join(INSTRUCTIONS))
    return load_vlm(VlmConfig(vlm=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_vlm(tmp_path_factory.mktemp("vlm") / "plain", config=MODELS["plain"])


def make_clip(
    *,
    images: int,
    height: int = 64,
    width: int = 64,
    fps: float = FPS,
    step: int = 1,
    seed: int = 0,
) -> Clip:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8)
    return Clip(
        Segment(0, 0, (images - 1) * step + 1, INSTRUCTIONS[0]),
        fps,
        frames,
        np.arange(images),
        np.arange(images) * step,
    )


@pytest.fixture(scope="module")
def lerobot_rewards(vlm: Vlm, plain_folder: Path) -> Callable[[Clip, list[int], str], np.ndarray]:
    """What LeRobot's own port gives for prefixes of the same images at the same clock."""
    folder = vlm.model.name_or_path
    moe = vlm.model.config.model_type == "qwen3_vl_moe"
    # The port loads dense checkpoints only, but scores any.
    name = str(plain_folder) if moe else folder
    model: Any = TOPRewardModel(TOPRewardConfig(vlm_name=name, device="cpu", torch_dtype="float32"))
    if moe:
        model.model = Qwen3VLMoeForConditionalGeneration.from_pretrained(folder)
    key = "observation.images.top"
    encode = TOPRewardEncoderProcessorStep(vlm_name=folder, image_key=key, max_frames=None, fps=FPS)

    def score(clip: Clip, prefixes: list[int], instruction: str) -> np.ndarray:
        assert clip.fps == FPS
        rewards = []
        for shown in prefixes:
            transition = {
                TransitionKey.OBSERVATION: {key: torch.from_numpy(clip.frames[None, :shown])},
                TransitionKey.COMPLEMENTARY_DATA: {"task": instruction},
            }
            batch = encode(transition)[TransitionKey.OBSERVATION]
            batch = {k: v for k, v in batch.items() if k.startswith(TOPREWARD_FEATURE_PREFIX)}
            rewards.append(float(model.compute_reward(batch)))
        return np.array(rewards)

    return score


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}x{s[2]}")
def test_one_pass_equals_one_forward_per_prefix(vlm: Vlm, shape: tuple) -> None:
    images, height, width, fps, count, chunk = shape
    clip = make_clip(images=images, height=height, width=width, fps=fps, step=3, seed=images)
    prefixes = list(range(1, images + 1)) if images <= 16 else [1, 2, 5, 16, images - 1, images]
    instructions = INSTRUCTIONS[:count]
    ours = OnePassScorer(vlm, chunk_tokens=chunk).score(clip, prefixes, instructions)
    oracle = PerPrefixScorer(vlm).score(clip, prefixes, instructions)
    assert ours.true.shape == (count, len(prefixes))
    np.testing.assert_allclose(ours.true, oracle.true, atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours.false, oracle.false, atol=1e-4, rtol=0)


@pytest.mark.parametrize("images", [1, 2, 9, 14, 33])
def test_one_pass_equals_lerobots_own_model(
    vlm: Vlm, lerobot_rewards: Callable[..., np.ndarray], images: int
) -> None:
    clip = make_clip(images=images, height=64, width=96, seed=images)
    prefixes = sorted({1, 2, 3, images // 2 + 1, images} & set(range(1, images + 1)))
    ours = OnePassScorer(vlm).score(clip, prefixes, [INSTRUCTIONS[1]])
    oracle = lerobot_rewards(clip, prefixes, INSTRUCTIONS[1])
    np.testing.assert_allclose(ours.true[0], oracle, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def plain(plain_folder: Path) -> Vlm:
    return load_vlm(VlmConfig(vlm=str(plain_folder), device="cpu"))


def test_controls_reuse_a_frame_and_stay_exact(plain: Vlm) -> None:
    clip = static_control(make_clip(images=9))
    ours = OnePassScorer(plain).score(clip, [1, 4, 7, 9], INSTRUCTIONS[:1])
    repeated = replace(clip, frames=clip.frames[clip.shown], shown=np.arange(9))
    oracle = PerPrefixScorer(plain).score(repeated, [1, 4, 7, 9], INSTRUCTIONS[:1])
    np.testing.assert_allclose(ours.true, oracle.true, atol=1e-4, rtol=0)


def test_bfloat16_keeps_the_order_of_a_curve(plain_folder: Path, plain: Vlm) -> None:
    bf16 = load_vlm(VlmConfig(vlm=str(plain_folder), device="cpu", dtype="bfloat16"))
    clip = make_clip(images=24, seed=3)
    # A curve that is not flat: images that brighten.
    ramp = np.linspace(0, 1, 24)[:, None, None, None]
    clip = replace(clip, frames=(clip.frames * ramp).astype(np.uint8))
    prefixes = list(range(1, 25))
    exact = OnePassScorer(plain).score(clip, prefixes, INSTRUCTIONS[:1]).true[0]
    ours = OnePassScorer(bf16).score(clip, prefixes, INSTRUCTIONS[:1]).true[0]
    theirs = PerPrefixScorer(bf16).score(clip, prefixes, INSTRUCTIONS[:1]).true[0]
    assert np.ptp(exact) > 0.5
    assert rank_correlation(ours, theirs) >= 0.99
    assert rank_correlation(ours, exact) >= 0.99


def test_the_prompt_is_written_down_here(plain: Vlm) -> None:
    seen: list[torch.Tensor] = []
    embed = plain.model.get_input_embeddings()
    hook = embed.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten()))
    OnePassScorer(plain).score(make_clip(images=3, fps=2.0), [3], ["fold it"])
    hook.remove()
    tokenizer = plain.processor.tokenizer
    image = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    prompt = (
        f"<|im_start|>user\n<0.2 seconds>{image}<1.0 seconds>{image}"
        "The above video shows a robot manipulation trajectory that completes the following task: "
        "fold it Decide whether the above statement is True or not. The answer is:"
    )
    found = torch.cat(seen).tolist()
    assert tokenizer.decode(found) == prompt
    # Each part is tokenized by itself, as Qwen's processor does.
    assert found == [
        token
        for part in re.split(r"(?<=seconds>)|(?=The above)", prompt)
        for token in tokenizer(part, add_special_tokens=False)["input_ids"]
    ]


def test_answers_are_read_in_float32(plain_folder: Path) -> None:
    vlm = load_vlm(VlmConfig(vlm=str(plain_folder), device="cpu", dtype="bfloat16"))
    head = vlm.model.lm_head
    hidden = torch.randn(40, head.in_features, generator=torch.Generator().manual_seed(0))
    hidden = (20 * hidden / (hidden @ head.weight.float().T).std()).bfloat16()  # logits of some 20
    exact = torch.log_softmax(hidden.double() @ head.weight.double().T, dim=-1)[:, vlm.answers]
    with torch.inference_mode():
        rounded = torch.log_softmax(head(hidden).double(), dim=-1)[:, vlm.answers]
        found = vlm.read_answers(hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=1e-5)
    assert (rounded - exact).abs().max() > 0.05  # what the model's own head makes of them


def test_a_quantized_head_answers_itself() -> None:
    class Quantized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(9, dtype=torch.int8), requires_grad=False)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden * torch.tensor([1.0, 3.0])

    vlm = Vlm(SimpleNamespace(lm_head=Quantized()), None, "", (0, 1))
    expected = torch.log_softmax(torch.tensor([[2.0, 6.0]]), dim=-1)
    torch.testing.assert_close(vlm.read_answers(torch.full((1, 2), 2.0)), expected)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def test_images_are_shrunk_once_for_every_prefix(plain: Vlm) -> None:
    clip = make_clip(images=5, height=128, width=160)
    scorer = OnePassScorer(plain, max_pixels=64 * 96)
    ours = scorer.score(clip, [1, 3, 5], INSTRUCTIONS[:1])
    oracle = PerPrefixScorer(plain, max_pixels=64 * 96).score(clip, [1, 3, 5], INSTRUCTIONS[:1])
    np.testing.assert_allclose(ours.true, oracle.true, atol=1e-4, rtol=0)
    size = resolution(plain.processor.video_processor, clip, max_pixels=64 * 96)
    assert size[0] * size[1] <= 64 * 96


def test_running_out_of_memory_halves_the_chunk(plain_folder: Path) -> None:
    vlm = load_vlm(VlmConfig(vlm=str(plain_folder), device="cpu"))
    clip = make_clip(images=20)
    whole = OnePassScorer(vlm).score(clip, list(range(1, 21)), INSTRUCTIONS[:1])
    with full_beyond(vlm, tokens=300):
        scorer = OnePassScorer(vlm, chunk_tokens=4096)
        halved = scorer.score(clip, list(range(1, 21)), INSTRUCTIONS[:1])
    assert scorer.chunk_tokens == 256
    np.testing.assert_allclose(halved.true, whole.true, atol=1e-4, rtol=0)


def test_running_out_of_memory_for_good_fails_the_episode(plain_folder: Path) -> None:
    vlm = load_vlm(VlmConfig(vlm=str(plain_folder), device="cpu"))
    scorer = OnePassScorer(vlm)
    roomy = scorer.chunk_tokens
    with full_beyond(vlm, tokens=10), pytest.raises(EpisodeError, match=r"out of memory.*`max_p"):
        scorer.score(make_clip(images=4), [4], INSTRUCTIONS[:1])
    assert scorer.chunk_tokens == roomy


@contextmanager
def full_beyond(vlm: Vlm, *, tokens: int) -> Iterator[None]:
    """A device on which a forward of more tokens than this does not fit."""

    def refuse(_: torch.nn.Module, __: tuple, kwargs: dict) -> None:
        if kwargs["inputs_embeds"].shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = vlm.model.model.language_model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def test_nan_logits_fail_the_episode(plain_folder: Path) -> None:
    vlm = load_vlm(VlmConfig(vlm=str(plain_folder), device="cpu"))
    with torch.no_grad():
        vlm.model.lm_head.weight.fill_(float("nan"))
    for scorer in (OnePassScorer(vlm), PerPrefixScorer(vlm)):
        with pytest.raises(EpisodeError, match="not finite"):
            scorer.score(make_clip(images=3), [3], INSTRUCTIONS[:1])


def test_images_smaller_than_a_patch_fail_the_episode(plain: Vlm) -> None:
    with pytest.raises(EpisodeError, match="24x24"):
        OnePassScorer(plain).score(make_clip(images=3, height=24, width=24), [3], INSTRUCTIONS[:1])


@pytest.mark.parametrize("size", [(128, 160), (97, 131), (64, 64)])
@pytest.mark.parametrize("scorer_class", [OnePassScorer, PerPrefixScorer])
def test_frames_that_were_fitted_when_decoded_score_exactly_the_same(
    plain: Vlm, size: tuple[int, int], scorer_class: type[OnePassScorer | PerPrefixScorer]
) -> None:
    clip = make_clip(images=5, height=size[0], width=size[1])
    scorer = scorer_class(plain, max_pixels=64 * 96)
    assert isinstance(scorer, FittingScorer)
    frames = np.stack([scorer.fit(frame, 5) for frame in clip.frames])
    fitted = replace(clip, frames=frames, recorded_size=clip.size)
    shown = scorer.shown_size(clip)
    assert scorer.shown_size(fitted) == shown
    assert frames.shape[1:3] == (shown if shown[0] * shown[1] < size[0] * size[1] else size)
    processor = plain.processor.video_processor
    ours, theirs = (
        resize(processor, each.frames, size=shown, device=plain.device) for each in (fitted, clip)
    )
    assert torch.equal(ours, theirs)
    for of in (lambda whole: whole, static_control):
        ours, theirs = (scorer.score(of(each), [1, 3, 5], INSTRUCTIONS) for each in (fitted, clip))
        np.testing.assert_array_equal(ours.true, theirs.true)
        np.testing.assert_array_equal(ours.false, theirs.false)
