"""The records between a labeled dataset and its weights, and what schemes read off the labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lerobot_topreward.errors import UserError
from lerobot_topreward.rewards import Normalize, advantage

_LONGEST = 2**31  # frames: a longer span is as long, and all are longer than any episode
NOTHING = 0.01  # of the mean weight: what weighs less is said to weigh nothing


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
    # Over what progress was scaled to 0..1; None: it is not known.
    normalize: Normalize | None = None
    # Neither commands nor readings change; None: it was not asked.
    idle: Bool[np.ndarray, " frames"] | None = None

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
    # Weighs nothing because it stands still; None: such frames are kept.
    stationary: Bool[np.ndarray, " frames"] | None = None

    @property
    def nothing(self) -> Bool[np.ndarray, " frames"]:
        """The frames that weigh nothing: under a hundredth of the mean."""
        return self.weight < NOTHING * np.mean(self.weight, dtype=np.float64)

    @property
    def effective(self) -> float:
        """Effective sample size (Kish): as many equal weights would estimate a mean as well."""
        weight = self.weight.astype(np.float64)
        return float(weight.sum() ** 2 / (weight @ weight))


def span_frames(option: str, seconds: float, *, fps: float) -> int:
    """Turn a span in seconds into frames, >= 1.

    Raises:
        UserError: it is below one frame.
    """
    frames = round(min(seconds * fps, _LONGEST))
    if frames < 1:
        raise UserError(
            f"`weighting.{option}` must be at least one frame, {1 / fps:.3g} s at {fps:g} fps; got "
            f"{seconds:g}"
        )
    return frames


def progress_gain(labels: FrameLabels, *, horizon: int) -> Float32[np.ndarray, " frames"]:
    """Progress gained over the next `horizon` frames, -1..1: `rewards.advantage` of every run."""
    runs = [advantage(labels.progress[rows], horizon=horizon) for rows in labels.runs()]
    return np.concatenate(runs)


def prefix_gain(labels: FrameLabels) -> Float32[np.ndarray, " frames"]:
    """Progress gained between the two scored prefixes that a frame's action lies between, -1..1.

    The actions of the frames e(k-1) to e(k) - 1 lead from the last frame of prefix k - 1 to that
    of prefix k; each of them gets s(k) - s(k-1) of arXiv 2602.19313, Eq. 3. Frames before the
    first prefix get the first increment, those from the last prefix on the last one, and a run
    with a single prefix gains nothing.

    Raises:
        UserError: it is not known which prefixes of a run were scored.
    """
    if labels.prefix_end is None:
        raise UserError(
            "`weighting.span=prefix` must know which prefixes were scored, which these labels do "
            "not say; label the dataset again, or use `weighting.span=chunk`"
        )
    runs = labels.runs()
    unknown = [rows.start for rows in runs if not labels.prefix_end[rows].any()]
    if unknown:
        episodes = np.unique(labels.episode_index[unknown])
        raise UserError(
            f"`weighting.span=prefix` must know which prefixes were scored; the raw scores of "
            f"{len(episodes)} episodes are missing ({list_first(episodes)}). Label the dataset "
            "again, or use `weighting.span=chunk`"
        )
    gains = []
    for rows in runs:
        progress, ends = labels.progress[rows], np.flatnonzero(labels.prefix_end[rows])
        # For each frame, the first prefix that ends after it and the one before that.
        after = np.searchsorted(ends, np.arange(len(progress)), side="right")
        after = np.minimum(np.maximum(after, 1), len(ends) - 1)
        before = np.maximum(after - 1, 0)
        gains.append(progress[ends[after]] - progress[ends[before]])
    return np.concatenate(gains)


def success_scores(labels: FrameLabels) -> Float64[np.ndarray, " episodes"]:
    """How sure the VLM is of each episode's success, nats, <= 0: `metrics.success_score`."""
    from lerobot_topreward.judging.metrics import success_score  # --help need not wait for scipy

    scores = []
    for rows in labels.episodes():
        last = labels.log_prob[_last_frames(labels, rows)]
        scores.append(success_score(last, tail=len(last)))
    return np.array(scores)


def final_progress(labels: FrameLabels, rows: slice) -> float:
    """The progress with which an episode or a run ends, 0..1: `EpisodeMetrics.final_progress`."""
    return float(np.mean(labels.progress[_last_frames(labels, rows)], dtype=np.float64))


def _last_frames(labels: FrameLabels, rows: slice) -> Int64[np.ndarray, " last"]:
    """The rows of the last three scored prefixes of some rows.

    Those of the last second where it is not known which prefixes were scored.
    """
    from lerobot_topreward.judging.metrics import TAIL  # --help need not wait for scipy

    every, ends = np.arange(rows.start, rows.stop), labels.prefix_end
    if ends is not None and ends[rows].any():
        return every[ends[rows]][-TAIL:]
    return every[-max(1, round(labels.fps)) :]


def list_first(names: Sequence[object] | np.ndarray) -> str:
    """Name the first eight of some episodes or tasks."""
    return ", ".join([*map(str, names[:8]), *["..."][: len(names) - 8 > 0]])
