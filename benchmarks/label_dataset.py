"""Seconds and peak memory of ``lerobot-topreward label`` on a dataset like those people record.

    python benchmarks/label_dataset.py

Records one with LeRobot's own API (two cameras, AV1, 30 fps, 640x480, several tasks, 20 s
episodes), labels it in a process of its own with a tiny checkpoint, then once more with another
horizon, which asks no VLM. Reading, decoding and writing cost what they do with a large checkpoint.

    python benchmarks/label_dataset.py --model-size 2b --episodes 1 --preset laptop

Labels with a checkpoint of a real size and random weights, so that the command's own estimate,
which it prints first, can be compared with what it took.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
import tyro
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from scoring import SIZES

from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm

TASKS = ("put the red block in the box", "open the drawer", "stack the cups")
CAMERAS = ("front", "wrist")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is recorded and labeled."""

    episodes: int = 6  # recorded
    seconds: float = 20.0  # each
    fps: int = 30  # of the recording
    size: tuple[int, int] = (480, 640)  # height and width
    model_size: Literal["tiny", "small", "2b", "4b", "8b"] = "tiny"  # of the checkpoint
    preset: str | None = None  # of the label command, such as laptop


def main(config: BenchmarkConfig) -> None:
    """Record, label twice, print."""
    with TemporaryDirectory() as folder:
        root, vlm, output = Path(folder, "dataset"), Path(folder, "vlm"), Path(folder, "labelled")
        began = time.perf_counter()
        record(config, root)
        frames = round(config.episodes * config.seconds * config.fps)
        print(f"recorded {config.episodes} episodes, {frames} frames, {len(CAMERAS)} cameras in "
              f"{time.perf_counter() - began:.0f} s")  # fmt: skip
        build(config, vlm)
        command = [sys.executable, "-m", "lerobot_topreward", "label", "--root", str(root)]
        command += ["--vlm", str(vlm), "--output", str(output)]
        command += [] if config.preset is None else ["--config", config.preset]
        for name, more in (("label", []), ("label --horizon 2", ["--horizon", "2"])):
            seconds, peak = measure([*command, *more])
            print(f"{name:<18} {seconds:6.1f} s  peak memory {peak / 1e9:.2f} GB")


def build(config: BenchmarkConfig, folder: Path) -> None:
    """Save a checkpoint with random weights, in bfloat16 as published ones."""
    sizes = {"tiny": TinyConfig(spread=0.2)} | SIZES
    text = " ".join(TASKS)
    torch.set_default_dtype(torch.float32 if config.model_size == "tiny" else torch.bfloat16)
    build_tiny_vlm(folder, config=sizes[config.model_size], text=text)
    torch.set_default_dtype(torch.float32)


def record(config: BenchmarkConfig, root: Path) -> None:
    """Record what a person with an arm and two cameras would."""
    features: dict[str, dict] = {
        f"observation.images.{camera}": {
            "dtype": "video",
            "shape": (*config.size, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in CAMERAS
    }
    for name in ("observation.state", "action"):
        features[name] = {"dtype": "float32", "shape": (6,), "names": None}
    dataset = LeRobotDataset.create("local/recorded", fps=config.fps, features=features, root=root)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (*config.size, 3), dtype=np.uint8)
    for episode in range(config.episodes):
        for frame in range(round(config.seconds * config.fps)):
            image = noise.copy()
            x = (frame + 40 * episode) % (config.size[1] - 80)
            image[200:280, x : x + 80] = (200, 60, 40)
            values = rng.normal(size=6).astype(np.float32)
            dataset.add_frame(
                {f"observation.images.{camera}": image for camera in CAMERAS}
                | {"observation.state": values, "action": values}
                | {"task": TASKS[episode % len(TASKS)]}
            )
        dataset.save_episode()
    dataset.finalize()


def measure(command: list[str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"the command failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
