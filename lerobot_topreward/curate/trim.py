"""Episodes of a dataset cut shorter without touching a video.

LeRobot finds an episode's frames in a video by when it begins there (``from_timestamp`` in
``meta/episodes``) and by each frame's own ``timestamp`` in ``data/``. So it is enough to

1. leave rows out of ``data/`` and number those that stay anew;
2. move where the episode begins and ends in its videos, by as much as was cut off its head;
3. compute the statistics of numbers anew. Those of images stay those of the whole episodes.

An episode of 100 frames at 10 Hz that begins 60 s into its video file, cut to frames 20..79, then
begins at 62 s and ends at 68 s, with timestamps from 0 to 5.9 s. The frames that are cut stay in
the file, and no row refers to them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.io_utils import load_json, write_json
from lerobot.datasets.utils import DATA_DIR, EPISODES_DIR, INFO_PATH, STATS_PATH, serialize_dict

from lerobot_topreward.curate.idle import NUMBERS, Span
from lerobot_topreward.storage.columns import PARQUET_OPTIONS, Stats


def trim_dataset(root: Path, spans: Mapping[int, Span]) -> None:
    """Cut episodes shorter, in place: only for a folder that nobody uses yet.

    Args:
        root: a LeRobot v3.0 dataset whose frames are numbered without gaps.
        spans: the frames that stay, of the episodes that become shorter.
    """
    info = load_json(root / INFO_PATH)
    features = info["features"]
    numbers = {
        n: feature for n, feature in features.items() if feature["dtype"].startswith(NUMBERS)
    }
    videos = [name for name, feature in features.items() if feature["dtype"] == "video"]
    stats: dict[int, Stats] = {}
    frames = 0
    for path in sorted((root / DATA_DIR).glob("*/*.parquet")):
        table = rewrite_in_place(
            path, lambda t, first=frames: _cut_rows(t, spans, first, info["fps"])
        )
        frames += len(table)
        episodes, starts = np.unique(table["episode_index"].to_numpy(), return_index=True)
        for episode, start, stop in zip(episodes, starts, [*starts[1:], len(table)], strict=True):
            rows = table.slice(start, stop - start)
            values: dict[str, Any] = {name: np.array(rows[name].to_pylist()) for name in numbers}
            stats[int(episode)] = compute_episode_stats(values, numbers)
    for path in sorted((root / EPISODES_DIR).glob("*/*.parquet")):
        rewrite_in_place(path, lambda t: _update_episodes(t, spans, stats, videos, info["fps"]))
    ours: dict[str, Any] = aggregate_stats(list(stats.values()))
    write_json(load_json(root / STATS_PATH) | serialize_dict(ours), root / STATS_PATH)
    write_json(info | {"total_frames": frames}, root / INFO_PATH)


def rewrite_in_place(path: Path, change: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Change a parquet file of a dataset that nobody uses yet; returns its new table."""
    table = change(pq.read_table(path))
    pq.write_table(table, path, **PARQUET_OPTIONS)
    return table


def _cut_rows(table: pa.Table, spans: Mapping[int, Span], first: int, fps: float) -> pa.Table:
    """Leave rows out of a file whose first row gets the global index `first`."""
    episode, frame = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
    start, stop = np.zeros_like(frame), np.full_like(frame, np.iinfo(np.int64).max)
    for index, span in spans.items():
        start[episode == index], stop[episode == index] = span.start, span.stop
    stays = (start <= frame) & (frame < stop)
    table = table.filter(pa.array(stays))
    start, frame = start[stays], frame[stays] - start[stays]
    columns = {
        # Computed anew: the difference of two float32 is 1e-4 s off after half an hour, which is
        # more than LeRobot tolerates.
        "timestamp": np.where(start > 0, frame / fps, table["timestamp"].to_numpy()),
        "frame_index": frame,
        "index": np.arange(first, first + len(table)),
    }
    for name, values in columns.items():
        field = table.schema.field(name)
        position = table.column_names.index(name)
        table = table.set_column(position, field, pa.array(values).cast(field.type))
    return table


def _update_episodes(
    table: pa.Table,
    spans: Mapping[int, Span],
    stats: Mapping[int, Stats],
    videos: list[str],
    fps: float,
) -> pa.Table:
    """Bring the rows of a file of ``meta/episodes`` in line with the frames that are left."""
    rows = table.to_pydict()
    episodes = rows["episode_index"]
    index = [stats[episode]["index"] for episode in episodes]  # of the frames that are left
    rows["length"] = [int(values["count"][0]) for values in index]
    rows["dataset_from_index"] = [int(values["min"][0]) for values in index]
    rows["dataset_to_index"] = [int(values["max"][0]) + 1 for values in index]
    for video in videos:
        begin, end = f"videos/{video}/from_timestamp", f"videos/{video}/to_timestamp"
        for row, episode in enumerate(episodes):
            if episode in spans:
                rows[begin][row] += spans[episode].start / fps
                if end in rows:
                    rows[end][row] = rows[begin][row] + spans[episode].length / fps
    for name in table.column_names:
        if name.startswith("stats/") and name.split("/")[1] in stats[episodes[0]]:
            _, feature, key = name.split("/")
            rows[name] = [stats[episode][feature][key].tolist() for episode in episodes]
    return pa.table(rows, schema=table.schema)
