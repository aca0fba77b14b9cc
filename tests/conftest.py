import atexit
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

# Nothing may reach the network, and nothing may be written outside the tests' own folders.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
_home = tempfile.TemporaryDirectory(prefix="topreward-tests-")
atexit.register(_home.cleanup)
os.environ["HF_HOME"] = _home.name
os.environ.pop("HF_LEROBOT_HOME", None)
# Tiny tensors gain nothing from threads, and threads stall each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RecordDataset = Callable[..., Path]


def _draw(rng: np.random.Generator, *, frame: int, height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[:, : 1 + (3 * frame) % width, 0] = 200
    image[: 1 + (2 * frame) % height, :, 1] = 120
    image[..., 2] = rng.integers(0, 30)
    return image


@pytest.fixture(scope="session")
def record_dataset(tmp_path_factory: pytest.TempPathFactory) -> RecordDataset:
    """Record a small LeRobot v3.0 dataset with LeRobot's own API and return its root."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    def record(
        *,
        lengths: Sequence[int] = (12, 9, 15),
        tasks: Sequence[str | Sequence[str]] = ("pick up the cube",),
        cameras: Sequence[str] = ("front", "wrist"),
        size: tuple[int, int] = (64, 96),
        fps: int = 10,
        video: bool = True,
        seed: int = 0,
        vcodec: str = "h264",
        file_per_episode: bool = False,
    ) -> Path:
        root = tmp_path_factory.mktemp("recorded") / "dataset"
        rng = np.random.default_rng(seed)
        features = {
            f"observation.images.{camera}": {
                "dtype": "video" if video else "image",
                "shape": (*size, 3),
                "names": ["height", "width", "channels"],
            }
            for camera in cameras
        }
        for name, names in (("observation.state", 6), ("action", 6)):
            features[name] = {"dtype": "float32", "shape": (names,), "names": None}
        dataset = LeRobotDataset.create(
            "local/recorded",
            fps=fps,
            features=features,
            root=root,
            use_videos=video,
            rgb_encoder=RGBEncoderConfig(vcodec=vcodec) if video else None,
        )
        if file_per_episode:  # every video is larger than this, so none is added to
            setattr(dataset.meta.info, "video_files_size_in_mb", 1e-9)  # noqa: B010
        for episode, length in enumerate(lengths):
            task = tasks[episode % len(tasks)]
            for frame in range(length):
                text = task if isinstance(task, str) else task[frame * len(task) // length]
                dataset.add_frame(
                    {
                        **{
                            f"observation.images.{camera}": _draw(
                                rng, frame=frame + 7 * i, height=size[0], width=size[1]
                            )
                            for i, camera in enumerate(cameras)
                        },
                        "observation.state": rng.normal(size=6).astype(np.float32),
                        "action": rng.normal(size=6).astype(np.float32),
                        "task": text,
                    }
                )
            dataset.save_episode()
        dataset.finalize()
        return root

    return record


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Qwen3-VL checkpoint whose curves are not flat."""
    from lerobot_topreward.vlm.tiny import TinyConfig, build_tiny_vlm

    folder = tmp_path_factory.mktemp("vlm") / "tiny"
    return build_tiny_vlm(folder, config=TinyConfig(spread=0.2))
