"""What a curation will do, decided before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.trim import find_spans
from lerobot_topreward.data.dataset import episode_rows
from lerobot_topreward.data.success import read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.decisions import Decisions, check_decisions, read_decisions
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.rules import (
    MANUAL,
    CustomRule,
    Drops,
    RulesConfig,
    find_drops,
    judge,
)
from lerobot_topreward.judging.thresholds import Threshold, suggest_threshold
from lerobot_topreward.records import EpisodeMetrics, Verdict
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled

_LISTED = 8  # episodes named in an error
CURATED = "curated"  # in the provenance of a sidecar: every curation so far, oldest first


@dataclass(frozen=True, slots=True)
class ChosenThreshold:
    """A least success score that `auto` chose."""

    threshold: Threshold
    origin: str  # where success is known from
    episodes: int  # of which it is known


@dataclass(frozen=True, slots=True)
class Plan:
    """Every episode's verdict, and what led to it."""

    dataset: LabelledDataset
    metrics: Sequence[EpisodeMetrics]  # of the labeled episodes
    rules: RulesConfig  # in force
    request: Mapping[str, Any]  # the rules as they were asked for, as JSON
    drops: Mapping[str, Drops]  # by rule, before manual decisions
    verdicts: Sequence[Verdict]  # of every episode, by index
    decisions: Mapping[int, bool]
    unlabelled: Sequence[int]
    chosen: ChosenThreshold | None
    repeated: bool  # the dataset was made by these very rules: every episode stays
    trim: Mapping[str, Any] | None  # how episodes are trimmed, as JSON
    spans: Mapping[int, range]  # frames that stay, of the kept episodes that become shorter

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
        judged = {metrics.episode_index: metrics.task for metrics in self.metrics}
        rows = episode_rows(self.dataset.source.meta)
        # LeRobot's conversion of images to videos leaves the column out.
        own = rows["tasks"] if "tasks" in rows.column_names else [[]] * len(rows)
        return [judged.get(episode, " / ".join(texts)) for episode, texts in enumerate(own)]

    def seconds(self, episode: int) -> float:
        """How long an episode is before it is trimmed."""
        rows = self.dataset.source.frames.rows(episode)
        return (rows.stop - rows.start) / self.dataset.fps


def make_plan(config: CurateConfig, custom: Sequence[CustomRule] = ()) -> Plan:
    """Open a labeled dataset and judge its episodes, by rules of your own beside the others.

    Raises:
        UserError: it is not labeled, or an option does not fit it.
    """
    dataset = open_labelled(
        repo_id=config.repo_id, root=config.root, revision=config.revision, labels=config.labels
    )
    metrics = episode_metrics(dataset.scores, dataset.rewards(), fps=dataset.fps)
    if not metrics:
        raise UserError(f"the labels of {dataset.source.repo_id} are of none of its episodes")
    episodes = range(dataset.source.meta.total_episodes)
    unlabelled = sorted({*episodes} - {judged.episode_index for judged in metrics})

    # Rules that compare episodes would drop some of those that they have kept before. So a dataset
    # remembers its curations, and the same request changes nothing the second time.
    file = None if config.rules.decisions is None else read_decisions(config.rules.decisions)
    request = _describe_request(config, file, custom)
    trim = {"margin_s": config.trim_margin} if config.trim else None
    history = dataset.provenance.get(CURATED, [])
    repeated = any(step["rules"] == request for step in history)
    trimmed_before = any(step["trim"] == trim for step in history)

    rules, chosen = config.rules, None
    drops: Mapping[str, Drops] = {}
    decisions: Mapping[int, bool] = {}
    if repeated:
        rules = rules.with_default()
        verdicts = [Verdict(episode, ()) for episode in episodes]
    else:
        if file is not None:
            check_decisions(file, dataset)
            decisions = file.by_episode
        if config.auto:
            chosen = _choose_threshold(dataset, metrics, config)
            rules = replace(rules, min_success=min(chosen.threshold.value, 0.0))
        rules = rules.with_default()
        drops = find_drops(metrics, rules)
        judged = {
            verdict.episode_index: verdict
            for verdict in judge(metrics, rules, custom=custom, decisions=decisions)
        } | _judge_unlabeled(dataset, unlabelled, decisions, choice=config.unlabelled)
        verdicts = [judged[episode] for episode in episodes]

    spans: Mapping[int, range] = {}
    if config.trim and not trimmed_before:
        kept = [verdict.episode_index for verdict in verdicts if verdict.keep]
        spans = find_spans(dataset, kept, margin=round(config.trim_margin * dataset.fps))
    return Plan(
        dataset=dataset,
        metrics=metrics,
        rules=rules,
        request=request,
        drops=drops,
        verdicts=verdicts,
        decisions=decisions,
        unlabelled=unlabelled,
        chosen=chosen,
        repeated=repeated,
        trim=trim,
        spans=spans,
    )


def _describe_request(
    config: CurateConfig, decisions: Decisions | None, custom: Sequence[CustomRule]
) -> dict[str, Any]:
    """What decides about episodes, as JSON: the same request gives the same verdicts."""
    limits: dict[str, float | str] = {**config.rules.named}
    if config.auto:
        limits["min_success"] = "auto"
    manual = None
    if decisions is not None:
        keep, drop = (
            sorted(e for e, kept in decisions.by_episode.items() if kept is wanted)
            for wanted in (True, False)
        )
        manual = {"fingerprint": decisions.fingerprint, "keep": keep, "drop": drop}
    request = {
        "limits": limits or config.rules.with_default().named,
        "decisions": manual,
        "unlabelled": config.unlabelled,
    }
    if custom:
        request["custom"] = [getattr(rule, "__qualname__", repr(rule)) for rule in custom]
    return plain(request)


def _choose_threshold(
    dataset: LabelledDataset, metrics: Sequence[EpisodeMetrics], config: CurateConfig
) -> ChosenThreshold:
    known = read_success(dataset.source, config.success_file)
    if known is None:
        raise UserError(
            f"`auto` learns from which episodes succeeded, and {dataset.source.repo_id} does not "
            "say. Say it in a CSV episode_index,success with `success_file`, or name a rule instead"
        )
    pairs = [
        (episode.success_score, known.by_episode[episode.episode_index])
        for episode in metrics
        if episode.episode_index in known.by_episode
    ]
    scores = np.array([score for score, _ in pairs])
    success = np.array([succeeded for _, succeeded in pairs], dtype=bool)
    threshold = suggest_threshold(scores, success)
    if threshold is None:
        raise UserError(
            f"`auto` needs two successes and two failures to learn from; {known.origin} has "
            f"{int(success.sum())} and {int((~success).sum())} among the labeled episodes. "
            "Name a rule instead"
        )
    return ChosenThreshold(threshold, known.origin, len(pairs))


def _judge_unlabeled(
    dataset: LabelledDataset,
    unlabelled: Sequence[int],
    decisions: Mapping[int, bool],
    *,
    choice: str | None,
) -> dict[int, Verdict]:
    """Decide about the episodes that no rule can judge."""
    # LeRobot can neither keep nor read an episode without frames.
    empty = {*unlabelled} - {*dataset.source.frames.episode_index.tolist()}
    undecided = [e for e in unlabelled if e not in decisions and e not in empty]
    if undecided and choice is None:
        more = ", ..." if len(undecided) > _LISTED else ""
        raise UserError(
            f"{len(undecided)} of {dataset.source.meta.total_episodes} episodes are not labeled, "
            f"so no rule can judge them ({', '.join(map(str, undecided[:_LISTED]))}{more}): "
            "`unlabelled=keep` or `unlabelled=drop` says what becomes of them"
        )
    verdicts = {}
    for episode in unlabelled:
        if episode in empty:
            reasons = ("no frames",)
        elif episode in decisions:
            reasons = () if decisions[episode] else (MANUAL,)
        else:
            reasons = ("not labeled",) if choice == "drop" else ()
        verdicts[episode] = Verdict(episode, reasons)
    return verdicts
