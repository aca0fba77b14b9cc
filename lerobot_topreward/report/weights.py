"""What frames weigh in training, small enough for a page: means over a few spans of each episode."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt16

from lerobot_topreward.data.frames import FrameTable
from lerobot_topreward.storage.weights import TrainingWeights

NOT_TRAINED_ON = 65535  # of two bytes
_MOST_POINTS = 200  # of an episode
_FEWEST_POINTS = 10
_BASE64 = 4 / 3  # bytes of text in a byte


@dataclass(frozen=True, slots=True)
class WeightsContent:
    """What the page knows of the weights of all frames; 1 is their average."""

    title: str  # how frames are weighted, in words
    high: float  # the largest of the means below
    # Of each episode: mean weights of spans that divide its frames evenly, 0..65534 from 0 to high.
    values: Mapping[int, UInt16[np.ndarray, " points"]]
    means: Mapping[int, float]  # of each episode, over its frames; nan where none is trained on


def weights_content(
    weights: TrainingWeights, frames: FrameTable, *, episodes: Iterable[int], budget: int
) -> WeightsContent:
    """Describe the weights of some episodes, as fine as the budget allows, in bytes of the page."""
    rows = {episode: frames.rows(episode) for episode in episodes}
    points = int(budget / (2 * _BASE64 * max(1, len(rows))))
    points = max(_FEWEST_POINTS, min(_MOST_POINTS, points))
    whole = np.full(len(frames.index), np.nan)
    whole[weights.index] = weights.weight
    spans = {episode: mean_of_spans(whole[own], points) for episode, own in rows.items()}
    known = [values[np.isfinite(values)] for values in spans.values()]
    high = max((float(values.max()) for values in known if len(values)), default=0.0)
    return WeightsContent(
        title=weights.title,
        high=high,
        values={episode: _to_bytes(values, high) for episode, values in spans.items()},
        means={episode: float(mean_of_spans(whole[own], 1)[0]) for episode, own in rows.items()},
    )


def mean_of_spans(
    values: Float64[np.ndarray, " frames"], points: int
) -> Float64[np.ndarray, " points"]:
    """The means of at most so many spans of some values, at least one; nan counts in none."""
    count = min(points, len(values))
    starts = -(-np.arange(count) * len(values) // count)
    known = np.isfinite(values)
    totals = np.add.reduceat(np.where(known, values, 0.0), starts)
    members = np.add.reduceat(known.astype(np.int64), starts)
    return np.where(members > 0, totals / np.maximum(members, 1), np.nan)


def _to_bytes(values: Float64[np.ndarray, " points"], high: float) -> UInt16[np.ndarray, " points"]:
    scaled = np.round(np.nan_to_num(values) / (high or 1.0) * (NOT_TRAINED_ON - 1))
    return np.where(np.isfinite(values), scaled, NOT_TRAINED_ON).astype("<u2")
