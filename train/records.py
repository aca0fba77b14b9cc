"""The records between a labelled dataset and its weights: labels in, weights out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """The rewards of the frames that are trained on, in the order of their global index."""

    index: Int64[np.ndarray, " frames"]  # global, ascending; gaps where episodes are left out
    episode_index: Int64[np.ndarray, " frames"]
    task_index: Int64[np.ndarray, " frames"]
    progress: Float32[np.ndarray, " frames"]  # 0..1; 0 where not labelled
    log_prob: Float32[np.ndarray, " frames"]  # of True, nats, <= 0; 0 where not labelled
    labelled: Bool[np.ndarray, " frames"]
    prefix_end: Bool[np.ndarray, " frames"] | None  # last frames of scored prefixes, where known
    tasks: Mapping[int, str]  # task index -> instruction
    fps: float  # Hz


@dataclass(frozen=True, slots=True)
class FrameWeights:
    """The weight of every frame that is trained on, in the order of its global index."""

    index: Int64[np.ndarray, " frames"]
    raw: Float32[np.ndarray, " frames"]  # >= 0, as the scheme's formula gives it
    weight: Float32[np.ndarray, " frames"]  # >= 0, as used: mean 1 over the frames, or raw
    capped: Bool[np.ndarray, " frames"]  # the formula's upper limit was reached
