import atexit
import gc
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import install_import_hook

# Nothing may reach the network, and nothing may be written outside the tests' own folders.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
_home = tempfile.TemporaryDirectory(prefix="topreward-tests-")
atexit.register(_home.cleanup)
os.environ["HF_HOME"] = _home.name
os.environ.pop("HF_LEROBOT_HOME", None)
# Tiny tensors gain nothing from threads, and threads stall each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# For the modules beside this one: there is no package of tests.
sys.path.append(str(Path(__file__).parent))
from shortcuts import import_libraries, take_shortcuts  # noqa: E402

import_libraries()
# Annotations of these packages are checked while the tests run: shapes, dtypes and plain types.
CHECKED = (
    *("check", "compare", "curate", "data", "demo", "evaluate", "files", "judging", "label"),
    *("online", "policies", "publish", "records", "report", "rewards", "scoring", "serve_args"),
    *("simulation", "storage", "train", "vlm", "watch"),
)
install_import_hook([f"lerobot_topreward.{name}" for name in CHECKED], "typecheck.check")

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

# The modules of tests/attack name a KIND of attack: how many of each were tried and survived is
# printed at the end of a run. A test is one case, or as many as it records as "tried".
_TRIED: Counter[str] = Counter()
_SURVIVED: Counter[str] = Counter()


def pytest_collection_finish() -> None:
    take_shortcuts()
    gc.freeze()  # what was imported stays: no need to look for garbage there


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    report.user_properties.append(("kind", getattr(getattr(item, "module", None), "KIND", None)))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    properties = dict(report.user_properties)
    kind, cases = properties.get("kind"), properties.get("tried", 1)
    if isinstance(kind, str) and isinstance(cases, int) and report.when == "call":
        _TRIED[kind] += 0 if report.skipped else cases
        _SURVIVED[kind] += cases if report.passed else 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TRIED:
        terminalreporter.section("attacks")
        total, survived = _TRIED.total(), _SURVIVED.total()
        for kind, tried in [*sorted(_TRIED.items()), ("all", total)]:
            lived = survived if kind == "all" else _SURVIVED[kind]
            terminalreporter.write_line(f"{kind:<28} {tried:>5} tried {lived:>5} survived")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    # LeRobot's scripts give it a handler that writes to the stderr of their own test: closed later.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


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
        state: int = 6,
        extra: Mapping[str, np.ndarray] | None = None,  # a value per frame of the dataset
        small_files: bool = False,  # data files of 1 MB, two to a folder
        others_files: bool = False,  # that LeRobot does not know of
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
        vectors = {"observation.state": state, "action": 6}
        if environment_state:  # policies without images need one
            vectors["observation.environment_state"] = environment_state
        for name, width in vectors.items():
            features[name] = {"dtype": "float32", "shape": (width,), "names": None}
        for name, values in (extra or {}).items():
            features[name] = {"dtype": str(values.dtype), "shape": (1,), "names": None}
        dataset = LeRobotDataset.create(
            "local/recorded",
            fps=fps,
            features=features,
            root=root,
            use_videos=video,
            rgb_encoder=RGBEncoderConfig(vcodec=vcodec) if video else None,
            data_files_size_in_mb=1 if small_files else None,
        )
        if small_files:
            dataset.meta.update_chunk_settings(chunks_size=2)
        if file_per_episode:  # every video is larger than this, so none is added to
            setattr(dataset.meta.info, "video_files_size_in_mb", 1e-9)  # noqa: B010
        for episode, length in enumerate(lengths):
            task = tasks[episode % len(tasks)]
            start = sum(lengths[:episode])
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
                        **{
                            name: values[start + frame : start + frame + 1]
                            for name, values in (extra or {}).items()
                        },
                        "task": text,
                    }
                )
            dataset.save_episode()
        dataset.finalize()
        if others_files:
            (root / "README.md").write_text("# Mine\n")
            (root / "truth.parquet").write_bytes(b"truth")
            for hidden in (".cache/huggingface/lock", ".git/HEAD"):
                (root / hidden).parent.mkdir(parents=True)
                (root / hidden).write_text("hidden")
        return root

    return record


@pytest.fixture(scope="session")
def recorded_small(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(4, 3, 5), cameras=(), others_files=True)


@pytest.fixture
def small(recorded_small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three short episodes that a test may change."""
    return shutil.copytree(recorded_small, tmp_path_factory.mktemp("small") / "dataset")


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    """Hash every file in a folder, by its path there."""

    def hash_all(root: Path) -> dict[str, str]:
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    return hash_all


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Qwen3-VL checkpoint whose curves are not flat."""
    from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm

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
    from lerobot_topreward.data.dataset import open_source
    from lerobot_topreward.records import FrameRewards
    from lerobot_topreward.storage.columns import write_columns

    def write(
        root: Path,
        *,
        progress: np.ndarray | None = None,
        unlabelled: Sequence[int] = (),
        sidecar: bool = True,
        seed: int = 0,
        **made: Any,  # how the labels say that they were made
    ) -> Path:
        source = open_source(repo_id=None, root=root, revision=None)
        table = source.frames
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
            scored=labelled & (table.frame_index % 5 == 0),
        )
        output = tmp_path_factory.mktemp("labelled") / "dataset"
        write_columns(
            root,
            rewards,
            output,
            fingerprint=source.fingerprints.dataset,
            provenance={"dataset": source.repo_id, **made},
            sidecar=sidecar,
        )
        return output

    return write


@pytest.fixture(scope="session")
def rewards_for() -> Callable[..., Any]:
    """Draw the rewards of a dataset's frames; its second episode has none."""
    import pyarrow.parquet as pq

    from lerobot_topreward.records import FrameRewards

    def draw(root: Path, *, seed: int = 0) -> FrameRewards:
        table = pq.read_table(root / "data")
        episode = table["episode_index"].to_numpy()
        labelled = episode != 1
        rng = np.random.default_rng(seed)

        def values(low: float, high: float) -> np.ndarray:
            return np.where(labelled, rng.uniform(low, high, len(episode)), 0).astype(np.float32)

        return FrameRewards(
            index=table["index"].to_numpy(),
            episode_index=episode,
            frame_index=table["frame_index"].to_numpy(),
            labelled=labelled,
            log_prob_true=values(-20, 0),
            log_prob_false=values(-20, 0),
            progress=values(0, 1),
            advantage=values(-1, 1),
            scored=labelled & (table["frame_index"].to_numpy() % 2 == 0),
        )

    return draw


@pytest.fixture(scope="session")
def columns_of() -> Callable[[Any], dict[str, np.ndarray]]:
    """Name the columns of a labelled dataset that hold these rewards."""
    return lambda rewards: {
        "topreward.log_prob": rewards.log_prob_true,
        "topreward.log_prob_false": rewards.log_prob_false,
        "topreward.progress": rewards.progress,
        "topreward.advantage": rewards.advantage,
        "topreward.labelled": rewards.labelled,
        "topreward.scored": rewards.scored,
    }


@pytest.fixture(scope="session")
def assert_columns(columns_of: Callable[..., dict[str, np.ndarray]]) -> Callable[..., None]:
    """Compare the columns of a labelled dataset with the rewards that it was given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def compare(root: Path, rewards: Any) -> None:
        table = pq.read_table(root / "data")
        for name, values in columns_of(rewards).items():
            assert table[name].type == (pa.bool_() if values.dtype == bool else pa.float32())
            np.testing.assert_array_equal(table[name].to_numpy(), values)

    return compare


@pytest.fixture(scope="session")
def robot_dataset(record_dataset: RecordDataset) -> Path:
    """A dataset without cameras, whose episodes have 9, 12 and 10 frames."""
    return record_dataset(lengths=(9, 12, 10), cameras=(), environment_state=2)


@pytest.fixture
def runs(robot_dataset: Path, tmp_path: Path, kept_process: None) -> Any:
    """Short runs of LeRobot's trainer on `robot_dataset`."""
    from patched_runs import Runs

    return Runs(robot_dataset, tmp_path)
