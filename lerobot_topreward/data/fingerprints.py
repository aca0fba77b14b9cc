"""Hashes that tell whether a dataset is still the one whose scores were stored.

They hold what was recorded: how many frames, at which rate, under which tasks, and the values of
``action`` and ``observation.*``. A new recording of an episode never repeats those. They leave out
what may change without a new recording: where the files lie and how they are numbered, the order of
the tasks, statistics, and columns that are derived, ours (``topreward.*``) among them.

Pixels have a hash of their own, `video_prints`: files from the Hub need not be here, and what is
not here cannot be compared.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_ds
import pyarrow.parquet as pq
from av.error import FFmpegError

from lerobot_topreward.data.dataset import (
    FrameTable,
    Source,
    data_files,
    find_video,
    image_bytes,
    task_names,
    task_runs,
)
from lerobot_topreward.errors import EpisodeError, UserError

_PACKETS = 4  # compressed pictures hashed at each end of an episode


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Hexadecimal sha256 of every episode by index, those without frames too."""

    recordings: tuple[str, ...]  # of the recorded values alone: a corrected task changes nothing
    episodes: tuple[str, ...]  # of the values, the frame rate and the tasks

    @property
    def dataset(self) -> str:
        """The sha256 of the episodes' fingerprints in order.

        Whoever has ``meta/`` and ``data/`` can recompute it, a trainer for instance, which knows
        neither the camera that was scored nor the VLM.
        """
        return hashlib.sha256("".join(self.episodes).encode()).hexdigest()


def read_fingerprints(source: Source, table: FrameTable) -> Fingerprints:
    """Fingerprint a dataset, reading its recorded values once.

    Args:
        source: The dataset, its ``data/`` at hand.
        table: Its frames.

    Raises:
        UserError: ``data/`` cannot be read.
    """
    values = [hashlib.sha256() for _ in range(source.meta.total_episodes)]
    for episode, name, cells in _recorded_values(source):
        if episode < len(values):
            values[episode].update(name.encode())
            values[episode].update(np.ascontiguousarray(cells))
    recordings = tuple(digest.hexdigest() for digest in values)
    tasks = task_names(source.meta)
    episodes = []
    for episode, recording in enumerate(recordings):
        task_index = table.task_index[table.rows(episode)]
        runs = [(length, tasks.get(task, "")) for _, length, task in task_runs(task_index)]
        head = (source.meta.fps, len(task_index), runs, recording)
        episodes.append(hashlib.sha256(repr(head).encode()).hexdigest())
    return Fingerprints(recordings, tuple(episodes))


def dataset_fingerprint(source: Source, table: FrameTable) -> str:
    """Fingerprint a dataset as a whole; see `Fingerprints.dataset`.

    Raises:
        UserError: ``data/`` cannot be read.
    """
    return read_fingerprints(source, table).dataset


def video_prints(
    source: Source, table: FrameTable, *, camera: str, episodes: Sequence[int]
) -> dict[int, str]:
    """Hash the first and the last compressed pictures of episodes, as one camera saw them.

    For images in ``data/`` these are the first and the last one. Whoever encodes or records an
    episode again changes them; whoever appends an episode to the same file, cuts the file elsewhere
    or renames it does not.

    Args:
        source: The dataset.
        table: Its frames.
        camera: Feature key.
        episodes: Which ones.

    Returns:
        Hexadecimal hashes by episode, without those whose video is not here or cannot be read.
    """
    if camera not in source.meta.video_keys:
        return _image_prints(source, table, camera=camera, episodes=episodes)
    prints = {}
    for episode in episodes:
        rows = table.rows(episode)
        try:
            path, start, _ = find_video(source, camera, episode)
            end = start + (rows.stop - rows.start - 1) / source.meta.fps
            if rows.start < rows.stop:
                prints[episode] = _video_print(path, start, end)
        except (EpisodeError, FFmpegError, OSError, IndexError, ValueError):
            continue  # decoding says what is wrong with it
    return prints


def _image_prints(
    source: Source, table: FrameTable, *, camera: str, episodes: Sequence[int]
) -> dict[int, str]:
    """Hash the first and the last picture of episodes whose pictures lie in ``data/``."""
    ends = {}
    for episode in episodes:
        rows = table.rows(episode)
        if rows.start < rows.stop:
            ends[episode] = (rows.start, rows.stop - 1)
    wanted = pa_ds.field("index").isin(sorted({row for pair in ends.values() for row in pair}))
    found: dict[int, bytes] = {}
    for path in data_files(source):
        with suppress(pa.ArrowException, OSError):  # decoding says what is wrong with it
            for batch in pa_ds.dataset(path).to_batches(
                columns=["index", camera],
                filter=wanted,
                batch_size=16,
                batch_readahead=1,
                use_threads=False,
            ):
                for index, cell in zip(*batch.to_pydict().values(), strict=True):
                    with suppress(EpisodeError):
                        found[index] = hashlib.sha256(image_bytes(cell, root=source.root)).digest()
    return {
        episode: (found[first] + found[last]).hex()
        for episode, (first, last) in ends.items()
        if first in found and last in found
    }


def _video_print(path: Path, start: float, end: float) -> str:
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        unit = stream.time_base
        assert unit is not None  # libav sets it for every demuxed stream
        first, last = round(start / unit), round(end / unit)
        for time in (first, last):
            container.seek(time, stream=stream)  # to the keyframe at or before it
            # In a file that episodes share, the pictures around these are the neighbours'.
            own = (p for p in container.demux(stream) if p.pts is None or first <= p.pts <= last)
            for packet in islice(own, _PACKETS):
                digest.update(bytes(packet))
    return digest.hexdigest()


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
                try:
                    yield episode, name, _flat(rows[name])
                except TypeError as error:
                    raise UserError(f"{path}: column {name} cannot be used: {error}") from None


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    values = column.combine_chunks()
    while isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    if not (pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type)):
        raise TypeError(f"it must hold numbers; it holds {values.type}")
    return values.to_numpy(zero_copy_only=False)
