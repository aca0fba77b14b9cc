"""The frozen records that pass between the stages, and what their numbers mean.

dataset -> Segment -> Clip -> LogProbs -> PrefixScores -> FrameRewards -> columns and sidecar
                                                       -> EpisodeMetrics -> Verdict
dataset -> EpisodeRecording -> Finding                                     -> Verdict
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive frames of one episode that follow one instruction: the unit of scoring."""

    episode_index: int
    start: int  # first frame, counted within the episode
    length: int  # frames, >= 1
    instruction: str


@dataclass(frozen=True, slots=True)
class Clip:
    """The images of one segment as a VLM is shown them.

    Image ``i`` is ``frames[shown[i]]`` and carries the time ``frame_indices[i] / fps``. Controls
    change ``shown`` alone: the static one is all zeros, the reversed one descends.
    """

    segment: Segment
    fps: float  # the dataset's own clock, Hz
    frames: UInt8[np.ndarray, "decoded height width 3"]
    shown: Int64[np.ndarray, " sampled"]  # index into frames
    frame_indices: Int64[np.ndarray, " sampled"]  # within the segment, ascending
    # Those of frame_indices that the schedule shows, where a scorer wants to see others, too.
    scheduled: Int64[np.ndarray, " scheduled"] | None = None
    # Height and width as recorded, where the frames were resized when they were decoded.
    recorded_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as recorded, pixels."""
        return self.recorded_size or (self.frames.shape[1], self.frames.shape[2])


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Log-probabilities of the two answers, in nats, <= 0."""

    true: Float32[np.ndarray, "instructions prefixes"]
    false: Float32[np.ndarray, "instructions prefixes"]
    # Where a server returned only a bound, which is higher; None where all are exact.
    true_censored: Bool[np.ndarray, "instructions prefixes"] | None = None
    false_censored: Bool[np.ndarray, "instructions prefixes"] | None = None
    # Of success, nats, <= 0, where a reward model gives it beside its progress.
    success: Float32[np.ndarray, "instructions prefixes"] | None = None


@dataclass(frozen=True, slots=True)
class PrefixScores:
    """Raw scores of one segment under one control, one entry per prefix, ascending."""

    segment: Segment
    control: str  # "none", or one of scoring.CONTROLS
    prefix_length: Int64[np.ndarray, " prefixes"]  # raw frames of the segment, 1..length
    frame_index: Int64[np.ndarray, " prefixes"]  # last frame shown, counted within the episode
    log_prob_true: Float32[np.ndarray, " prefixes"]  # nats, <= 0
    log_prob_false: Float32[np.ndarray, " prefixes"]  # nats, <= 0
    # Where a server returned only a bound, which is higher; None where all are exact.
    true_censored: Bool[np.ndarray, " prefixes"] | None = None
    false_censored: Bool[np.ndarray, " prefixes"] | None = None
    # Nats, <= 0, where a reward model gave it: what the success score is then made of.
    log_prob_success: Float32[np.ndarray, " prefixes"] | None = None

    @property
    def success(self) -> Float32[np.ndarray, " prefixes"]:
        """What says how likely success is: a log-probability of its own, or that of True."""
        return self.log_prob_true if self.log_prob_success is None else self.log_prob_success


@dataclass(frozen=True, slots=True)
class FrameRewards:
    """Labels of frames in the order of the global ``index``; zeros where a frame has none."""

    index: Int64[np.ndarray, " frames"]
    episode_index: Int64[np.ndarray, " frames"]
    frame_index: Int64[np.ndarray, " frames"]  # within the episode
    labelled: Bool[np.ndarray, " frames"]
    log_prob_true: Float32[np.ndarray, " frames"]  # nats, <= 0, interpolated between prefixes
    log_prob_false: Float32[np.ndarray, " frames"]  # nats, <= 0, interpolated between prefixes
    progress: Float32[np.ndarray, " frames"]  # 0..1
    advantage: Float32[np.ndarray, " frames"]  # progress gained over the horizon, -1..1
    scored: Bool[np.ndarray, " frames"]  # last frames of scored prefixes: their scores are raw
    absent: frozenset[str] = frozenset()  # fields that were not stored, so zeros everywhere

    @classmethod
    def zeros(
        cls,
        index: Int64[np.ndarray, " frames"],
        episode_index: Int64[np.ndarray, " frames"],
        frame_index: Int64[np.ndarray, " frames"],
    ) -> "FrameRewards":
        """Make the labels of frames that have none yet, to be filled in."""
        zeros = {
            field: np.zeros(len(index), dtype=FEATURES[name]["dtype"])
            for name, field in COLUMNS.items()
        }
        return cls(index, episode_index, frame_index, **zeros)

    def take(self, rows: slice | Int64[np.ndarray, " rows"]) -> "FrameRewards":
        """Take the labels of some frames."""
        names = ("index", "episode_index", "frame_index", *COLUMNS.values())
        return FrameRewards(**{n: getattr(self, n)[rows] for n in names}, absent=self.absent)

    def episode(self, episode: int) -> "FrameRewards":
        """Take the labels of one episode."""
        first, last = np.searchsorted(self.episode_index, [episode, episode + 1])
        return self.take(slice(first, last))


# Where a dataset keeps them: the name of a column, and the field of `FrameRewards` that it holds.
# The sidecar has the same values, under the names of the fields.
COLUMNS = {
    "topreward.log_prob": "log_prob_true",
    "topreward.log_prob_false": "log_prob_false",
    "topreward.progress": "progress",
    "topreward.advantage": "advantage",
    "topreward.labelled": "labelled",
    "topreward.scored": "scored",
}
FEATURES: dict[str, dict[str, Any]] = {  # as LeRobot describes them in meta/info.json
    name: {
        "dtype": "bool" if field in ("labelled", "scored") else "float32",
        "shape": [1],
        "names": None,
    }
    for name, field in COLUMNS.items()
}


@dataclass(frozen=True, slots=True)
class NextRewards:
    """Progress under the names that LeRobot's viewers and offline RL know; see `make_next_rewards`."""

    reward: Float32[np.ndarray, " frames"]  # progress gained by the next frame, -1..1
    success: Bool[np.ndarray, " frames"]  # on the last frame of an episode that got there


# Columns that a dataset may have of its own, so those that we wrote say so. What it says is the same
# in every dataset: LeRobot merges only those whose features are equal.
_MADE_BY = {"made_by": "lerobot-topreward"}
NEXT_FEATURES: dict[str, dict[str, Any]] = {
    "next.reward": {"dtype": "float32", "shape": [1], "names": None, "info": _MADE_BY},
    "next.success": {"dtype": "bool", "shape": [1], "names": None, "info": _MADE_BY},
}


def is_own_feature(feature: Any) -> bool:
    """Tell whether a feature of ``meta/info.json``, which may be a stranger's, is one of these."""
    return isinstance(feature, Mapping) and feature.get("info") == _MADE_BY


@dataclass(frozen=True, slots=True)
class EpisodeMetrics:
    """What the rewards say of one episode; progress is per task, so that episodes compare."""

    episode_index: int
    task: str  # its instruction; several of one episode are joined
    frames: int
    seconds: float
    voc: float  # -1..1, mean over its segments; nan where undefined
    success_score: float  # nats, mean log P(True) of the last three prefixes
    final_progress: float  # 0..1, mean over the last three prefixes
    max_progress: float  # 0..1
    seconds_to_90: float  # s until progress reaches 0.9; nan if it never does
    negative_share: float  # 0..1, of frames with a negative advantage
    longest_stall: float  # s
    regress: float  # 0..1, the largest fall of progress below an earlier maximum
    log_odds: float  # nats, log P(True) - log P(False) of the last prefix


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an episode is kept, and every reason why not."""

    episode_index: int
    reasons: tuple[str, ...]  # "rule: what was found"; empty when it is kept

    @property
    def keep(self) -> bool:
        """Whether nothing speaks against the episode."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Signals:
    """What the columns of `EpisodeRecording.values` are."""

    names: tuple[str, ...]  # "action.dx", "observation.state.shoulder_pan.pos"
    commands: tuple[int, ...]  # columns of ``action``
    readings: tuple[int, ...]  # columns of ``observation.state``
    pairs: tuple[tuple[int, int], ...]  # command and reading of the same joint
    grippers: tuple[int, ...]  # commands and readings that are named after a gripper


@dataclass(frozen=True, slots=True)
class EpisodeRecording:
    """What was recorded of one episode besides pictures."""

    episode_index: int
    task: str  # several of one episode are joined; "" when it has none
    declared: int  # frames that ``meta/episodes`` promises
    timestamp: Float64[np.ndarray, " frames"]  # s since the episode began
    frame_index: Int64[np.ndarray, " frames"]
    values: Float64[
        np.ndarray, "frames signals"
    ]  # action and observation.*, nan where not a number
    # Camera -> s of its video, where ``meta/episodes`` gives them.
    video_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a recording says against itself."""

    episode_index: int | None  # None: of the whole dataset
    level: Literal["broken", "suspect", "note"]  # broken: training on it is wrong
    defect: str  # a name of judging.defects.DEFECTS, or one of your own
    text: str  # a sentence with numbers
    frames: tuple[int, int] | None = None  # the first and the last one concerned
