"""How many episodes a second decoding can feed a VLM that costs nothing.

    python benchmarks/decode.py

Records episodes of 20 s, 640x480 at 30 Hz, with LeRobot's own API: AV1 and H.264, with the keyframe
interval that LeRobot's encoder sets (2) and with a long one. Reads each of them several times as
`label` does, at 2 images a second, with 1, 2, 4, ... threads, and prints episodes per second and the
CPU seconds that an episode takes.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import open_source, segments
from lerobot_topreward.data.prefetch import work_ahead
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, Segment

CAMERA = "observation.images.front"


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is recorded, and how it is read."""

    episodes: int = 2  # recorded of each kind
    seconds: float = 20.0  # each
    size: tuple[int, int] = (480, 640)  # height and width
    codecs: tuple[str, ...] = ("libsvtav1", "h264")
    intervals: tuple[int, ...] = (2, 250)  # frames from one keyframe to the next
    reads: int = 8  # episodes read per row
    workers: tuple[int, ...] = ()  # threads; by default 1, 2, 4, ... up to the cores


def main(config: BenchmarkConfig) -> None:
    """Record, read, print."""
    cores = os.cpu_count() or 1
    workers = config.workers or tuple(2**i for i in range(cores.bit_length()) if 2**i <= cores)
    print(f"{'codec':<10} {'keyframes':>9} {'workers':>7} {'episodes/s':>10} {'CPU s each':>10}")
    for codec in config.codecs:
        for interval in config.intervals:
            with TemporaryDirectory() as folder:
                root = Path(folder, "dataset")
                record(config, root, codec=codec, interval=interval)
                for count in workers:
                    rate, cpu = measure(config, root, workers=count)
                    print(f"{codec:<10} {interval:>9} {count:>7} {rate:>10.2f} {cpu:>10.2f}",
                          flush=True)  # fmt: skip


def record(config: BenchmarkConfig, root: Path, *, codec: str, interval: int) -> None:
    """Record episodes in which a square moves over noise."""
    features: dict[str, dict] = {
        CAMERA: {"dtype": "video", "shape": (*config.size, 3), "names": ["height", "width", "c"]},
        "action": {"dtype": "float32", "shape": (6,), "names": None},
    }
    encoder = RGBEncoderConfig(vcodec=codec, g=interval)
    dataset = LeRobotDataset.create(
        "local/decode", fps=30, features=features, root=root, rgb_encoder=encoder
    )
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (*config.size, 3), dtype=np.uint8)
    for episode in range(config.episodes):
        for frame in range(round(config.seconds * 30)):
            image = noise.copy()
            x = (frame + 40 * episode) % (config.size[1] - 80)
            image[200:280, x : x + 80] = (200, 60, 40)
            values = rng.normal(size=6).astype(np.float32)
            dataset.add_frame({CAMERA: image, "action": values, "task": "move the square"})
        dataset.save_episode()
    dataset.finalize()


def measure(config: BenchmarkConfig, root: Path, *, workers: int) -> tuple[float, float]:
    """Read episodes in order; episodes per second, and CPU seconds for each."""
    source = open_source(repo_id=None, root=root, revision=None)
    cut = segments(source, range(config.episodes), instruction=None)
    parts = [part for own in cut.values() for part in own]
    todo = [parts[i % len(parts)] for i in range(config.reads)]

    def read(segment: Segment) -> Clip:
        return read_clip(source, camera=CAMERA, segment=segment, sample_fps=2.0, final_frame=True)

    began, cpu = time.perf_counter(), time.process_time()
    for _, clip in work_ahead(read, todo, ahead=workers):
        if isinstance(clip, EpisodeError):
            raise clip
    used = time.process_time() - cpu
    return len(todo) / (time.perf_counter() - began), used / len(todo)


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
