"""Where an episode stands still at its ends: pure arithmetic."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from lerobot.datasets.language import LANGUAGE_COLUMNS

from lerobot_topreward.data.dataset import Source, read_columns
from lerobot_topreward.data.fingerprints import flatten_column
from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.reader import LabelledDataset

SHARE = 0.02  # of a signal's range: what is less is no movement
_STEPS = 5  # ordinary changes from one frame to the next: what is less may be noise


@dataclass(frozen=True, slots=True)
class Span:
    """Frames of an episode, from `start` up to but without `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Frames."""
        return self.stop - self.start


def movement_thresholds(
    signals: Float[np.ndarray, "frames signals"], episode_index: Int64[np.ndarray, " frames"]
) -> Float[np.ndarray, " signals"]:
    """How much each signal has to change to count as a movement.

    A fiftieth of its range over the dataset, and at least five times the median change from one
    frame to the next, so that a sensor that only trembles never moves.

    Args:
        signals: states and actions of every frame, any unit.
        episode_index: of every frame, ascending.

    Returns:
        In the unit of each signal, >= 0.
    """
    within = np.flatnonzero(np.diff(episode_index) == 0)
    spread = SHARE * (signals.max(axis=0) - signals.min(axis=0))
    if len(within) == 0:
        return spread
    steps = np.abs(signals[within + 1] - signals[within])
    return np.maximum(spread, _STEPS * np.median(steps, axis=0))


def moving_span(
    signals: Float[np.ndarray, "frames signals"],
    thresholds: Float[np.ndarray, " signals"],
    *,
    margin: int,
) -> Span:
    """Leave out what stands still at both ends of an episode.

    The head is idle up to the first frame at which a signal differs from the first frame by more
    than its threshold; the tail is idle after the last frame at which one differs from the last.

    Args:
        signals: of the episode's frames, at least one.
        thresholds: in the unit of each signal.
        margin: frames to leave in place at each end, >= 0.

    Returns:
        All frames where nothing ever moves: what that means is not known.
    """
    frames = len(signals)
    left = np.flatnonzero((np.abs(signals - signals[0]) > thresholds).any(axis=1))
    not_yet = np.flatnonzero((np.abs(signals - signals[-1]) > thresholds).any(axis=1))
    if len(left) == 0 or len(not_yet) == 0:
        return Span(0, frames)
    # A slow drift may have left the one before it comes near the other: both are movement.
    first, last = min(left[0], not_yet[-1]), max(left[0], not_yet[-1])
    return Span(max(0, int(first) - margin), min(frames, int(last) + 1 + margin))


def widen(span: Span, scored: Int64[np.ndarray, " prefixes"]) -> Span:
    """Move the ends outwards to frames that the VLM has scored.

    So a trimmed episode begins and ends with scores of the VLM's own, not with interpolated ones.

    Args:
        span: to be cut to.
        scored: last frames of the scored prefixes within the episode, ascending, at least one.

    Returns:
        A span that holds the given one, unless nothing was scored before it.
    """
    before = scored[scored <= span.start]
    after = scored[scored >= span.stop - 1]
    start = int(before[-1]) if len(before) else 0
    return Span(start, int(after[0]) + 1 if len(after) else span.stop)


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
    source, frames = dataset.source, dataset.source.frames
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
    rewards = dataset.rewards()
    scored = dict(_scored(dataset))
    spans = {}
    for episode in episodes:
        rows = frames.rows(episode)
        if not rewards.labelled[rows].any():
            continue
        signals = [movement[rows], rewards.progress[rows, None].astype(np.float64)]
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
    table = read_columns(source, names)
    columns = [flatten_column(table[name]).astype(np.float64) for name in names]
    return np.concatenate([values.reshape(len(table), -1) for values in columns], axis=1)
