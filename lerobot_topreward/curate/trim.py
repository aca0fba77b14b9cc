"""The stationary ends of episodes: where they are, and a dataset without them.

No video is touched. LeRobot finds an episode's frames in a video by when it begins there
(``from_timestamp`` in ``meta/episodes``) and by each frame's own ``timestamp`` in ``data/``. So it
is enough to

1. leave rows out of ``data/`` and number those that stay anew;
2. move where the episode begins and ends in its videos, by as much as was cut off its head;
3. compute the statistics of numbers anew. Those of images stay those of the whole episodes.

An episode of 100 frames at 10 Hz that begins 60 s into its video file, cut to frames 20..79, then
begins at 62 s and ends at 68 s, with timestamps from 0 to 5.9 s. The frames that are cut stay in
the file, and no row refers to them.

The frames of an episode that stay are a ``range``, counted within the episode.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int64

from lerobot_topreward.data.dataset import Source, read_columns
from lerobot_topreward.data.info import DATA_DIR, EPISODES_DIR, INFO_PATH, STATS_PATH
from lerobot_topreward.data.recording import NUMBERS, flatten_column
from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.rewriting import PARQUET_OPTIONS, Stats

_SHARE = 0.02  # of a signal's range: what is less is no movement
_STEPS = 5  # ordinary changes from one frame to the next: what is less may be noise
# A VLM's opinion of a stationary video drifts: by a quarter in four seconds, in the demo.
_DRIFT = 0.3  # progress; what differs more is not drift, though nothing that is recorded moves


def find_spans(
    source: Source, labels: LabelledDataset | None, episodes: Sequence[int], *, margin: int
) -> dict[int, range]:
    """Find the frames from the first movement to the last of the episodes with idle ends.

    A frame moves when ``observation.state`` or ``action`` does, when progress differs by three
    tenths, or when a column ``next.*`` changes at all: an outcome is never cut off. `margin` frames
    stay in place at each end. With labels, only labeled episodes are trimmed.

    Raises:
        UserError: the dataset has neither states nor actions, or cannot be trimmed.
    """
    from lerobot.datasets.language import LANGUAGE_COLUMNS  # takes seconds

    frames = source.frames
    if any(name in source.meta.features for name in LANGUAGE_COLUMNS):
        raise UserError(
            f"`trim` cannot move the times of the language annotations of {source.repo_id}; leave "
            "it out"
        )
    signals = _read_numbers(source, ("observation.state", "action"))
    if signals is None:
        raise UserError(
            f"`trim` looks for movement in observation.state and action; {source.repo_id} has "
            "neither. Leave it out"
        )
    thresholds = movement_thresholds(signals, frames.episode_index)
    outcomes = [name for name in source.meta.features if name.startswith("next.")]
    outcome = _read_numbers(source, outcomes)
    if labels is not None:
        signals = np.column_stack([signals, labels.rewards().progress.astype(np.float64)])
        thresholds = np.append(thresholds, _DRIFT)
        episodes = sorted({*episodes} & {*labels.episodes})
    spans = {}
    for episode in episodes:
        rows = frames.rows(episode)
        span = moving_span(signals[rows], thresholds, margin=margin)
        if outcome is not None and (outcome[rows] != outcome[rows.start]).any():
            # At least one frame stays before the first change and after the last one.
            exact = np.zeros(outcome.shape[1])
            said = moving_span(outcome[rows], exact, margin=max(margin, 1))
            span = range(min(span.start, said.start), max(span.stop, said.stop))
        if labels is not None:
            span = widen(span, np.flatnonzero(labels.stored.scored[rows]))
        if len(span) < rows.stop - rows.start:
            spans[episode] = span
    return spans


def movement_thresholds(
    signals: Float[np.ndarray, "frames signals"], episode_index: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, " signals"]:
    """How much each signal, a state or an action, has to change to count as a movement.

    A fiftieth of its range over the dataset, and at least five times the median change from one
    frame to the next, so that a noisy sensor at rest does not move.
    """
    within = np.flatnonzero(np.diff(episode_index) == 0)
    spread = _SHARE * (signals.max(axis=0) - signals.min(axis=0))
    if len(within) == 0:
        return spread
    steps = np.abs(signals[within + 1] - signals[within])
    return np.maximum(spread, _STEPS * np.median(steps, axis=0))


def moving_span(
    signals: Float[np.ndarray, "frames signals"],
    thresholds: Float[np.ndarray, " signals"],
    *,
    margin: int,
) -> range:
    """Leave out the stationary ends of an episode, but `margin` frames of each.

    The head is idle up to the first frame at which a signal differs from the first frame by more
    than its threshold; the tail is idle after the last frame at which one differs from the last.
    Where nothing ever moves, all frames stay: what that means is not known.
    """
    frames = len(signals)
    #     signal 0 0 0 1 2 3 3 3   frames 0..7
    #     first to differ from frame 0: 3; last to differ from frame 7: 4; so frames 3 and 4 stay
    after_start = np.flatnonzero((np.abs(signals - signals[0]) > thresholds).any(axis=1))
    before_end = np.flatnonzero((np.abs(signals - signals[-1]) > thresholds).any(axis=1))
    if len(after_start) == 0 or len(before_end) == 0:
        return range(frames)
    # A slow drift may have left the start before it comes near the end: both are movement.
    first, last = sorted((int(after_start[0]), int(before_end[-1])))
    return range(max(0, first - margin), min(frames, last + 1 + margin))


def widen(span: range, scored: Int64[np.ndarray, " prefixes"]) -> range:
    """Move the ends outwards to frames that the VLM has scored.

    So a trimmed episode begins and ends with raw scores, not with interpolated ones. `scored` are
    the last frames of the scored prefixes, ascending, at least one.
    """
    before = scored[scored <= span.start]
    after = scored[scored >= span.stop - 1]
    start = int(before[-1]) if len(before) else 0
    return range(start, int(after[0]) + 1 if len(after) else span.stop)


def _read_numbers(
    source: Source, names: Sequence[str]
) -> Float[np.ndarray, "frames signals"] | None:
    """Numbers of these columns side by side in the order of the frames; None without any."""
    features = source.meta.features
    names = [n for n in names if n in features and features[n]["dtype"].startswith(NUMBERS)]
    if not names:
        return None
    table = read_columns(source, names)
    columns = [flatten_column(table[name]).astype(np.float64) for name in names]
    return np.concatenate([values.reshape(len(table), -1) for values in columns], axis=1)


def trim_dataset(root: Path, spans: Mapping[int, range]) -> None:
    """Cut episodes shorter, in place: only for a folder that nobody uses yet.

    Args:
        root: a LeRobot v3.0 dataset whose frames are numbered without gaps.
        spans: the frames that stay, of the episodes that become shorter.
    """
    # They take seconds to import.
    from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
    from lerobot.datasets.io_utils import load_json, write_json
    from lerobot.datasets.utils import serialize_dict

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


def _cut_rows(table: pa.Table, spans: Mapping[int, range], first: int, fps: float) -> pa.Table:
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
    spans: Mapping[int, range],
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
                    rows[end][row] = rows[begin][row] + len(spans[episode]) / fps
    for name in table.column_names:
        if name.startswith("stats/") and name.split("/")[1] in stats[episodes[0]]:
            _, feature, key = name.split("/")
            rows[name] = [stats[episode][feature][key].tolist() for episode in episodes]
    return pa.table(rows, schema=table.schema)
