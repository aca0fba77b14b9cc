"""What a curation will do, decided before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.trim import find_spans
from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import NotLabeledError, UserError
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.decisions import Decisions, Note, check_decisions, read_decisions
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.judgment import Judgment, judge_labels
from lerobot_topreward.judging.kept_inspection import inspect_source
from lerobot_topreward.judging.rules import (
    RULES,
    CustomRule,
    Drops,
    RulesConfig,
    decide,
    find_drops,
)
from lerobot_topreward.judging.thresholds import Threshold, suggest_threshold
from lerobot_topreward.records import EpisodeMetrics, Verdict
from lerobot_topreward.scoring.control_scores import read_controls
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

    source: Source
    labels: LabelledDataset | None  # None: nobody has labeled it, the recording alone decides
    metrics: Sequence[EpisodeMetrics]  # of the labeled episodes
    judgment: Judgment | None  # of the reward; None without labels
    inspection: Inspection  # what the recording says
    rules: RulesConfig  # in force
    request: Mapping[str, Any]  # the rules as they were asked for, as JSON
    drops: Mapping[str, Drops]  # by rule, before manual decisions
    verdicts: Sequence[Verdict]  # of every episode, by index
    decisions: Mapping[int, bool]
    notes: Mapping[int, Note]  # of a person, about any episodes
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
    def reward_rules(self) -> list[str]:
        """The rules that drop an episode by the reward."""
        return [
            name for name, drops in self.drops.items() if drops and not RULES[name].of_recording
        ]

    @property
    def tasks(self) -> list[str]:
        """The task of every episode."""
        judged = {metrics.episode_index: metrics.task for metrics in self.metrics}
        rows = self.source.meta.episodes
        # LeRobot's conversion of images to videos leaves the column out.
        own = rows["tasks"].to_pylist() if "tasks" in rows.column_names else [[]] * len(rows)
        return [judged.get(episode, " / ".join(texts)) for episode, texts in enumerate(own)]

    def seconds(self, episode: int) -> float:
        """How long an episode is before it is trimmed."""
        rows = self.source.frames.rows(episode)
        return (rows.stop - rows.start) / self.source.meta.fps


def make_plan(config: CurateConfig, custom: Sequence[CustomRule] = ()) -> Plan:
    """Open a dataset and judge its episodes, by rules of your own beside the others.

    Raises:
        UserError: an option does not fit it, or needs labels that it does not have.
    """
    source, labels = _open(config)
    metrics: Sequence[EpisodeMetrics] = ()
    if labels is not None:
        metrics = episode_metrics(labels.scores, labels.rewards(), fps=labels.fps)
        if not metrics:
            raise UserError(f"the labels of {source.repo_id} are of none of its episodes")
    episodes = range(source.meta.total_episodes)
    judged = {episode.episode_index for episode in metrics}
    unlabelled = (
        [] if labels is None else [episode for episode in episodes if episode not in judged]
    )
    judgment = success = None
    if labels is not None:
        success = read_success(source, config.success_file)
        judgment = judge_labels(
            labels, controls=read_controls(labels), success=success, metrics=metrics
        )
    frames = source.frames  # fetches data/, which the inspection reads
    folder = None if labels is None else labels.labels
    inspection = inspect_source(source, labels=folder).inspection
    rules = config.rules.with_default(inspection, labeled=labels is not None)

    # Rules that compare episodes would drop some of those that they have kept before. So a dataset
    # remembers its curations, and the same request changes nothing the second time.
    file = None if config.rules.decisions is None else read_decisions(config.rules.decisions)
    request = _describe_request(config, rules, file, custom)
    trim = {"margin_s": config.trim_margin} if config.trim else None
    history = [] if labels is None else labels.provenance.get(CURATED, [])
    repeated = any(step["rules"] == request for step in history)
    trimmed_before = any(step["trim"] == trim for step in history)

    chosen = None
    drops: Mapping[str, Drops] = {}
    decisions: Mapping[int, bool] = {}
    notes: Mapping[int, Note] = {}
    if repeated:
        verdicts = [Verdict(episode, ()) for episode in episodes]
    else:
        if file is not None:
            check_decisions(file, source)
            decisions, notes = file.by_episode, file.notes
        if config.auto:
            chosen = _choose_threshold(source, metrics, success)
            rules = replace(config.rules, min_success=min(chosen.threshold.value, 0.0))
        drops = find_drops(metrics, rules, inspection)
        found = [*drops.values(), *(find(metrics) for find in custom)]
        # LeRobot can neither keep nor read an episode without frames.
        empty = {*episodes} - {*frames.episode_index.tolist()}
        gone = empty.union(decisions, *found)
        undecided = [episode for episode in unlabelled if episode not in gone]
        if undecided and config.unlabelled is None:
            more = ", ..." if len(undecided) > _LISTED else ""
            raise UserError(
                f"{len(undecided)} of {len(episodes)} episodes are not labeled, so no rule about "
                f"rewards can judge them ({', '.join(map(str, undecided[:_LISTED]))}{more}): "
                "`unlabelled=keep` or `unlabelled=drop` says what becomes of them"
            )
        if config.unlabelled == "drop":
            found.append(dict.fromkeys(unlabelled, "not labeled"))
        verdicts = [
            Verdict(verdict.episode_index, ("no frames",))
            if verdict.episode_index in empty
            else verdict
            for verdict in decide(episodes, found, decisions)
        ]

    spans: Mapping[int, range] = {}
    if config.trim and not trimmed_before:
        kept = [verdict.episode_index for verdict in verdicts if verdict.keep]
        margin = round(config.trim_margin * source.meta.fps)
        spans = find_spans(source, labels, kept, margin=margin)
    return Plan(
        source=source,
        labels=labels,
        metrics=metrics,
        judgment=judgment,
        inspection=inspection,
        rules=rules,
        request=request,
        drops=drops,
        verdicts=verdicts,
        decisions=decisions,
        notes=notes,
        unlabelled=unlabelled,
        chosen=chosen,
        repeated=repeated,
        trim=trim,
        spans=spans,
    )


def _open(config: CurateConfig) -> tuple[Source, LabelledDataset | None]:
    """Open a dataset, with its labels where it has some."""
    where = {"repo_id": config.repo_id, "root": config.root, "revision": config.revision}
    try:
        labels = open_labelled(**where, labels=config.labels)
    except NotLabeledError as error:
        needing = [name for name in config.rules.named if not RULES[name].of_recording]
        needing += ["auto"] if config.auto else []
        needing += ["success_file"] if config.success_file is not None else []
        if needing:
            raise UserError(f"`{needing[0]}` judges by labels. {error}") from None
        return open_source(**where), None
    return labels.source, labels


def _describe_request(
    config: CurateConfig,
    rules: RulesConfig,
    decisions: Decisions | None,
    custom: Sequence[CustomRule],
) -> dict[str, Any]:
    """What decides about episodes, as JSON: the same request gives the same verdicts."""
    limits: dict[str, float | str] = {**(config.rules if config.auto else rules).named}
    if config.auto:
        limits["min_success"] = "auto"
    elif not config.rules.named:  # it follows from the episodes, of which some go
        limits["max_idle"] = "default"
    if not rules.drop_broken:
        limits["drop_broken"] = 0.0
    manual = None
    if decisions is not None:
        keep, drop = (
            sorted(e for e, kept in decisions.by_episode.items() if kept is wanted)
            for wanted in (True, False)
        )
        manual = {"fingerprint": decisions.fingerprint, "keep": keep, "drop": drop}
    request = {
        "limits": limits,
        "decisions": manual,
        "unlabelled": config.unlabelled,
    }
    if custom:
        request["custom"] = [getattr(rule, "__qualname__", repr(rule)) for rule in custom]
    return plain(request)


def _choose_threshold(
    source: Source, metrics: Sequence[EpisodeMetrics], known: Success | None
) -> ChosenThreshold:
    if known is None:
        raise UserError(
            f"`auto` learns from which episodes succeeded, and {source.repo_id} does not "
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
