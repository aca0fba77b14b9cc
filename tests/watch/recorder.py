"""A recorder: LeRobot's own writer, one step at a time, or in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.watch.follow import Clock

FPS = 10
CAMERA = "observation.images.front"
TASK = "pick up the cube"


class Recorder:
    """Writes a dataset as lerobot-record does."""

    def __init__(
        self, root: Path, *, resume: bool = False, video: bool = True, **writing: Any
    ) -> None:
        image = {
            "dtype": "video" if video else "image",
            "shape": (64, 96, 3),
            "names": ["height", "width", "channels"],
        }
        writing["rgb_encoder"] = RGBEncoderConfig(vcodec="h264") if video else None
        if resume:
            self.dataset = LeRobotDataset.resume("local/recorded", root=root, **writing)
        else:
            vector = {"dtype": "float32", "shape": (6,), "names": None}
            self.dataset = LeRobotDataset.create(
                "local/recorded",
                fps=FPS,
                features={CAMERA: image, "observation.state": vector, "action": vector},
                root=root,
                use_videos=video,
                **writing,
            )

    def add(self, frames: int, task: str = TASK, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        for frame in range(frames):
            image = np.full((64, 96, 3), 40 + seed % 100, dtype=np.uint8)
            image[:, : 1 + 3 * frame % 96, 0] = 200
            self.dataset.add_frame(
                {
                    CAMERA: image,
                    "observation.state": rng.normal(size=6).astype(np.float32),
                    "action": rng.normal(size=6).astype(np.float32),
                    "task": task,
                }
            )

    def save(self, frames: int, task: str = TASK, *, seed: int = 0) -> None:
        self.add(frames, task, seed=seed)
        self.dataset.save_episode()

    def discard(self, frames: int) -> None:
        """Begin an episode and record it again, which saves nothing."""
        self.add(frames)
        self.dataset.clear_episode_buffer()

    def close(self) -> None:
        self.dataset.finalize()


def script(*steps: Callable[[], object]) -> Clock:
    """A clock: whenever the watch waits, the next step is done; after the last one it is stopped."""
    now, waiting = 0.0, list(steps)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += 10  # longer than anything is waited for before it is said
        if waiting:
            waiting.pop(0)()
        else:
            stop()

    return Clock(lambda: now, sleep)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def start(
    root: Path,
    lengths: Sequence[int],
    *,
    go: Path,
    resume: bool = False,
    streaming: bool = False,
) -> subprocess.Popen[bytes]:
    """Record in another process, which waits for the files go/0, go/1, ... before its episodes."""
    go.mkdir()
    words = [sys.executable, __file__, str(root), str(go), str(int(resume)), str(int(streaming))]
    return subprocess.Popen([*words, *map(str, lengths)])


def main() -> None:
    root, go, resume, streaming, *lengths = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
    recorder = Recorder(Path(root), resume=resume == "1", streaming_encoding=streaming == "1")
    first = recorder.dataset.meta.total_episodes
    try:
        for i, length in enumerate(lengths):
            while not Path(go, str(i)).exists():
                time.sleep(0.05)
            recorder.save(int(length), seed=first + i)
    finally:
        recorder.close()


if __name__ == "__main__":
    main()
