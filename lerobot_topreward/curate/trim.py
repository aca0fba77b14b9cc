"""Episodes of a dataset cut shorter without touching a video.

LeRobot finds an episode's frames in a video by when it begins there and by each frame's timestamp.
So it is enough to leave rows out of ``data/``, count the others anew, and move where the episode
begins and ends in its videos; the frames that are cut stay in the file, and nobody asks for them.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.utils import DATA_DIR, EPISODES_DIR, INFO_PATH, STATS_PATH, serialize_dict

from lerobot_topreward.curate.idle import Span
from lerobot_topreward.files.transaction import write_file

_NUMBERS = ("float", "int", "uint", "bool")
Stats = dict[str, dict[str, np.ndarray]]


def trim_dataset(root: Path, spans: Mapping[int, Span]) -> None:
    """Cut episodes shorter, in place: only for a folder that nobody uses yet.

    Statistics of numbers are computed anew; those of images stay those of the whole episodes.

    Args:
        root: a LeRobot v3.0 dataset whose frames are numbered without gaps.
        spans: the frames that stay, of the episodes that become shorter.
    """
    info = json.loads((root / INFO_PATH).read_text(encoding="utf-8"))
    numbers = {
        name: feature
        for name, feature in info["features"].items()
        if feature["dtype"].startswith(_NUMBERS)
    }
    stats: dict[int, Stats] = {}
    first = 0
    for path in sorted((root / DATA_DIR).glob("*/*.parquet")):
        table = rewrite(path, lambda table, at=first: _cut(table, spans, first=at, fps=info["fps"]))
        first += len(table)
        stats.update(_episode_stats(table, numbers))
    videos = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    for path in sorted((root / EPISODES_DIR).glob("*/*.parquet")):
        rewrite(path, lambda t: _move(t, spans, stats, videos=videos, fps=info["fps"]))
    all_stats = json.loads((root / STATS_PATH).read_text(encoding="utf-8"))
    ours: dict[str, Any] = aggregate_stats(list(stats.values()))
    all_stats.update(serialize_dict(ours))
    for name, content in ((STATS_PATH, all_stats), (INFO_PATH, {**info, "total_frames": first})):
        # The form in which LeRobot's write_json leaves them.
        write_file(root / name, json.dumps(content, indent=4, ensure_ascii=False))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Replace a parquet file by a changed one, which is returned."""
    table = change(pq.read_table(path))
    draft = path.with_name(f".{path.name}.tmp")
    # The settings of LeRobot's own writer.
    pq.write_table(table, draft, compression="snappy", use_dictionary=True)
    os.replace(draft, path)
    return table


def _cut(table: pa.Table, spans: Mapping[int, Span], *, first: int, fps: float) -> pa.Table:
    episode, frame = table["episode_index"].to_numpy(), table["frame_index"].to_numpy()
    start, stop = np.zeros_like(frame), np.full_like(frame, np.iinfo(np.int64).max)
    for one, span in spans.items():
        start[episode == one], stop[episode == one] = span.start, span.stop
    stays = (start <= frame) & (frame < stop)
    table, episode, frame, start = (
        table.filter(pa.array(stays)),
        episode[stays],
        frame[stays],
        start[stays],
    )
    # Not the difference of two float32: after half an hour that is 1e-4 s off, more than LeRobot
    # tolerates.
    frame = frame - start
    columns = {
        "timestamp": np.where(start > 0, frame / fps, table["timestamp"].to_numpy()),
        "frame_index": frame,
        "index": np.arange(first, first + len(table)),
    }
    for name, values in columns.items():
        place = table.column_names.index(name)
        field = table.schema.field(name)
        table = table.set_column(place, field, pa.array(values).cast(field.type))
    return table


def _episode_stats(table: pa.Table, numbers: Mapping[str, Any]) -> dict[int, Stats]:
    episode = table["episode_index"].to_numpy()
    order, starts = np.unique(episode, return_index=True)
    found: dict[int, Stats] = {}
    for one, begin, end in zip(order, starts, [*starts[1:], len(episode)], strict=True):
        rows = table.slice(begin, end - begin)
        values: dict[str, Any] = {name: np.array(rows[name].to_pylist()) for name in numbers}
        found[int(one)] = compute_episode_stats(values, dict(numbers))
    return found


def _move(
    table: pa.Table,
    spans: Mapping[int, Span],
    stats: Mapping[int, Stats],
    *,
    videos: list[str],
    fps: float,
) -> pa.Table:
    rows = table.to_pydict()
    episodes = rows["episode_index"]
    counts = {episode: int(stats[episode]["index"]["count"][0]) for episode in episodes}
    rows["length"] = [counts[episode] for episode in episodes]
    for end, name in (("min", "dataset_from_index"), ("max", "dataset_to_index")):
        past = int(end == "max")
        rows[name] = [int(stats[episode]["index"][end][0]) + past for episode in episodes]
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
