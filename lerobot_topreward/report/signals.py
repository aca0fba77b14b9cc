"""Commands and readings of every episode, small enough for a page: a byte a value, few values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from lerobot_topreward.data.recording import open_recorded
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import EpisodeRecording

UNKNOWN = 255  # of a byte: no finite number was recorded
MOST_SIGNALS = 64
_MOST_POINTS = 200  # of an episode
_FEWEST_POINTS = 20  # fewer would show another movement
_BASE64 = 4 / 3  # bytes of text in a byte


@dataclass(frozen=True, slots=True)
class SignalsContent:
    """What the page knows of the commands and readings of all episodes."""

    names: Sequence[str]  # "action.shoulder_pan.pos", "observation.state.gripper.pos"
    low: Float[np.ndarray, " signals"]  # least finite value in any episode, in the dataset's unit
    high: Float[np.ndarray, " signals"]  # largest
    # Of each episode: 0..254 from low to high, at points that lie evenly over its frames.
    values: Mapping[int, UInt8[np.ndarray, "signals points"]]


def read_signals(
    root: Path, *, repo_id: str, episodes: Sequence[int], budget: int
) -> SignalsContent | None:
    """Read what was commanded and read of these episodes, as fine as the budget allows.

    None where nothing of that kind was recorded, where it cannot be read, or where there is no room;
    an episode that cannot be read is left out.

    Args:
        root: the dataset's folder, with ``meta/`` and ``data/``.
        repo_id: its name.
        episodes: indices.
        budget: bytes of the page for all of them.
    """
    try:
        recorded = open_recorded(root, repo_id=repo_id, option=f"the dataset in {root}")
    except UserError:
        return None  # the page says why the recording is not checked
    signals = recorded.signals
    chosen = [*signals.commands, *signals.readings][:MOST_SIGNALS]
    if not chosen or not episodes:
        return None
    points = min(_MOST_POINTS, int(budget / (_BASE64 * len(chosen) * len(episodes))))
    if points < _FEWEST_POINTS:
        return None
    known = [episode for episode in episodes if episode < len(recorded.lengths)]
    taken = _take_points(recorded.episodes(known), chosen, points)
    if not taken:
        return None
    low = np.full(len(chosen), np.inf)
    high = np.full(len(chosen), -np.inf)
    for rows in taken.values():
        finite = np.isfinite(rows)
        low = np.minimum(low, np.where(finite, rows, np.inf).min(axis=1))
        high = np.maximum(high, np.where(finite, rows, -np.inf).max(axis=1))
    nowhere = low > high
    low, high = np.where(nowhere, 0.0, low), np.where(nowhere, 0.0, high)
    return SignalsContent(
        names=[signals.names[column] for column in chosen],
        low=low,
        high=high,
        values={episode: to_bytes(rows, low, high) for episode, rows in taken.items()},
    )


def _take_points(
    recordings: Iterable[tuple[int, EpisodeRecording | EpisodeError]],
    chosen: Sequence[int],
    points: int,
) -> dict[int, Float[np.ndarray, "signals points"]]:
    taken: dict[int, Float[np.ndarray, "signals points"]] = {}
    for episode, recording in recordings:
        if isinstance(recording, EpisodeError) or not len(recording.values):
            continue
        last = len(recording.values) - 1
        rows = np.round(np.linspace(0, last, min(points, last + 1))).astype(np.int64)
        taken[episode] = recording.values[np.ix_(rows, np.asarray(chosen))].T
    return taken


def to_bytes(
    rows: Float[np.ndarray, "signals points"],
    low: Float[np.ndarray, " signals"],
    high: Float[np.ndarray, " signals"],
) -> UInt8[np.ndarray, "signals points"]:
    """Put values as 0..254 from low to high, and as `UNKNOWN` where they are not finite."""
    finite = np.isfinite(rows)
    # Halves, since the difference of two finite numbers need not be finite.
    span = np.where(high > low, high / 2 - low / 2, 1.0)[:, np.newaxis]
    share = (np.where(finite, rows, 0.0) / 2 - low[:, np.newaxis] / 2) / span
    scaled = np.round(np.clip(share, 0, 1) * (UNKNOWN - 1))
    return np.where(finite, scaled, UNKNOWN).astype(np.uint8)
