"""Defects of real recordings, put into copies of clean ones; see recording.py."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.demo.command import DATASET as BUNDLED
from lerobot_topreward.records import Segment

_EVERY = 3  # into every third episode


@dataclass(frozen=True)
class Values:
    """The arrays of one episode that a defect is put into."""

    action: np.ndarray
    state: np.ndarray
    timestamp: np.ndarray
    fps: float


# A defect changes an episode in place; its strength is what the table's heading says.
Defect = Callable[[Values, float], None]


def _gap(values: Values, frames: float) -> None:
    values.timestamp[len(values.timestamp) // 2 :] += frames / values.fps


def _repeat(values: Values, frames: float) -> None:
    middle = len(values.timestamp) // 2
    values.timestamp[middle : middle + int(frames)] = values.timestamp[middle - 1]


def _not_finite(values: Values, frames: float) -> None:
    values.action[len(values.action) // 2 :][: int(frames), 1] = np.nan


def _freeze(values: Values, seconds: float) -> None:
    # Where the arm moves fastest: a recording that freezes at rest is no defect.
    length = max(3, round(seconds * values.fps))
    speed = np.abs(np.diff(values.state, axis=0)).sum(axis=1)
    start = int(np.argmax(np.convolve(speed, np.ones(length), "valid")))
    for part in (values.action, values.state):
        part[start : start + length + 1] = part[start]


def _kill_joint(values: Values, _: float) -> None:
    values.state[:, 1] = values.state[0, 1]


def _jump(values: Values, share: float) -> None:
    joint, middle = values.state[:, 1], len(values.state) // 2
    size = share * _usual_range(values)
    joint[middle] += size if joint[middle] < joint.mean() else -size


def _clip(values: Values, share: float) -> None:
    joint = values.action[:, 1]
    np.minimum(joint, np.quantile(joint, 1 - share), out=joint)


def _shift(values: Values, seconds: float) -> None:
    frames = round(seconds * values.fps)
    values.action[:-frames] = values.action[frames:].copy()
    values.action[-frames:] = values.action[-1]


def _usual_range(values: Values) -> float:
    return max(float(np.ptp(values.state[:, 1])), _RANGES.get(values.state.shape[1], 0.0))


_RANGES: dict[int, float] = {}  # of the second joint over the dataset, by the width of the state

# defect of the table -> what is done, its strengths with their unit, what check calls it
NUMBERS: dict[str, tuple[Defect, tuple[float, ...], str, str]] = {
    "gap in time": (_gap, (0.6, 1, 3), "frames", "gap in time"),
    "repeated timestamp": (_repeat, (1, 2), "frames", "time repeats"),
    "NaN action": (_not_finite, (1, 10), "frames", "not finite"),
    "frozen recording": (_freeze, (0.5, 1, 2), "s", "frozen recording"),
    "dead joint": (_kill_joint, (1,), "joint", "dead joint"),
    "one-frame jump": (_jump, (0.6, 1), "of the range", "jump"),
    "clipped command": (_clip, (0.2, 0.4), "of the frames", "saturated command"),
    "command early": (_shift, (0.2, 0.3, 0.5), "s", "out of step"),
}


def _darken(images: np.ndarray, luminance: float) -> np.ndarray:
    return images * (luminance / max(float(images.mean()), 1.0))


def _whiten(images: np.ndarray, share: float) -> np.ndarray:
    return images * (1 - share) + 255 * share


def _blur(images: np.ndarray, radius: float) -> np.ndarray:
    for axis in (1, 2):
        images = np.mean(
            [np.roll(images, shift, axis) for shift in range(-int(radius), int(radius) + 1)], axis=0
        )
    return images


def _freeze_camera(images: np.ndarray, share: float) -> np.ndarray:
    start, frames = len(images) // 4, round(share * len(images))
    images = images.copy()
    images[start : start + frames] = images[start]
    return images


PICTURES: dict[str, tuple[Callable[..., np.ndarray], tuple[float, ...], str, str]] = {
    "dark pictures": (_darken, (45, 20), "mean of 255", "dark"),
    "white pictures": (_whiten, (0.9, 0.97), "towards white", "overexposed"),
    "blurred pictures": (_blur, (1, 2), "pixels", "blurred"),
    "frozen camera": (_freeze_camera, (0.15, 0.4), "of the episode", "frozen camera"),
}


def change_numbers(source: Path, folder: Path, defect: Defect, strength: float) -> list[int]:
    """Copy a dataset without its videos and put a defect into every third episode."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source / "meta", folder / "meta")
    (path,) = (source / "data").rglob("*.parquet")
    table = pq.read_table(path)
    index = table["episode_index"].to_numpy()
    columns = {name: read_matrix(table, name) for name in ("action", "observation.state")}
    timestamp = table["timestamp"].to_numpy().copy()
    state = columns["observation.state"]
    _RANGES[state.shape[1]] = float(np.ptp(state[:, 1]))
    changed = list(range(0, int(index.max()) + 1, _EVERY))
    fps = open_source(repo_id=None, root=source, revision=None).meta.fps
    for episode in changed:
        rows = slice(*np.searchsorted(index, [episode, episode + 1]))
        defect(
            Values(columns["action"][rows], state[rows], timestamp[rows], fps),
            strength,
        )
    columns["timestamp"] = timestamp
    for name, values in columns.items():
        cells = pa.array(values.ravel(), table[name].type.value_type if values.ndim > 1 else None)
        column = (
            pa.FixedSizeListArray.from_arrays(cells, values.shape[1]) if values.ndim > 1 else cells
        )
        table = table.set_column(table.column_names.index(name), table.field(name), column)
    target = folder / path.relative_to(source)
    target.parent.mkdir(parents=True)
    pq.write_table(table, target)
    return changed


def change_task(source: Path, folder: Path) -> list[int]:
    """Call the task of every third episode "test"."""
    (path,) = (source / "data").rglob("*.parquet")
    changed = change_numbers(source, folder, lambda values, strength: None, 0)
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    number = len(tasks)
    more = pa.table({"task_index": [number], "task": ["test"]}).select(tasks.column_names)
    pq.write_table(
        pa.concat_tables([tasks, more.cast(tasks.schema)]), folder / "meta/tasks.parquet"
    )
    table = pq.read_table(folder / path.relative_to(source))
    task = np.where(
        np.isin(table["episode_index"].to_numpy(), changed), number, table["task_index"].to_numpy()
    )
    place = table.column_names.index("task_index")
    table = table.set_column(place, "task_index", pa.array(task))
    pq.write_table(table, folder / path.relative_to(source))
    return changed


def copy_episodes(source: Path, folder: Path) -> list[int]:
    """Let every third episode begin with the next one, where that is shorter."""
    (path,) = (source / "data").rglob("*.parquet")
    changed = change_numbers(source, folder, lambda values, strength: None, 0)
    table = pq.read_table(folder / path.relative_to(source))
    index = table["episode_index"].to_numpy()
    names = [n for n in table.column_names if n == "action" or n.startswith("observation.")]
    rows = np.arange(len(index))
    copies: list[int] = []
    for episode in changed:
        own, other = (np.flatnonzero(index == e) for e in (episode, episode + 1))
        if 0 < len(other) < len(own):
            rows[own[: len(other)]] = other
            copies.append(episode)
    for name in names:
        place = table.column_names.index(name)
        table = table.set_column(place, table.field(name), table[name].take(pa.array(rows)))
    pq.write_table(table, folder / path.relative_to(source))
    return copies


def change_pictures(folder: Path, change: Callable[..., np.ndarray], strength: float) -> list[int]:
    """Record the bundled episodes again, with other pictures in every third one."""
    shutil.rmtree(folder, ignore_errors=True)
    source = open_source(repo_id=None, root=BUNDLED, revision=None)
    (camera,) = source.meta.camera_keys
    table = pq.read_table(next((BUNDLED / "data").rglob("*.parquet")))
    state, action = (read_matrix(table, name) for name in ("observation.state", "action"))
    features = {
        name: dict(source.meta.features[name]) for name in (camera, "observation.state", "action")
    }
    features[camera] = {k: features[camera][k] for k in ("dtype", "shape", "names")}
    dataset = LeRobotDataset.create(
        "local/pictures", fps=int(source.meta.fps), features=features, root=folder,
        rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=20),
    )  # fmt: skip
    changed = list(range(0, source.meta.total_episodes, _EVERY))
    for episode in range(source.meta.total_episodes):
        rows = source.frames.rows(episode)
        segment = Segment(episode, 0, rows.stop - rows.start, "")
        clip = read_clip(
            source, camera=camera, segment=segment, sample_fps=source.meta.fps, final_frame=True
        )
        images = clip.frames.astype(np.float32)
        images = change(images, strength) if episode in changed else images
        for i, picture in enumerate(np.clip(images, 0, 255).astype(np.uint8)):
            dataset.add_frame(
                {
                    camera: picture,
                    "observation.state": state[rows.start + i],
                    "action": action[rows.start + i],
                    "task": "put the cube away",
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return changed


def read_matrix(table: pa.Table, name: str) -> np.ndarray:
    """Read a column of vectors, one row per frame."""
    cells = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return cells.reshape(len(table), -1).copy()
