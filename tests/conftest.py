import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
WriteLabels = Callable[..., Path]


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
        environment_state: int = 0,
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
        vectors = {"observation.state": 6, "action": 6}
        if environment_state:  # policies without images need one
            vectors["observation.environment_state"] = environment_state
        for name, width in vectors.items():
            features[name] = {"dtype": "float32", "shape": (width,), "names": None}
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
                        **{
                            name: rng.normal(size=width).astype(np.float32)
                            for name, width in vectors.items()
                        },
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


@pytest.fixture
def kept_process() -> Iterator[None]:
    """Give back the root logger, which LeRobot's trainer takes over; ``sys.argv`` must be whole."""
    root, argv = logging.getLogger(), list(sys.argv)
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    assert sys.argv == argv


@pytest.fixture
def write_labels(tmp_path_factory: pytest.TempPathFactory) -> WriteLabels:
    """Label a copy of a dataset with known rewards, in place of a VLM's, and return its root."""
    from lerobot_topreward.dataset import write_columns
    from lerobot_topreward.fingerprints import dataset_fingerprint
    from lerobot_topreward.records import FrameRewards
    from lerobot_topreward.source import frame_table, open_source

    def write(
        root: Path,
        *,
        progress: np.ndarray | None = None,
        unlabelled: Sequence[int] = (),
        scoring: dict[str, Any] | None = None,
        sidecar: bool = True,
        seed: int = 0,
    ) -> Path:
        source = open_source(repo_id=None, root=root, revision=None)
        table = frame_table(source)
        labelled = ~np.isin(table.episode_index, unlabelled)
        if progress is None:
            progress = np.random.default_rng(seed).uniform(0, 1, len(table.index))

        def column(values: np.ndarray) -> np.ndarray:
            return np.where(labelled, values, 0).astype(np.float32)

        rewards = FrameRewards(
            index=table.index,
            episode_index=table.episode_index,
            frame_index=table.frame_index,
            labelled=labelled,
            log_prob_true=column(10 * progress - 15),
            log_prob_false=column(-1 - progress),
            progress=column(progress),
            advantage=column(progress - 0.5),
        )
        output = tmp_path_factory.mktemp("labelled") / "dataset"
        write_columns(
            root,
            rewards,
            output,
            fingerprint=dataset_fingerprint(source, table),
            provenance={"dataset": source.repo_id, **({"scoring": scoring} if scoring else {})},
            sidecar=sidecar,
        )
        return output

    return write
