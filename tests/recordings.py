"""Recordings made of arrays: an arm of six joints that reaches out and comes back, with noise."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.judging.inspection import Inspection, inspect_recording
from lerobot_topreward.records import EpisodeRecording, Finding, Signals

FPS = 20.0
JOINTS = ("pan", "lift", "elbow", "flex", "roll", "gripper")
SIGNALS = Signals(
    names=tuple(f"action.{j}" for j in JOINTS) + tuple(f"observation.state.{j}" for j in JOINTS),
    commands=tuple(range(6)),
    readings=tuple(range(6, 12)),
    pairs=tuple((i, i + 6) for i in range(6)),
    grippers=(5, 11),
)


def make_recording(
    episode: int, *, frames: int = 160, task: str = "pick up the cube", lag: int = 2
) -> EpisodeRecording:
    """An arm that moves smoothly between random poses; readings follow their commands."""
    rng = np.random.default_rng(episode)
    knots = rng.uniform(-40, 40, size=(6, 6))
    knots[:, 0] = 0  # every episode begins and ends near rest
    phase = np.linspace(0, 5, frames + lag)
    start = np.minimum(phase.astype(int), 4)
    smooth = (1 - np.cos(np.pi * (phase - start))) / 2
    path = knots[:, start] + (knots[:, start + 1] - knots[:, start]) * smooth
    noisy = (path + rng.normal(0, 0.05, path.shape)).T
    command, reading = noisy[lag:], (path + rng.normal(0, 0.05, path.shape)).T[:frames]
    return EpisodeRecording(
        episode_index=episode,
        task=task,
        declared=frames,
        timestamp=np.arange(frames) / FPS,
        frame_index=np.arange(frames),
        values=np.concatenate([command, reading], axis=1),
    )


def make_recordings(count: int = 12) -> list[EpisodeRecording]:
    return [make_recording(episode, frames=150 + 3 * (episode % 5)) for episode in range(count)]


def record_arm(root: Path, recordings: Sequence[EpisodeRecording]) -> Path:
    """Have LeRobot write episodes as a dataset."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = {"dtype": "float32", "shape": (6,), "names": [f"{joint}.pos" for joint in JOINTS]}
    features = {"action": vector, "observation.state": vector}
    dataset = LeRobotDataset.create("local/arm", fps=int(FPS), features=features, root=root)
    for recording in recordings:
        for row in np.asarray(recording.values, np.float32):
            frame = {"action": row[:6], "observation.state": row[6:], "task": recording.task}
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    return root


def change_rows(
    root: Path, column: str, change: Callable[[np.ndarray, np.ndarray], object]
) -> None:
    """Change a column of ``data/`` in place, given its values and every row's episode."""
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    kind = table[column].type
    cells = table[column].combine_chunks()
    width = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
    flat = (cells.flatten() if width > 1 else cells).to_numpy(zero_copy_only=False).copy()
    change(flat.reshape(-1, width), table["episode_index"].to_numpy())
    values = pa.array(flat)
    values = pa.FixedSizeListArray.from_arrays(values, width) if width > 1 else values
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.field(column), values), path)


def inspect(recordings: Sequence[EpisodeRecording], signals: Signals = SIGNALS) -> Inspection:
    def read() -> Iterator[tuple[int, EpisodeRecording | EpisodeError]]:
        return iter([(recording.episode_index, recording) for recording in recordings])

    return inspect_recording(read, signals, fps=FPS)


def of_episode(inspection: Inspection, episode: int) -> list[Finding]:
    return [found for found in inspection.findings if found.episode_index == episode]
