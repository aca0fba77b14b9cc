"""One exact pass against LeRobot's own port: same checkpoint, same images, same clock, one run.

    python benchmarks/scoring.py                            # a small model, on a CPU
    python benchmarks/scoring.py --model-size 8b --device cuda

Weights are random: what is timed does not depend on them, and the two must agree all the same.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from lerobot.lerobot_types import TransitionKey
from lerobot.rewards.topreward.configuration_topreward import TOPRewardConfig
from lerobot.rewards.topreward.modeling_topreward import TOPRewardModel
from lerobot.rewards.topreward.processor_topreward import (
    TOPREWARD_FEATURE_PREFIX,
    TOPRewardEncoderProcessorStep,
)
from transformers import AutoProcessor

from lerobot_topreward.data.schedule import images_shown, prefix_lengths
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_model, build_tiny_vlm
from lerobot_topreward.vlm.images import LinearPatches, resize, resolution
from lerobot_topreward.vlm.loading import Vlm, check_processor
from lerobot_topreward.vlm.one_pass import OnePassScorer

INSTRUCTION = "pick up the red cube and put it on the goal"
_REAL: dict[str, Any] = {
    "head_dim": 128,
    "kv_heads": 8,
    "embeddings": 151936,
    "grid": 48,
    "vision_heads": 16,
}
SIZES = {
    # Attention, weights and vision cost about what they do in the 2b relative to each other: in
    # a merely narrow model attention would be all that is timed.
    "small": TinyConfig(
        hidden=384, intermediate=1536, layers=4, heads=2, kv_heads=1, head_dim=16,
        vision_hidden=128, vision_intermediate=2048, vision_heads=4, spread=0.1,
    ),
    # As in the config.json of Qwen/Qwen3-VL-{2B,4B,8B}-Instruct.
    "2b": TinyConfig(
        hidden=2048, intermediate=6144, layers=28, heads=16, tied=True, vision_hidden=1024,
        vision_layers=24, vision_intermediate=4096, deepstack=(5, 11, 17), **_REAL,
    ),
    "4b": TinyConfig(
        hidden=2560, intermediate=9728, layers=36, heads=32, tied=True, vision_hidden=1024,
        vision_layers=24, vision_intermediate=4096, deepstack=(5, 11, 17), **_REAL,
    ),
    "8b": TinyConfig(
        hidden=4096, intermediate=12288, layers=36, heads=32, vision_hidden=1152,
        vision_layers=27, vision_intermediate=4304, deepstack=(8, 16, 24), **_REAL,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time the one pass against LeRobot's port."""

    model_size: Literal["small", "2b", "4b", "8b"] = "small"  # 2b's proportions, or a real size
    device: str = "cpu"  # cpu or cuda
    dtype: Literal["float32", "bfloat16"] | None = None  # bfloat16 on cuda, float32 on cpu
    seconds: float = 20.0  # length of the episode
    size: tuple[int, int] = (480, 640)  # height and width of its images
    chunk_tokens: int | None = None  # tokens per forward of the one pass
    repeats: int = 2  # runs of each, in turn; the fastest counts
    cases: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CASE ...")] = (
        "2fps:15",
        "2fps:every",
        "10fps:15",
        "10fps:40",
        "10fps:every",
    )  # sampling rate and prefixes


@dataclass(slots=True)
class Work:
    """What a measured run did."""

    seconds: float = 0.0
    tokens: int = 0  # through the language model
    patches: int = 0  # through the vision tower
    rewards: np.ndarray = field(default_factory=lambda: np.empty(0))


def main(config: BenchmarkConfig) -> None:
    """Run every case and print a table."""
    with TemporaryDirectory() as folder:
        vlm, port = load(config, Path(folder))
        print(f"{config.model_size}: {vlm.model.num_parameters() / 1e9:.4f} B parameters, "
              f"{vlm.model.dtype}, {device_name(config.device)}, "
              f"{torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}")  # fmt: skip
        ceiling = matmul_ceiling(config.device) if config.device.startswith("cuda") else None
        if ceiling:
            print(f"matmul ceiling, 8192 x 8192 x 8192 in bfloat16: {ceiling:.0f} TFLOP/s")
        print("case          images  size      prefixes |  port s   tokens |  ours s   tokens |"
              "  ratio  tokens ratio  max diff (nats)")  # fmt: skip
        for case in config.cases:
            run_case(config, case, vlm, port, ceiling)


def run_case(
    config: BenchmarkConfig, case: str, vlm: Vlm, port: TOPRewardModel, ceiling: float | None
) -> None:
    """Measure one case and print its row."""
    rate, _, prefixes = case.partition("fps:")
    clip = make_clip(config, vlm, float(rate))
    images = len(clip.shown)
    count = None if prefixes == "every" else int(prefixes)
    lengths = prefix_lengths(images, clip.frame_indices, count=count)
    shown = images_shown(lengths, clip.frame_indices).tolist()
    scorer = OnePassScorer(vlm, chunk_tokens=config.chunk_tokens)
    encode = TOPRewardEncoderProcessorStep(
        vlm_name=vlm.model.name_or_path, image_key="video", max_frames=None, fps=clip.fps,
        max_length=10**6,
    )  # fmt: skip

    def ours() -> np.ndarray:
        return scorer.score(clip, shown, [INSTRUCTION]).true[0]

    def theirs() -> np.ndarray:
        return np.array([port_reward(port, encode, clip, n) for n in shown])

    scorer.score(clip, shown[:2], [INSTRUCTION])  # warm up
    port_reward(port, encode, clip, 2)
    runs = [(measure(vlm.model, ours), measure(port.model, theirs)) for _ in range(config.repeats)]
    fast, slow = (min(works, key=lambda work: work.seconds) for works in zip(*runs, strict=True))
    height, width = clip.frames.shape[1:3]
    print(f"{case:<12} {images:>7}  {width}x{height:<6} {len(shown):>7} | "
          f"{slow.seconds:>7.2f} {slow.tokens:>8} | {fast.seconds:>7.2f} {fast.tokens:>8} | "
          f"{slow.seconds / fast.seconds:>5.1f}x {slow.tokens / fast.tokens:>12.1f}x "
          f"{np.abs(slow.rewards - fast.rewards).max():>12.1e}", flush=True)  # fmt: skip
    if ceiling:
        for name, work in (("port", slow), ("ours", fast)):
            rate_tflops = flops(vlm, work) / work.seconds / 1e12
            print(f"  {name}: {rate_tflops:.0f} TFLOP/s of matmuls, {rate_tflops / ceiling:.0%} "
                  f"of the ceiling; peak memory of both "
                  f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB")  # fmt: skip


def load(config: BenchmarkConfig, folder: Path) -> tuple[Vlm, Any]:
    """A checkpoint with random weights, and LeRobot's port around the same one."""
    build_tiny_vlm(folder, text=INSTRUCTION)  # its processor, and a shell for the port
    processor = AutoProcessor.from_pretrained(folder)
    dtype = config.dtype or ("float32" if config.device == "cpu" else "bfloat16")
    previous = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(config.device):
        model: Any = build_model(SIZES[config.model_size], processor.tokenizer)
    torch.set_default_dtype(previous)
    model.config._name_or_path = model.name_or_path = str(folder)
    prologue, answers = check_processor("benchmark", processor)
    port: Any = TOPRewardModel(TOPRewardConfig(vlm_name=str(folder), device="cpu"))
    port.model = copy.deepcopy(model)  # the same weights, as transformers has them
    model.model.visual.patch_embed = LinearPatches(model.model.visual.patch_embed.proj)
    return Vlm(model, processor, prologue, answers), port


def make_clip(config: BenchmarkConfig, vlm: Vlm, fps: float) -> Clip:
    """Images at the resolution that the whole episode is shown at, so that both see the same."""
    count = round(config.seconds * fps)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 15, 20, 3), dtype=np.uint8)
    repeat = (config.size[0] // 15, config.size[1] // 20)
    frames = small.repeat(repeat[0], axis=1).repeat(repeat[1], axis=2)
    order = np.arange(count)
    clip = Clip(Segment(0, 0, count, INSTRUCTION), fps, frames, order, order)
    video = vlm.processor.video_processor
    size = resolution(video, clip, max_pixels=None)
    fitted = resize(video, frames, size=size, device=torch.device("cpu"))
    return Clip(clip.segment, fps, fitted.permute(0, 2, 3, 1).numpy(), order, order)


def port_reward(
    port: TOPRewardModel, encode: TOPRewardEncoderProcessorStep, clip: Clip, shown: int
) -> float:
    """LeRobot's own way: encode the prefix, one forward, one number."""
    transition: Any = {
        TransitionKey.OBSERVATION: {"video": torch.from_numpy(clip.frames[None, :shown])},
        TransitionKey.COMPLEMENTARY_DATA: {"task": INSTRUCTION},
    }
    batch = encode(transition)[TransitionKey.OBSERVATION]
    batch = {k: v for k, v in batch.items() if k.startswith(TOPREWARD_FEATURE_PREFIX)}
    return float(port.compute_reward(batch))


def measure(model: Any, run: Callable[[], np.ndarray]) -> Work:
    """Time a run and count the tokens and patches that go through the model."""
    work = Work()
    with counted(model, work):
        synchronize()
        began = time.perf_counter()
        work.rewards = run()
        synchronize()
        work.seconds = time.perf_counter() - began
    return work


@contextmanager
def counted(model: Any, work: Work) -> Iterator[None]:
    """Count what passes through the language model and the vision tower."""

    def text(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        work.tokens += kwargs["inputs_embeds"].shape[1]

    def vision(_: Any, args: tuple, __: dict[str, Any]) -> None:
        work.patches += args[0].shape[0]

    inner = model.model
    hooks = [
        inner.language_model.register_forward_pre_hook(text, with_kwargs=True),
        inner.visual.register_forward_pre_hook(vision, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def flops(vlm: Vlm, work: Work) -> float:
    """Multiply-adds of the weights, twice; attention and the output layer are left out."""
    inner = vlm.model.model
    text = sum(p.numel() for p in inner.language_model.layers.parameters())
    vision = sum(p.numel() for p in inner.visual.blocks.parameters())
    return 2.0 * (text * work.tokens + vision * work.patches)


def matmul_ceiling(device: str) -> float:
    """TFLOP/s of a large square matmul in bfloat16, the best of five."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(5):
        synchronize()
        began = time.perf_counter()
        for _ in range(10):
            torch.mm(a, a)
        synchronize()
        best = min(best, (time.perf_counter() - began) / 10)
    return 2 * 8192**3 / best / 1e12


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """What the numbers were measured on."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
