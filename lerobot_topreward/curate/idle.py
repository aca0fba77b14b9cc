"""Where an episode is stationary at its ends."""

from collections import defaultdict
from collections.abc import Sequence
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
# A VLM's opinion of a stationary video drifts: by a quarter in four seconds, in the demo.
_DRIFT = 0.3  # progress; what differs more is not drift, though nothing that is recorded moves
NUMBERS = ("float", "int", "uint", "bool")  # how the dtypes of columns of numbers begin


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
    """How much each signal, a state or an action, has to change to count as a movement.

    A fiftieth of its range over the dataset, and at least five times the median change from one
    frame to the next, so that a noisy sensor at rest does not move.
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
    """Leave out the stationary ends of an episode, but `margin` frames of each.

    The head is idle up to the first frame at which a signal differs from the first frame by more
    than its threshold; the tail is idle after the last frame at which one differs from the last.
    Where nothing ever moves, all frames stay: what that means is not known.
    """
    frames = len(signals)
    after_start = np.flatnonzero((np.abs(signals - signals[0]) > thresholds).any(axis=1))
    before_end = np.flatnonzero((np.abs(signals - signals[-1]) > thresholds).any(axis=1))
    if len(after_start) == 0 or len(before_end) == 0:
        return Span(0, frames)
    # A slow drift may have left the start before it comes near the end: both are movement.
    first, last = sorted((int(after_start[0]), int(before_end[-1])))
    return Span(max(0, first - margin), min(frames, last + 1 + margin))


def widen(span: Span, scored: Int64[np.ndarray, " prefixes"]) -> Span:
    """Move the ends outwards to frames that the VLM has scored.

    So a trimmed episode begins and ends with raw scores, not with interpolated ones. `scored` are
    the last frames of the scored prefixes, ascending, at least one.
    """
    before = scored[scored <= span.start]
    after = scored[scored >= span.stop - 1]
    start = int(before[-1]) if len(before) else 0
    return Span(start, int(after[0]) + 1 if len(after) else span.stop)


def moving_spans(
    dataset: LabelledDataset, episodes: Sequence[int], *, margin: int
) -> dict[int, Span]:
    """Find the part of each labeled episode between its first movement and its last.

    A frame moves when ``observation.state`` or ``action`` does, when progress differs by three
    tenths, or when a column ``next.*`` changes at all: an outcome is never cut off. `margin` frames
    stay in place at each end.

    Raises:
        UserError: the dataset has neither states nor actions, or cannot be trimmed.
    """
    source, frames = dataset.source, dataset.source.frames
    if any(name in source.meta.features for name in LANGUAGE_COLUMNS):
        raise UserError(
            f"--trim cannot move the times of the language annotations of {source.repo_id}; leave "
            "it out"
        )
    movement = _read_numbers(source, ("observation.state", "action"))
    if movement is None:
        raise UserError(
            f"--trim looks for movement in observation.state and action; {source.repo_id} has "
            "neither. Leave it out"
        )
    thresholds = movement_thresholds(movement, frames.episode_index)
    outcomes = [name for name in source.meta.features if name.startswith("next.")]
    outcome = _read_numbers(source, outcomes)
    if outcome is not None:
        movement = np.concatenate([movement, outcome], axis=1)
        thresholds = np.concatenate([thresholds, np.zeros(outcome.shape[1])])
    rewards = dataset.rewards()
    movement = np.column_stack([movement, rewards.progress.astype(np.float64)])
    thresholds = np.append(thresholds, _DRIFT)
    scored: dict[int, list[np.ndarray]] = defaultdict(list)  # last frames of prefixes, by episode
    for scores in dataset.scores:
        ends = scores.segment.start + scores.prefix_length - 1
        scored[scores.segment.episode_index].append(ends)
    spans = {}
    for episode in episodes:
        rows = frames.rows(episode)
        if rewards.labelled[rows].any():
            span = moving_span(movement[rows], thresholds, margin=margin)
            spans[episode] = widen(span, np.concatenate(scored[episode]))
    return spans


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
