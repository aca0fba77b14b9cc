"""Hashes that tell whether a dataset is still the one whose scores were stored.

They hold what was recorded: how many frames, at which rate, under which tasks, and the values of
``action`` and ``observation.*``. A new recording of an episode never repeats those. They leave out
what may change without a new recording: where the files lie and how they are numbered, the order of
the tasks, statistics, and columns that are derived, ours (``topreward.*``) among them.

Pixels have a hash of their own, see `video_prints`: files from the Hub need not be here, and what
is not here cannot be compared.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.frames import FrameTable, find_runs
from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.data.recording import flatten_column, recorded_columns
from lerobot_topreward.errors import UserError


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Hexadecimal sha256 of every episode by index, those without frames too."""

    recordings: tuple[str, ...]  # of the recorded values alone: a corrected task changes nothing
    episodes: tuple[str, ...]  # of the values, the frame rate and the tasks
    dataset: str  # of `episodes` in order; ``meta/`` and ``data/`` are enough to compute it


def compute_fingerprints(meta: Metadata, frames: FrameTable, files: Iterable[Path]) -> Fingerprints:
    """Fingerprint a dataset, reading its recorded values once, file by file.

    Raises:
        UserError: A file of ``data/`` cannot be read.
    """
    names = recorded_columns({name: item["dtype"] for name, item in meta.features.items()})
    values = [hashlib.sha256() for _ in range(meta.total_episodes)]
    for path in files:
        try:
            table = pq.read_table(path, columns=["episode_index", *names]).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        # One episode lies in one file, its frames together and in order.
        for start, length, episode in find_runs(table["episode_index"].to_numpy()):
            rows = table.slice(start, length)
            for name in names:
                try:
                    cells = flatten_column(rows[name])
                except TypeError as error:
                    raise UserError(f"{path}: column {name} cannot be used: {error}") from None
                values[episode].update(name.encode())
                values[episode].update(np.ascontiguousarray(cells))
    recordings = tuple(digest.hexdigest() for digest in values)
    tasks = meta.tasks
    episodes: list[str] = []
    for episode, recording in enumerate(recordings):
        task_index = frames.task_index[frames.rows(episode)]
        runs = [(length, tasks.get(task, "")) for _, length, task in find_runs(task_index)]
        head = (meta.fps, len(task_index), runs, recording)
        episodes.append(hashlib.sha256(repr(head).encode()).hexdigest())
    dataset = hashlib.sha256("".join(episodes).encode()).hexdigest()
    return Fingerprints(recordings, tuple(episodes), dataset)
