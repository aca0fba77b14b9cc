"""Hashes that tell whether a dataset is still the one whose scores were stored.

They hold what was recorded: how many frames, at which rate, under which tasks, and the values of
``action`` and ``observation.*``. A new recording of an episode never repeats those. They leave out
what may change without a new recording: where the files lie and how they are numbered, the order of
the tasks, statistics, and columns that are derived, ours (``topreward.*``) among them. Pixels are
left out as well: reading them costs as much as labelling.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.errors import UserError
from lerobot_topreward.source import (
    FrameTable,
    Source,
    data_files,
    episode_rows,
    task_names,
    task_runs,
)


def episode_fingerprints(
    source: Source, table: FrameTable, *, camera: str | None = None
) -> dict[int, str]:
    """Fingerprint every episode.

    Args:
        source: The dataset, its ``data/`` at hand.
        table: Its frames.
        camera: Also hash which camera is shown and where in its video the episode lies, so that
            scores are not kept when either changes.

    Returns:
        Hexadecimal sha256 by episode index, of every episode in order, those without frames too.

    Raises:
        UserError: ``data/`` cannot be read.
    """
    tasks = task_names(source.meta)
    spans = _video_spans(source, camera)
    hashes = {}
    for episode in range(source.meta.total_episodes):
        task_index = table.task_index[table.rows(episode)]
        runs = [(length, tasks.get(task, "")) for _, length, task in task_runs(task_index)]
        span = None if spans is None else spans[episode]
        head = (source.meta.fps, len(task_index), runs, camera, span)
        hashes[episode] = hashlib.sha256(repr(head).encode())
    for episode, name, values in _recorded_values(source):
        if episode in hashes:
            hashes[episode].update(name.encode())
            hashes[episode].update(np.ascontiguousarray(values))
    return {episode: digest.hexdigest() for episode, digest in hashes.items()}


def dataset_fingerprint(source: Source, table: FrameTable) -> str:
    """Fingerprint a dataset: the sha256 of its episodes' fingerprints in order, camera left out.

    Whoever has ``meta/`` and ``data/`` can recompute it, a trainer for instance, which knows
    neither the camera that was scored nor the VLM.

    Raises:
        UserError: ``data/`` cannot be read.
    """
    parts = episode_fingerprints(source, table).values()
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _video_spans(source: Source, camera: str | None) -> list[tuple[float, float]] | None:
    if camera not in source.meta.video_keys:
        return None
    rows = episode_rows(source.meta)
    ends = [rows[f"videos/{camera}/{end}_timestamp"] for end in ("from", "to")]
    return list(zip(*ends, strict=True))


def _recorded_values(source: Source) -> Iterator[tuple[int, str, np.ndarray]]:
    names = sorted(
        name
        for name, feature in source.meta.features.items()
        if (name == "action" or name.startswith(("action.", "observation.")))
        and feature["dtype"].startswith(("float", "int", "uint", "bool"))
    )
    for path in data_files(source):
        try:
            file = pq.read_table(path, columns=["episode_index", *names]).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        # One episode lies in one file, its frames together and in order.
        for start, length, episode in task_runs(file["episode_index"].to_numpy()):
            rows = file.slice(start, length)
            for name in names:
                yield episode, name, _flat(rows[name])


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    values = column.combine_chunks()
    while isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False)
