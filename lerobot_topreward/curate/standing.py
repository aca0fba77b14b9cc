"""Where the episodes of a dataset stand still: its states, actions and progress, read and joined."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from lerobot.datasets.language import LANGUAGE_COLUMNS

from lerobot_topreward.curate.idle import Span, movement_thresholds, moving_span, widen
from lerobot_topreward.errors import UserError
from lerobot_topreward.labelled import LabelledDataset
from lerobot_topreward.source import Source, data_files

# A VLM's opinion of a video that stands still drifts: by a quarter in four seconds, in the demo.
_DRIFT = 0.3  # progress; what differs more is not drift, though nothing that is recorded moves
_NUMBERS = ("float", "int", "uint", "bool")


def moving_spans(
    dataset: LabelledDataset, episodes: Sequence[int], *, margin: int
) -> dict[int, Span]:
    """Find the part of each episode between its first movement and its last.

    A frame moves when ``observation.state`` or ``action`` does (see `idle`), when progress differs
    by three tenths, or when a column ``next.*`` changes at all: an outcome is never cut off.

    Args:
        dataset: labelled; an episode without labels stays whole.
        episodes: which ones.
        margin: frames to leave in place at each end.

    Raises:
        UserError: the dataset has neither states nor actions, or cannot be trimmed.
    """
    source, frames = dataset.source, dataset.frames
    if any(name in source.meta.features for name in LANGUAGE_COLUMNS):
        raise UserError(
            f"--trim cannot move the times of the language annotations of {source.repo_id}; leave "
            "it out"
        )
    movement = _columns(source, ("observation.state", "action"))
    if movement is None:
        raise UserError(
            f"--trim looks for movement in observation.state and action; {source.repo_id} has "
            "neither. Leave it out"
        )
    thresholds = movement_thresholds(movement, frames.episode_index)
    outcome = _columns(source, [name for name in source.meta.features if name.startswith("next.")])
    progress = {one.episode_index: one.progress for one in dataset.rewards()}
    scored = dict(_scored(dataset))
    spans = {}
    for episode in episodes:
        rows = frames.rows(episode)
        if episode not in progress or rows.stop == rows.start:
            continue
        signals = [movement[rows], progress[episode][:, None].astype(np.float64)]
        limits = [thresholds, np.array([_DRIFT])]
        if outcome is not None:
            signals.append(outcome[rows])
            limits.append(np.zeros(outcome.shape[1]))
        joined = np.concatenate(signals, axis=1)
        span = moving_span(joined, np.concatenate(limits), margin=margin)
        spans[episode] = widen(span, scored[episode])
    return spans


def _scored(dataset: LabelledDataset) -> Iterator[tuple[int, np.ndarray]]:
    """The frames at which the VLM gave a score, of each episode."""
    parts: dict[int, list[np.ndarray]] = defaultdict(list)
    for one in dataset.scores:
        parts[one.segment.episode_index].append(one.segment.start + one.prefix_length - 1)
    for episode, ends in parts.items():
        yield episode, np.concatenate(ends)


def _columns(source: Source, names: Sequence[str]) -> Float[np.ndarray, "frames signals"] | None:
    """Numbers of these columns side by side in the order of the frames; None without any."""
    features = source.meta.features
    names = [n for n in names if n in features and features[n]["dtype"].startswith(_NUMBERS)]
    if not names:
        return None
    try:
        tables = [pq.read_table(path, columns=["index", *names]) for path in data_files(source)]
        table = pa.concat_tables(tables).combine_chunks()
    except (pa.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{source.root / 'data'} cannot be read: {error}") from error
    order = np.argsort(table["index"].to_numpy(), kind="stable")
    flat = [_rows(table[name], len(table)) for name in names]
    return np.concatenate(flat, axis=1)[order]


def _rows(column: pa.ChunkedArray, rows: int) -> Float[np.ndarray, "frames values"]:
    values = column.combine_chunks()
    while isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).astype(np.float64).reshape(rows, -1)
