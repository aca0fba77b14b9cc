"""What the metrics of many episodes come to: per task, for the dataset, and against the truth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot_topreward.data.success import Success
from lerobot_topreward.evaluate.gvl_question import GvlResult
from lerobot_topreward.judging.intervals import Estimate, auc_estimate, mean_estimate
from lerobot_topreward.judging.metrics import mean_defined, success_score, voc
from lerobot_topreward.judging.thresholds import Threshold, suggest_threshold
from lerobot_topreward.records import EpisodeMetrics, PrefixScores
from lerobot_topreward.rewards import debias_static

EVERYTHING = "all tasks"


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """Means over the episodes of one task, or of the dataset."""

    name: str
    episodes: int
    voc: Estimate  # -1..1
    success_score: Estimate  # nats
    final_progress: Estimate  # 0..1
    max_progress: Estimate  # 0..1
    seconds_to_90: Estimate  # s; undefined for episodes that never reach 0.9
    negative_share: Estimate  # 0..1
    longest_stall: Estimate  # s
    regress: Estimate  # 0..1
    log_odds: Estimate  # nats


@dataclass(frozen=True, slots=True)
class SuccessSummary:
    """How well rewards tell the episodes that succeeded from those that failed."""

    origin: str  # where success is said
    successes: int
    failures: int
    unknown: int  # labelled episodes of which nothing is said
    auc: Estimate  # of the success score, 0..1; nan without both outcomes
    voc_successes: Estimate  # -1..1
    voc_failures: Estimate  # -1..1
    threshold: Threshold | None  # of the success score; None without two of each outcome


@dataclass(frozen=True, slots=True)
class DebiasSummary:
    """What ``label --debias static`` does, on the episodes whose static control was scored."""

    episodes: int
    voc: Estimate  # -1..1, of the curves as they are
    voc_debiased: Estimate  # -1..1
    auc: Estimate  # of their success scores, 0..1; nan without both outcomes
    auc_debiased: Estimate


def summarise_debias(
    real: Sequence[PrefixScores], static: Sequence[PrefixScores], success: Success | None
) -> DebiasSummary | None:
    """Compare curves before and after their static curves are subtracted.

    Args:
        real: every segment of the labelled episodes, control "none".
        static: the same under the control "static", of some of them.
        success: what is known.

    Returns:
        None where no episode has its static control.
    """
    parts: dict[int, list[int]] = defaultdict(list)
    known = {one.segment for one in static}
    shared = [one for one in real if one.segment in known]
    for position, one in enumerate(shared):
        parts[one.segment.episode_index].append(position)
    if not parts:
        return None
    before = [one.log_prob_true.astype(np.float64) for one in shared]
    after = debias_static(shared, static)
    truth = {} if success is None else success.by_episode
    order, auc = [], []
    for curves in (before, after):
        each = [[curves[i] for i in members] for members in parts.values()]
        order.append(mean_estimate([mean_defined([voc(one) for one in own]) for own in each]))
        scores = {
            episode: success_score(np.concatenate(own))
            for episode, own in zip(parts, each, strict=True)
            if episode in truth
        }
        outcome = np.array([truth[episode] for episode in scores], dtype=bool)
        auc.append(auc_estimate(np.array(list(scores.values())), outcome))
    return DebiasSummary(len(parts), *order, *auc)


@dataclass(frozen=True, slots=True)
class GvlSummary:
    """GVL beside the reward, on the episodes of which GVL's answer can be used."""

    segments: int  # asked about
    usable: int  # whose answer keeps to the format
    reasons: Mapping[str, int]  # rule -> how many answers break it
    voc: Estimate  # -1..1, of the percentages; undefined where they are all the same
    voc_reward: Estimate  # -1..1, of log P(True) of the same segments


def summarise_gvl(found: GvlResult, real: Sequence[PrefixScores]) -> GvlSummary:
    """Compare GVL's order with the reward's.

    Args:
        found: the answers, one per segment.
        real: every segment of the labelled episodes, control "none".
    """
    usable = [answer for answer in found.answers if answer.percentages is not None]
    curves = {one.segment: one.log_prob_true for one in real}
    return GvlSummary(
        segments=len(found.answers),
        usable=len(usable),
        reasons=found.reasons,
        voc=mean_estimate([answer.voc for answer in usable]),
        voc_reward=mean_estimate([voc(curves[answer.segment]) for answer in usable]),
    )


def summarise(episodes: Sequence[EpisodeMetrics]) -> list[GroupSummary]:
    """Average by task, the tasks in alphabetical order, and last over the whole dataset.

    Args:
        episodes: at least one episode.
    """
    tasks: dict[str, list[EpisodeMetrics]] = defaultdict(list)
    for one in episodes:
        tasks[one.task].append(one)
    groups = [_group(name, members) for name, members in sorted(tasks.items())]
    return [*groups, _group(EVERYTHING, episodes)]


def _group(name: str, episodes: Sequence[EpisodeMetrics]) -> GroupSummary:
    def mean(attribute: str) -> Estimate:
        return mean_estimate([getattr(one, attribute) for one in episodes])

    return GroupSummary(
        name=name,
        episodes=len(episodes),
        voc=mean("voc"),
        success_score=mean("success_score"),
        final_progress=mean("final_progress"),
        max_progress=mean("max_progress"),
        seconds_to_90=mean("seconds_to_90"),
        negative_share=mean("negative_share"),
        longest_stall=mean("longest_stall"),
        regress=mean("regress"),
        log_odds=mean("log_odds"),
    )


def summarise_success(episodes: Sequence[EpisodeMetrics], success: Success) -> SuccessSummary:
    """Compare success scores with what is known of success.

    Args:
        episodes: at least one episode.
        success: what is known; other episodes' truth is left alone.
    """
    known = [one for one in episodes if one.episode_index in success.by_episode]
    outcome = np.array([success.by_episode[one.episode_index] for one in known], dtype=bool)
    scores = np.array([one.success_score for one in known])
    voc = np.array([one.voc for one in known])
    return SuccessSummary(
        origin=success.origin,
        successes=int(outcome.sum()),
        failures=int((~outcome).sum()),
        unknown=len(episodes) - len(known),
        auc=auc_estimate(scores, outcome),
        voc_successes=mean_estimate(voc[outcome]),
        voc_failures=mean_estimate(voc[~outcome]),
        threshold=suggest_threshold(scores, outcome),
    )
