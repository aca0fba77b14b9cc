"""The built-in one pass against a real vLLM server, on the same clips: seconds, requests, difference.

    python benchmarks/server.py --vlm build/tiny                  # builds it, prints a vllm command
    python benchmarks/server.py --vlm build/tiny --server URL     # with that running

docs/guide/server.md says how a vLLM for a CPU is made. The checkpoint is tiny and random, so seconds
are those of requests and images, not of a VLM.
"""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import Scorer
from lerobot_topreward.serve_args.command import vllm_command
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.server.config import ServerConfig, Video
from lerobot_topreward.vlm.server.probe import identify_served
from lerobot_topreward.vlm.server.scorer import ServerScorer

INSTRUCTION = "pick up the red cube"


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare the ways to ask one checkpoint."""

    vlm: Path  # folder of the checkpoint; built where there is none
    server: str | None = None  # URL of the vLLM that serves it
    clips: int = 24  # 1 to 60 random images each


def main(config: BenchmarkConfig) -> None:
    """Build the checkpoint and say how to serve it, or measure."""
    if not config.vlm.exists():
        # vLLM's attention on a CPU knows no smaller heads.
        build_tiny_vlm(config.vlm, config=TinyConfig(head_dim=32, spread=0.2), text=INSTRUCTION)
    if config.server is None:
        folder = str(config.vlm.resolve())
        command = vllm_command(
            folder, video="exact", max_images=64, max_tokens=16384, dtype="float32"
        )
        print(shlex.join([*command, "--enforce-eager"]))  # compiling takes minutes on a CPU
        return
    clips = make_clips(config.clips)
    local = VlmConfig(vlm=str(config.vlm), device="cpu", dtype="float32")
    built_in, exact = measure(OnePassScorer(load_vlm(local)), clips)
    prefixes = sum(len(values) for values in exact)
    print(f"{len(clips)} clips, {prefixes} prefixes, float32")
    print(f"{'built-in one pass':<20} {built_in:6.1f} s  {len(clips):5} passes")
    modes: tuple[Video, ...] = ("exact", "images")
    for mode in modes:
        server = ServerConfig(server=(config.server,), server_video=mode)
        identity = identify_served(VlmConfig(vlm=str(config.vlm)), server)
        assert identity.served is not None
        scorer = ServerScorer(server, identity)
        seconds, found = measure(scorer, clips)
        scorer.close()
        worst = max(float(np.abs(a - b).max()) for a, b in zip(found, exact, strict=True))
        print(
            f"{identity.served.server + ', ' + mode:<20} {seconds:6.1f} s  {prefixes:5} requests, "
            f"largest difference {worst:.1e} nats"
        )


def make_clips(count: int) -> list[Clip]:
    """Random clips of several sizes and clocks."""
    rng = np.random.default_rng(7)
    clips = []
    for case in range(count):
        images = (1, 2, 60, 59)[case] if case < 4 else int(rng.integers(1, 61))
        height, width = (int(side) for side in rng.integers(40, 130, 2))
        step, fps = int(rng.integers(1, 30)), float(rng.choice([0.7, 10.0, 29.97, 30.0]))
        frames = rng.integers(0, 256, (images, height, width, 3), dtype=np.uint8)
        segment = Segment(0, 0, (images - 1) * step + 1, INSTRUCTION)
        index = np.arange(images)
        clips.append(Clip(segment, fps, frames, index, index * step))
    return clips


def measure(scorer: Scorer, clips: list[Clip]) -> tuple[float, list[np.ndarray]]:
    """Score some prefixes of every clip; seconds and log P(True)."""
    found = []
    began = time.perf_counter()
    for clip in clips:
        images = len(clip.shown)
        prefixes = sorted({1, images // 2 + 1, max(1, images - 1), images})
        found.append(scorer.score(clip, prefixes, [INSTRUCTION]).true[0])
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
