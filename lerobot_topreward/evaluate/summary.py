"""What the metrics of many episodes come to: per task, for the dataset, and against the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot_topreward.console import spell_options
from lerobot_topreward.data.success import Success
from lerobot_topreward.evaluate.gvl import GvlResult
from lerobot_topreward.judging.episode_metrics import METRICS
from lerobot_topreward.judging.intervals import Estimate, auc_estimate, mean_estimate
from lerobot_topreward.judging.metrics import voc
from lerobot_topreward.judging.rules import by_task
from lerobot_topreward.judging.thresholds import Threshold, suggest_threshold
from lerobot_topreward.records import EpisodeMetrics, PrefixScores

EVERYTHING = "all tasks"


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """Means over the episodes of one task, or of the dataset."""

    name: str
    episodes: int
    means: Mapping[str, Estimate]  # by the keys of METRICS, in their units


@dataclass(frozen=True, slots=True)
class SuccessSummary:
    """How well rewards tell the episodes that succeeded from those that failed."""

    origin: str  # where success is said
    successes: int
    failures: int
    unknown: int  # labeled episodes of which nothing is said
    auc: Estimate  # of the success score, 0..1; nan without both outcomes
    voc_successes: Estimate  # -1..1
    voc_failures: Estimate  # -1..1
    threshold: Threshold | None  # of the success score; None without two of each outcome


@dataclass(frozen=True, slots=True)
class GvlSummary:
    """GVL beside the reward, on the episodes of which GVL's answer can be used."""

    segments: int  # asked about
    usable: int  # whose answer keeps to the format
    reasons: Mapping[str, int]  # rule -> how many answers break it
    voc: Estimate  # -1..1, of the percentages; undefined where they are all the same
    voc_reward: Estimate  # -1..1, of log P(True) of the same segments


def summarize(episodes: Sequence[EpisodeMetrics]) -> list[GroupSummary]:
    """Average by task, in alphabetical order, and last over all episodes, which are at least one."""
    return [
        GroupSummary(
            name,
            len(members),
            {
                metric.key: mean_estimate([getattr(member, metric.key) for member in members])
                for metric in METRICS
            },
        )
        for name, members in [*sorted(by_task(episodes).items()), (EVERYTHING, episodes)]
    ]


def summarize_success(episodes: Sequence[EpisodeMetrics], success: Success) -> SuccessSummary:
    """Compare the success scores of episodes with what is known of their success."""
    known = [episode for episode in episodes if episode.episode_index in success.by_episode]
    outcome = np.array([success.by_episode[episode.episode_index] for episode in known], dtype=bool)
    scores = np.array([episode.success_score for episode in known])
    vocs = np.array([episode.voc for episode in known])
    return SuccessSummary(
        origin=spell_options(success.origin),
        successes=int(outcome.sum()),
        failures=int((~outcome).sum()),
        unknown=len(episodes) - len(known),
        auc=auc_estimate(scores, outcome),
        voc_successes=mean_estimate(vocs[outcome]),
        voc_failures=mean_estimate(vocs[~outcome]),
        threshold=suggest_threshold(scores, outcome),
    )


def summarize_gvl(found: GvlResult, real: Sequence[PrefixScores]) -> GvlSummary:
    """Compare GVL's order with that of the rewards, whose scores `real` are of every segment."""
    usable = [answer for answer in found.answers if answer.percentages is not None]
    curves = {scores.segment: scores.log_prob_true for scores in real}
    return GvlSummary(
        segments=len(found.answers),
        usable=len(usable),
        reasons=found.reasons,
        voc=mean_estimate([answer.voc for answer in usable]),
        voc_reward=mean_estimate([voc(curves[answer.segment]) for answer in usable]),
    )
