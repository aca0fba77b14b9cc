"""What a curation will do, decided before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.idle import Span, moving_spans
from lerobot_topreward.data.dataset import episode_rows
from lerobot_topreward.data.success import read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.decisions import Decisions, check_decisions, read_decisions
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.rules import PERSON, Drops, RulesConfig, broken_rules, judge
from lerobot_topreward.judging.thresholds import Threshold, suggest_threshold
from lerobot_topreward.records import EpisodeMetrics, Verdict
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled

_LISTED = 8  # episodes named in an error
CURATED = "curated"  # in the provenance of a sidecar: what was done to the dataset, step by step


@dataclass(frozen=True, slots=True)
class PickedThreshold:
    """A least success score that was chosen by what is known about success."""

    threshold: Threshold
    origin: str  # where success is known from
    episodes: int  # of which it is known


@dataclass(frozen=True, slots=True)
class Plan:
    """Every episode's verdict, and what led to it."""

    dataset: LabelledDataset
    metrics: Sequence[EpisodeMetrics]  # of the labelled episodes
    rules: RulesConfig  # in force
    asked: Mapping[str, Any]  # the rules as they were asked for, as JSON: the same, the same result
    drops: Mapping[str, Drops]  # by rule, whatever a person decided
    verdicts: Sequence[Verdict]  # of every episode, by index
    decisions: Mapping[int, bool]
    unlabelled: Sequence[int]
    picked: PickedThreshold | None
    again: bool  # the dataset was made by these very rules: every episode stays
    trim: Mapping[str, Any] | None  # how episodes are trimmed, as JSON
    spans: Mapping[int, Span]  # of kept episodes that become shorter

    @property
    def kept(self) -> list[int]:
        """Episodes that stay."""
        return [verdict.episode_index for verdict in self.verdicts if verdict.keep]

    @property
    def dropped(self) -> list[Verdict]:
        """Verdicts of the episodes that go."""
        return [verdict for verdict in self.verdicts if not verdict.keep]

    @property
    def tasks(self) -> list[str]:
        """The task of every episode."""
        named = {one.episode_index: one.task for one in self.metrics}
        rows = episode_rows(self.dataset.source.meta)
        # LeRobot's conversion of images to videos leaves the column out.
        own = rows["tasks"] if "tasks" in rows.column_names else [[]] * len(rows)
        return [named.get(episode, " / ".join(texts)) for episode, texts in enumerate(own)]

    def seconds(self, episode: int) -> float:
        """How long an episode is before it is trimmed."""
        rows = self.dataset.source.frames.rows(episode)
        return (rows.stop - rows.start) / self.dataset.fps


def make_plan(config: CurateConfig) -> Plan:
    """Open a labelled dataset and judge its episodes.

    Raises:
        UserError: it is not labelled, or an option does not fit it.
    """
    dataset = open_labelled(
        repo_id=config.repo_id, root=config.root, revision=config.revision, labels=config.labels
    )
    metrics = episode_metrics(dataset.scores, dataset.rewards(), fps=dataset.fps)
    if not metrics:
        raise UserError(f"the labels of {dataset.source.repo_id} are of none of its episodes")
    history = dataset.provenance.get(CURATED, [])
    decisions = None if config.rules.decisions is None else read_decisions(config.rules.decisions)
    asked = _asked(config, decisions)
    again = any(step["rules"] == asked for step in history)
    picked, rules = None, config.rules
    if not again:
        if decisions is not None:
            check_decisions(decisions, dataset)
        if config.auto:
            picked = _pick_threshold(dataset, metrics, config)
            rules = replace(rules, min_success=min(picked.threshold.value, 0.0))
    said = {} if decisions is None or again else decisions.by_episode
    rules = rules.in_force()
    labelled = {one.episode_index for one in metrics}
    plan = Plan(
        dataset=dataset,
        metrics=metrics,
        rules=rules,
        asked=asked,
        drops={} if again else broken_rules(metrics, rules),
        verdicts=[],
        decisions=said,
        unlabelled=[e for e in range(dataset.source.meta.total_episodes) if e not in labelled],
        picked=picked,
        again=again,
        trim={"margin_s": config.trim_margin} if config.trim else None,
        spans={},
    )
    plan = replace(plan, verdicts=_verdicts(plan, unlabelled=config.unlabelled))
    if plan.trim is not None and not any(step["trim"] == plan.trim for step in history):
        plan = replace(plan, spans=_spans(plan, margin=config.trim_margin))
    return plan


def _asked(config: CurateConfig, decisions: Decisions | None) -> dict[str, Any]:
    rules = config.rules
    limits: dict[str, float | str] = {**rules.named}
    if config.auto:
        limits["min_success"] = "auto"
    return plain(
        {
            "limits": limits or rules.in_force().named,
            "decisions": None
            if decisions is None
            else {
                "fingerprint": decisions.fingerprint,
                "keep": sorted(e for e, keep in decisions.by_episode.items() if keep),
                "drop": sorted(e for e, keep in decisions.by_episode.items() if not keep),
            },
            "unlabelled": config.unlabelled,
        }
    )


def _pick_threshold(
    dataset: LabelledDataset, metrics: Sequence[EpisodeMetrics], config: CurateConfig
) -> PickedThreshold:
    known = read_success(dataset.source, config.success_file)
    if known is None:
        raise UserError(
            f"--auto learns from which episodes succeeded, and {dataset.source.repo_id} does not "
            "say. Say it in a CSV episode_index,success with --success-file, or name a rule instead"
        )
    judged = [one for one in metrics if one.episode_index in known.by_episode]
    success = np.array([known.by_episode[one.episode_index] for one in judged], dtype=bool)
    scores = np.array([one.success_score for one in judged])
    threshold = suggest_threshold(scores, success)
    if threshold is None:
        raise UserError(
            f"--auto needs two successes and two failures to learn from; {known.origin} has "
            f"{int(success.sum())} and {int((~success).sum())} among the labelled episodes. "
            "Name a rule instead"
        )
    return PickedThreshold(threshold, known.origin, len(judged))


def _verdicts(plan: Plan, *, unlabelled: str | None) -> list[Verdict]:
    total = plan.dataset.source.meta.total_episodes
    if plan.again:
        return [Verdict(episode, ()) for episode in range(total)]
    found = {
        verdict.episode_index: verdict
        for verdict in judge(plan.metrics, plan.rules, decisions=plan.decisions)
    }
    unjudged = [e for e in plan.unlabelled if e not in plan.decisions and plan.seconds(e) > 0]
    if unjudged and unlabelled is None:
        more = ", ..." if len(unjudged) > _LISTED else ""
        raise UserError(
            f"{len(unjudged)} of {total} episodes are not labelled, so no rule can judge them "
            f"({', '.join(map(str, unjudged[:_LISTED]))}{more}): --unlabelled keep or "
            "--unlabelled drop says what becomes of them"
        )
    for episode in plan.unlabelled:
        reasons = ("not labelled",) if unlabelled == "drop" else ()
        if episode in plan.decisions:
            reasons = () if plan.decisions[episode] else (PERSON,)
        if plan.seconds(episode) == 0:
            reasons = ("no frames",)  # LeRobot can neither keep nor read such an episode
        found[episode] = Verdict(episode, reasons)
    return [found[episode] for episode in range(total)]


def _spans(plan: Plan, *, margin: float) -> dict[int, Span]:
    dataset = plan.dataset
    found = moving_spans(dataset, plan.kept, margin=round(margin * dataset.fps))
    lengths = np.bincount(dataset.source.frames.episode_index)
    return {episode: span for episode, span in found.items() if span.length < lengths[episode]}
