"""How much memory a long clip takes while it is read for a Qwen3-VL.

    python benchmarks/long_clip.py

Encodes 600 s of 640x480 at 30 Hz and reads it as `label` does, at 2 images a second: each frame resized
when it is decoded to what the pixel budget of the Hub's checkpoints leaves it, then at full size. Prints
the bytes of the clip, and by how much reading it raises the peak memory of the process.
"""

import resource
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
import tyro
from transformers import Qwen3VLVideoProcessor

from lerobot_topreward.data.video import Fit, read_video, sample_clip
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.simulation.tiny_vlm import VIDEO_BUDGET
from lerobot_topreward.vlm.images import fit_frame


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is encoded."""

    seconds: float = 600
    size: tuple[int, int] = (480, 640)  # height and width
    fps: int = 30


def main(config: BenchmarkConfig) -> None:
    """Encode, read, print."""
    processor = Qwen3VLVideoProcessor(size=VIDEO_BUDGET)

    def fit(frame: np.ndarray, images: int) -> np.ndarray:
        device = torch.device("cpu")
        return fit_frame(processor, frame, images, max_pixels=None, device=device)

    with TemporaryDirectory() as folder:
        path = Path(folder, "long.mp4")
        encode(path, config)
        read(path, config, fit=fit, seconds=min(10, config.seconds))  # what libraries need at first
        for name, way in (("resized", fit), ("full size", None)):
            before = _peak_mb()
            clip = read(path, config, fit=way, seconds=config.seconds)
            height, width = clip.frames.shape[1:3]
            print(f"{name:<10} {len(clip.frames)} images of {width}x{height}: "
                  f"{clip.frames.nbytes / 1e6:.0f} MB, peak +{_peak_mb() - before:.0f} MB")  # fmt: skip


def encode(path: Path, config: BenchmarkConfig) -> None:
    """Encode a square that moves over noise."""
    height, width = config.size
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "g": "2"}  # LeRobot's interval of keyframes
        stream = container.add_stream("h264", rate=config.fps, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(round(config.seconds * config.fps)):
            image = noise.copy()
            x = i % (width - 80)
            image[200:280, x : x + 80] = (200, 60, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())


def read(path: Path, config: BenchmarkConfig, *, fit: Fit | None, seconds: float) -> Clip:
    """Read so many seconds as one clip."""
    return sample_clip(
        lambda frames, keep: read_video(path, frames / config.fps, keep, name=Path(path.name)),
        fps=config.fps,
        segment=Segment(0, 0, round(seconds * config.fps), "move the square"),
        sample_fps=2.0,
        final_frame=True,
        fit=fit,
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
