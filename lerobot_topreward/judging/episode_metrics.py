"""From raw scores and rewards to the metrics of each episode: pure arithmetic."""

from collections import defaultdict
from collections.abc import Sequence

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


def episode_metrics(
    scores: Sequence[PrefixScores], rewards: FrameRewards, *, fps: float
) -> list[EpisodeMetrics]:
    """Compute the metrics of every labelled episode.

    Args:
        scores: every segment of every episode, control "none", in the order of time.
        rewards: of the same episodes, normalized per task.
        fps: the dataset's clock, Hz.

    Returns:
        One record per episode, in the order of their indices.

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
        log_prob = np.concatenate([part.log_prob_true for part in parts])
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
                success_score=success_score(log_prob),
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
