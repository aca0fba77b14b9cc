"""Where an episode stands still at its ends: pure arithmetic."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

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
