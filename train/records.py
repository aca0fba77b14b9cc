"""The records between a labeled dataset and its weights: labels in, weights out."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Int64


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """The rewards of the frames that are trained on, in the order of their global index."""

    index: Int64[np.ndarray, " frames"]  # global, ascending; gaps where episodes are left out
    episode_index: Int64[np.ndarray, " frames"]
    task_index: Int64[np.ndarray, " frames"]
    progress: Float32[np.ndarray, " frames"]  # 0..1; 0 where not labeled
    log_prob: Float32[np.ndarray, " frames"]  # of True, nats, <= 0; 0 where not labeled
    labelled: Bool[np.ndarray, " frames"]
    prefix_end: Bool[np.ndarray, " frames"] | None  # last frames of scored prefixes, where known
    tasks: Mapping[int, str]  # task index -> instruction
    fps: float  # Hz

    def select(self, rows: Bool[np.ndarray, " frames"]) -> "FrameLabels":
        """Keep some of the frames."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen = {name: x[rows] for name, x in arrays.items() if isinstance(x, np.ndarray)}
        return replace(self, **chosen)

    def episodes(self) -> list[slice]:
        """The rows of each episode."""
        return _split(np.diff(self.episode_index) != 0)

    def runs(self) -> list[slice]:
        """The rows of each run: consecutive frames of one episode under one instruction."""
        return _split(
            (np.diff(self.episode_index) != 0)
            | (np.diff(self.task_index) != 0)
            | (np.diff(self.index) != 1)
        )


def _split(border: Bool[np.ndarray, " between"]) -> list[slice]:
    edges = [0, *(np.flatnonzero(border) + 1).tolist(), len(border) + 1]
    return [slice(start, stop) for start, stop in pairwise(edges)]


@dataclass(frozen=True, slots=True)
class FrameWeights:
    """The weight of every frame that is trained on, in the order of its global index."""

    index: Int64[np.ndarray, " frames"]
    raw: Float32[np.ndarray, " frames"]  # >= 0, as the scheme's formula gives it
    weight: Float32[np.ndarray, " frames"]  # >= 0, as used: mean 1 over the frames, or raw
    capped: Bool[np.ndarray, " frames"]  # the formula's upper limit was reached
