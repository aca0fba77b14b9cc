"""From raw scores and rewards to the metrics of each episode: pure arithmetic."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lerobot_topreward.judging.metrics import (
    TAIL,
    largest_regress,
    longest_stall,
    mean_defined,
    seconds_to,
    success_score,
    voc,
)
from lerobot_topreward.records import EpisodeMetrics, FrameRewards, PrefixScores


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number of an episode is called, and how tables and the report write it."""

    key: str  # the field of EpisodeMetrics
    label: str
    short: str  # as the heading of a column
    explanation: str
    worst: Literal["low", "high"]  # which end is the bad one
    unit: str = ""
    digits: int = 2
    undefined: str | None = None  # what an undefined value means; None: it only is undefined


# To add a metric: a field of EpisodeMetrics, its formula in `episode_metrics` below, and a line
# here. The tables and JSON of evaluate and the report's page follow, in this order.
METRICS = (
    Metric("voc", "VOC", "VOC",
           "value-order correlation; 1: always in the order of time", "low"),
    Metric("success_score", "Success score", "Success",
           "mean log P(True) of the last three prefixes; log P(success) of a reward model that "
           "gives it", "low", unit="nats"),
    Metric("final_progress", "Final progress", "Final",
           "mean progress of the last three prefixes", "low"),
    Metric("max_progress", "Highest progress", "Highest", "progress at its best moment", "low"),
    Metric("seconds_to_90", "Time to 0.9", "To 0.9",
           "when progress first reaches 0.9", "high", unit="s", digits=1, undefined="never"),
    Metric("negative_share", "Losing", "Losing",
           "share of frames with a negative advantage", "high"),
    Metric("longest_stall", "Longest stall", "Stall",
           "without any gain of progress", "high", unit="s", digits=1),
    Metric("regress", "Largest fall", "Fall",
           "of progress below an earlier maximum", "high"),
    Metric("log_odds", "Log-odds", "Log-odds",
           "log P(True) - log P(False) of the last prefix", "low", unit="nats"),
)  # fmt: skip


def episode_metrics(
    scores: Sequence[PrefixScores], rewards: FrameRewards, *, fps: float
) -> list[EpisodeMetrics]:
    """Compute the metrics of every labeled episode, in the order of their indices.

    Args:
        scores: every segment of every episode, control "none", in the order of time.
        rewards: of the same episodes, normalized per task.
        fps: the dataset's clock, Hz.

    Raises:
        ValueError: an episode has scores and no rewards, or the other way round.
    """
    segments: dict[int, list[PrefixScores]] = defaultdict(list)
    for part in scores:
        segments[part.segment.episode_index].append(part)
    if segments.keys() != set(rewards.episode_index[rewards.labelled].tolist()):
        raise ValueError("scores and rewards must be of the same episodes")
    metrics: list[EpisodeMetrics] = []
    for episode, parts in sorted(segments.items()):
        reward = rewards.episode(episode)
        success = np.concatenate([part.success for part in parts])
        ends = np.concatenate([part.segment.start + part.prefix_length - 1 for part in parts])
        tasks = dict.fromkeys(part.segment.instruction for part in parts)
        frames = len(reward.progress)
        metrics.append(
            EpisodeMetrics(
                episode_index=episode,
                task=" / ".join(tasks),
                frames=frames,
                seconds=frames / fps,
                voc=mean_defined([voc(part.log_prob_true) for part in parts]),
                success_score=success_score(success),
                final_progress=float(np.mean(reward.progress[ends[-TAIL:]])),
                max_progress=float(np.max(reward.progress)),
                seconds_to_90=seconds_to(reward.progress, fps=fps),
                negative_share=float(np.mean(reward.advantage < 0)),
                longest_stall=longest_stall(reward.progress, fps=fps),
                regress=largest_regress(reward.progress),
                log_odds=float(parts[-1].log_prob_true[-1] - parts[-1].log_prob_false[-1]),
            )
        )
    return metrics
