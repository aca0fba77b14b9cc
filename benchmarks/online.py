"""What one more image costs while the robot moves, against LeRobot's port asked anew.

    python benchmarks/online.py                            # a small model, on a CPU
    python benchmarks/online.py --model-size 8b --device cuda

Weights are random, see scoring.py. Last comes how far a sliding window and thinning are from the
full prefix, with the demo's VLM on its bundled episodes.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from lerobot.rewards.topreward.processor_topreward import TOPRewardEncoderProcessorStep
from scoring import INSTRUCTION, BenchmarkConfig, device_name, load, port_reward

from lerobot_topreward import OnlineScorer, VlmConfig, load_scorer
from lerobot_topreward.data.dataset import open_source, segments
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.online.scorer import Beyond, OnlineScore
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.simulation.simulate import CAMERA
from lerobot_topreward.vlm.identity import BUILTIN
from lerobot_topreward.vlm.one_pass import OnePassScorer

AT = (10, 50, 200)  # images


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Time added images, and compare what is shown beyond `max_images`."""

    model_size: Literal["small", "2b", "4b", "8b"] = "small"  # 2b's proportions, or a real size
    device: str = "cpu"  # cpu or cuda
    size: tuple[int, int] = (480, 640)  # height and width of the images
    fps: float = 2.0  # of the images
    repeats: int = 2  # runs of each; the fastest counts
    demo_episodes: int = 6  # of the bundled ones, with one image in ten of a second
    demo_max_images: int = 16  # for them


def main(config: OnlineConfig) -> None:
    """Print three tables."""
    with TemporaryDirectory() as folder:
        options = BenchmarkConfig(model_size=config.model_size, device=config.device)
        vlm, port = load(options, Path(folder))
        print(f"{config.model_size}: {vlm.model.num_parameters() / 1e9:.4f} B parameters, "
              f"{vlm.model.dtype}, {device_name(config.device)}, "
              f"{torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}")  # fmt: skip
        encode = TOPRewardEncoderProcessorStep(
            vlm_name=vlm.model.name_or_path, image_key="video", max_frames=None, fps=config.fps,
            max_length=10**6,
        )  # fmt: skip
        for images in (AT[-1], 50):
            online = OnlineScorer(OnePassScorer(vlm), INSTRUCTION, max_images=images)
            budget = online.budget(*config.size)
            frames = draw(images, budget.size)
            runs = [add_all(online, frames, config.fps) for _ in range(config.repeats)]
            height, width = budget.size
            print(f"\nmax_images={images}: shown at {width}x{height}, keys and values "
                  f"{budget.cache_bytes / 1e6:.1f} MB, {budget.cache_bytes / images / 1e3:.0f} kB "
                  f"an image, pixels {3 * height * width / 1e3:.0f} kB an image")  # fmt: skip
            print("images   ours ms   port ms   ratio   difference (nats)")
            for at in (n for n in AT if n <= images):
                # A pair: an odd image has a block of its own, too.
                ours = min(
                    float(np.mean([score.milliseconds for score in scores[at - 2 : at]]))
                    for scores in runs
                )
                theirs, reward = ask_port(port, encode, frames[:at], config)
                print(f"{at:>6} {ours:>9.1f} {theirs:>9.1f} {theirs / ours:>6.1f}x "
                      f"{abs(reward - runs[0][at - 1].log_prob_true):>12.1e}", flush=True)  # fmt: skip
    compare_beyond(config)


def draw(images: int, size: tuple[int, int]) -> np.ndarray:
    """Random images at the size at which they are shown, so that both see the same."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (images, size[0] // 32, size[1] // 32, 3), dtype=np.uint8)
    return small.repeat(32, axis=1).repeat(32, axis=2)


def add_all(online: OnlineScorer, frames: np.ndarray, fps: float) -> list[OnlineScore]:
    """Add images of one episode."""
    online.reset()
    return [online.add(frame, i / fps) for i, frame in enumerate(frames)]


def ask_port(
    port: Any, encode: Any, frames: np.ndarray, config: OnlineConfig
) -> tuple[float, float]:
    """Ask LeRobot's port about a prefix; the milliseconds of the fastest time, and its answer."""
    order = np.arange(len(frames))
    clip = Clip(Segment(0, 0, len(frames), INSTRUCTION), config.fps, frames, order, order)
    took, reward = [], 0.0
    for _ in range(config.repeats):
        began = time.perf_counter()
        reward = port_reward(port, encode, clip, len(frames))
        took.append(1000 * (time.perf_counter() - began))
    return min(took), reward


def compare_beyond(config: OnlineConfig) -> None:
    """Print how far the score of fewer images is from that of all."""
    source = open_source(repo_id=None, root=DATASET, revision=None)
    scorer = load_scorer(VlmConfig(vlm=BUILTIN, device="cpu"))
    episodes = list(range(config.demo_episodes))
    most = config.demo_max_images
    gaps: dict[Beyond, list[np.ndarray]] = {name: [] for name in get_args(Beyond)}
    for parts in segments(source, episodes, instruction=None).values():
        clip = read_clip(source, camera=CAMERA, segment=parts[0], sample_fps=10.0, final_frame=True)
        times = clip.frame_indices / clip.fps
        curves: dict[str, np.ndarray] = {}
        for beyond in gaps:
            online = OnlineScorer(
                scorer,
                parts[0].instruction,
                # All images have the size that the whole episode has.
                max_images=len(times) if beyond == "refuse" else most,
                beyond=beyond,
            )
            scores = [
                online.add(frame, time) for frame, time in zip(clip.frames, times, strict=True)
            ]
            curves[beyond] = np.exp([score.log_prob_true for score in scores])[most:]
        for beyond in ("window", "thin"):
            gaps[beyond].append(np.abs(curves[beyond] - curves["refuse"]))
    print(f"\ndemo's VLM, {config.demo_episodes} bundled episodes at 10 images a second, "
          f"max_images={most}: P(True) against that of the full prefix")  # fmt: skip
    for beyond in ("window", "thin"):
        gap = np.concatenate(gaps[beyond])
        print(f"{beyond:<8} mean difference {gap.mean():.3f}, 95 % below "
              f"{np.quantile(gap, 0.95):.3f}, largest {gap.max():.3f} ({len(gap)} images)")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(OnlineConfig, description=__doc__))
