"""What the page says: records become the data of the page, pure arithmetic without any I/O."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int64

from lerobot_topreward.judging.controls import compare_controls, verdict
from lerobot_topreward.judging.metrics import mean_defined, roc_auc, voc
from lerobot_topreward.records import (
    EpisodeMetrics,
    FrameRewards,
    PrefixScores,
    Segment,
    Verdict,
)
from lerobot_topreward.rewards import Scale

_DECIMALS = 4  # a tenth of a millinat: less than a pixel at any zoom


@dataclass(frozen=True, slots=True)
class Curve:
    """The rewards of an episode at the frames where they bend; straight lines in between."""

    frame: Int64[np.ndarray, " knots"]  # of the episode, ascending
    log_prob: Float[np.ndarray, " knots"]  # nats
    progress: Float[np.ndarray, " knots"]  # 0..1
    advantage: Float[np.ndarray, " knots"]  # -1..1


@dataclass(frozen=True, slots=True)
class Part:
    """A segment as the page draws it."""

    start: int  # frame of the episode
    length: int
    instruction: str


@dataclass(frozen=True, slots=True)
class EpisodeContent:
    """Everything that the page says of one episode but for its pictures."""

    episode: int
    task: str
    frames: int
    keep: bool  # by the rules alone
    reasons: Sequence[str]  # why not
    success: bool | None  # what truly happened, where known
    metrics: Mapping[str, float]  # by their names in EpisodeMetrics; nan where undefined
    parts: Sequence[Part]
    curve: Curve
    prefixes: Int64[np.ndarray, " prefixes"]  # last frame of each scored prefix
    static: Float[np.ndarray, " prefixes"] | None  # nats, log-prob of the first frame repeated


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """An episode without rewards, and why, where that is known."""

    episode: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class ControlContent:
    """What a control says of the rewards."""

    name: str
    sentence: str
    voc: float  # -1..1, mean
    share: float  # its rise as a share of the real one
    episodes: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of the labelled episodes of a dataset."""

    scores: Sequence[PrefixScores]  # control "none"
    rewards: FrameRewards  # of the same episodes, normalized per task
    metrics: Sequence[EpisodeMetrics]  # of the same episodes
    verdicts: Sequence[Verdict]  # of the same episodes, by the rules alone
    success: Mapping[int, bool]
    controls: Mapping[str, Sequence[PrefixScores]]  # scores of each control that there is
    horizon: int  # of the advantage, frames
    scale: Scale


def episode_contents(findings: Findings) -> list[EpisodeContent]:
    """Describe every labelled episode, in the order of their indices."""
    parts: dict[int, list[PrefixScores]] = defaultdict(list)
    for one in findings.scores:
        parts[one.segment.episode_index].append(one)
    static: dict[int, list[PrefixScores]] = defaultdict(list)
    for one in findings.controls.get("static", ()):
        static[one.segment.episode_index].append(one)
    verdicts = {one.episode_index: one for one in findings.verdicts}
    found = []
    for metrics in findings.metrics:
        episode = metrics.episode_index
        scores = sorted(parts[episode], key=lambda one: one.segment.start)
        still = sorted(static[episode], key=lambda one: one.segment.start)
        log_probs = _rounded(np.concatenate([s.log_prob_true for s in still])) if still else None
        found.append(
            EpisodeContent(
                episode=episode,
                task=metrics.task,
                frames=metrics.frames,
                keep=verdicts[episode].keep,
                reasons=verdicts[episode].reasons,
                success=findings.success.get(episode),
                metrics=_metrics(metrics, still),
                parts=[_part(one.segment) for one in scores],
                curve=curve(scores, findings.rewards.episode(episode), horizon=findings.horizon),
                prefixes=np.concatenate([_ends(one) for one in scores]),
                static=log_probs,
            )
        )
    return found


def curve(scores: Sequence[PrefixScores], reward: FrameRewards, *, horizon: int) -> Curve:
    """Take from the rewards of an episode the frames that determine all others.

    Rewards are interpolated between the ends of prefixes, and the advantage is a difference of
    them, so it bends there and a horizon earlier.

    Args:
        scores: the episode's segments in order.
        reward: the episode's.
        horizon: span of the advantage, frames.
    """
    knots: list[Int64[np.ndarray, " knots"]] = []
    for one in scores:
        last = one.segment.length - 1
        span = min(horizon, last)
        bends = np.concatenate([one.prefix_length - 1, [0, last]])
        bends = np.concatenate([bends, bends - span])
        knots.append(one.segment.start + np.unique(bends[bends >= 0]))
    frame = np.concatenate(knots).astype(np.int64)
    return Curve(
        frame=frame,
        log_prob=_rounded(reward.log_prob_true[frame]),
        progress=_rounded(reward.progress[frame]),
        advantage=_rounded(reward.advantage[frame]),
    )


def controls(findings: Findings) -> list[ControlContent]:
    """Say what each control that was scored says of the rewards."""
    found = []
    for name, scores in findings.controls.items():
        if not scores:
            continue
        summary = compare_controls(
            findings.scores, scores, scale=findings.scale, success=findings.success
        )
        found.append(
            ControlContent(
                name=name,
                sentence=verdict(summary),
                voc=summary.other.voc,
                share=summary.share,
                episodes=summary.episodes,
            )
        )
    return found


def success_auc(findings: Findings) -> float:
    """How well the success score tells successes from failures, 0..1; nan where undefined."""
    known = [one for one in findings.metrics if one.episode_index in findings.success]
    scores = np.array([one.success_score for one in known])
    truth = np.array([findings.success[one.episode_index] for one in known], dtype=bool)
    return roc_auc(scores, truth)


def unlabelled(
    labelled: Sequence[int], *, total: int, failed: Mapping[int, str]
) -> list[Unlabelled]:
    """List the episodes without rewards, with the reasons that the labelling gave."""
    rest = sorted(set(range(total)) - set(labelled))
    return [Unlabelled(episode, failed.get(episode)) for episode in rest]


def _metrics(metrics: EpisodeMetrics, static: Sequence[PrefixScores]) -> dict[str, float]:
    values = {
        item.name: round(float(getattr(metrics, item.name)), _DECIMALS)
        for item in fields(metrics)
        if item.type is float
    }
    if static:
        values["static_voc"] = round(
            mean_defined([voc(one.log_prob_true) for one in static]), _DECIMALS
        )
    return values


def _part(segment: Segment) -> Part:
    return Part(segment.start, segment.length, segment.instruction)


def _ends(scores: PrefixScores) -> Int64[np.ndarray, " prefixes"]:
    return scores.segment.start + scores.prefix_length - 1


def _rounded(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.round(np.asarray(values, dtype=np.float64), _DECIMALS)
