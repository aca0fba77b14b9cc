"""What the page says: scores and verdicts become the data of the page, without any I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64

from lerobot_topreward.console import spell_options
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.coverage import describe_coverage
from lerobot_topreward.judging.episode_metrics import METRICS, Metric
from lerobot_topreward.judging.findings import LEVELS, count_levels
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.metrics import mean_defined, voc
from lerobot_topreward.judging.rules import Drops
from lerobot_topreward.records import (
    EpisodeMetrics,
    Finding,
    FrameRewards,
    PrefixScores,
    Segment,
)
from lerobot_topreward.report.others import OtherCurve

_DECIMALS = 4  # a tenth of a millinat: less than a pixel at any zoom
LENGTH = Metric("seconds", "Length", "Length", "of the episode", "high", unit="s", digits=1)
STATIC_VOC = Metric(
    "static_voc", "Static VOC", "Static", "VOC of the first frame repeated: time alone", "high"
)

WEIGHT = Metric(
    "weight", "Weight in training", "Weight", "mean of its frames; 1: the average frame", "low",
    undefined="none",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    """The rewards of an episode at the frames where they bend; straight lines in between."""

    frame: Int64[np.ndarray, " knots"]  # of the episode, ascending
    log_prob: Float[np.ndarray, " knots"]  # nats
    progress: Float[np.ndarray, " knots"]  # 0..1
    advantage: Float[np.ndarray, " knots"]  # -1..1


@dataclass(frozen=True, slots=True)
class EpisodeContent:
    """Everything that the page says of one episode but for its pictures."""

    index: int
    task: str
    frames: int
    drops: Mapping[str, str]  # rule that drops it -> why; marks override them
    success: bool | None  # what truly happened, where known
    metrics: Mapping[str, float]  # by the keys of the page's metrics, exact: limits are moved over
    parts: Sequence[Segment]
    curve: Curve
    prefixes: Int64[np.ndarray, " prefixes"]  # last frame of each scored prefix
    static: Float[np.ndarray, " prefixes"] | None  # nats, log-prob of the first frame repeated
    findings: Sequence[Finding] = ()  # what its recording says against itself, the worst first
    others: Sequence[OtherCurve] = ()  # of other judges


@dataclass(frozen=True, slots=True)
class StartContent:
    """Where the episodes of a task start, in the signals in which their starts differ most."""

    task: str
    sentence: str  # without its subject, the task
    names: Sequence[str]  # of one or two signals
    episodes: Sequence[int]
    starts: Float[np.ndarray, "episodes signals"]  # 0..1 over the range of a signal


@dataclass(frozen=True, slots=True)
class RecordingContent:
    """What the recording says of the dataset; findings of episodes are with these."""

    reason: str | None  # why it could not be inspected
    counts: Mapping[str, int]  # findings by level, all episodes together
    findings: Sequence[Finding]  # of the dataset as a whole
    starts: Sequence[StartContent]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of the labeled episodes of a dataset."""

    scores: Sequence[PrefixScores]  # control "none", an episode's segments in the order of time
    rewards: FrameRewards  # of the same episodes, normalized per task
    metrics: Sequence[EpisodeMetrics]  # of the same episodes
    drops: Mapping[str, Drops]  # by rule, before manual decisions
    success: Mapping[int, bool]
    controls: Mapping[str, Sequence[PrefixScores]]  # scores of each control that there is
    horizon: int  # of the advantage, frames
    recording: Inspection | UserError  # what it says of itself, or why it cannot be inspected
    others: Mapping[int, Sequence[OtherCurve]] = field(default_factory=dict)  # of other judges
    weights: Mapping[int, float] | None = None  # in training, of each episode; 1: the average frame


def page_metrics(findings: Findings) -> list[Metric]:
    """Describe the numbers that the page shows of each episode, in their order."""
    shown = [*METRICS, LENGTH]
    if findings.controls.get("static"):
        shown.insert(1 + [metric.key for metric in METRICS].index("voc"), STATIC_VOC)
    if findings.weights is not None:
        shown.append(WEIGHT)
    return shown


def episode_contents(findings: Findings) -> list[EpisodeContent]:
    """Describe every labeled episode, in the order of their indices."""
    parts = _by_episode(findings.scores)
    static_parts = _by_episode(findings.controls.get("static", ()))
    recorded: dict[int | None, list[Finding]] = {}
    if isinstance(findings.recording, Inspection):
        for found in _worst_first(findings.recording.findings):
            recorded.setdefault(found.episode_index, []).append(found)
    contents = []
    for metrics in findings.metrics:
        episode = metrics.episode_index
        scores, static = parts[episode], static_parts.get(episode)
        values = {metric.key: float(getattr(metrics, metric.key)) for metric in (*METRICS, LENGTH)}
        if static:
            static_vocs = [voc(part.log_prob_true) for part in static]
            values[STATIC_VOC.key] = round(mean_defined(static_vocs), _DECIMALS)
        if findings.weights is not None:
            values[WEIGHT.key] = findings.weights[episode]
        contents.append(
            EpisodeContent(
                index=episode,
                task=metrics.task,
                frames=metrics.frames,
                drops={
                    name: found[episode]
                    for name, found in findings.drops.items()
                    if episode in found
                },
                success=findings.success.get(episode),
                metrics=values,
                parts=[part.segment for part in scores],
                curve=curve(scores, findings.rewards.episode(episode), horizon=findings.horizon),
                prefixes=np.concatenate(
                    [part.segment.start + part.prefix_length - 1 for part in scores]
                ),
                static=_round(np.concatenate([part.log_prob_true for part in static]))
                if static
                else None,
                findings=recorded.get(episode, ()),
                others=findings.others.get(episode, ()),
            )
        )
    return contents


def curve(scores: Sequence[PrefixScores], reward: FrameRewards, *, horizon: int) -> Curve:
    """Take from the rewards of an episode the frames that determine all others.

    Rewards are interpolated between the ends of prefixes, and the advantage is a difference of
    them, so it bends there and a horizon (frames) earlier.
    """
    knots = []
    for part in scores:
        last = part.segment.length - 1
        bends = np.concatenate([part.prefix_length - 1, [0, last]])
        bends = np.concatenate([bends, bends - min(horizon, last)])
        knots.append(part.segment.start + np.unique(bends[bends >= 0]))
    frame = np.concatenate(knots).astype(np.int64)
    return Curve(
        frame=frame,
        log_prob=_round(reward.log_prob_true[frame]),
        progress=_round(reward.progress[frame]),
        advantage=_round(reward.advantage[frame]),
    )


def recording_content(found: Inspection | UserError) -> RecordingContent:
    """Say what the recording says of the dataset as a whole."""
    if isinstance(found, UserError):
        return RecordingContent(spell_options(str(found)), {}, (), ())
    whole = [finding for finding in found.findings if finding.episode_index is None]
    return RecordingContent(
        reason=None,
        counts=count_levels(found.findings),
        # Each note on coverage stands under its picture.
        findings=_worst_first(finding for finding in whole if finding.defect != "coverage"),
        starts=[
            StartContent(
                task=coverage.task,
                sentence=describe_coverage(coverage),
                names=[name.removeprefix("observation.") for name in coverage.names],
                episodes=coverage.episodes,
                starts=np.round(coverage.starts, _DECIMALS),
            )
            for coverage in found.coverage
        ],
    )


def _worst_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _by_episode(scores: Sequence[PrefixScores]) -> dict[int, list[PrefixScores]]:
    episodes: dict[int, list[PrefixScores]] = {}
    for part in sorted(scores, key=lambda part: part.segment.start):
        episodes.setdefault(part.segment.episode_index, []).append(part)
    return episodes


def _round(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.round(np.asarray(values, dtype=np.float64), _DECIMALS)
