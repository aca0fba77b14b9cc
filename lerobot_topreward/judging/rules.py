"""Which episodes to drop, and why: every rule looks at one thing, and any of them may drop one.

To add a rule, write its function and add one field to `RulesConfig`. The field's name is the
command-line option, the preset's key and the key in ``curation.json``; the comment above it is the
option's help.
"""

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import EpisodeMetrics, Verdict

DEFAULT_FINAL_PROGRESS = 0.8
MANUAL = "decided by a person"
_MIN_EPISODES = 5  # of a task before one of them can be called an outlier

# Episode index -> why the rule drops it. Some rules compare the episodes of a task, so a rule is
# given all of them at once.
Drops = Mapping[int, str]
FindDrops = Callable[[Sequence[EpisodeMetrics], float], Drops]
CustomRule = Callable[[Sequence[EpisodeMetrics]], Drops]


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to drop episodes, with one number as its limit."""

    find: FindDrops
    words: str  # what is kept, for tables, cards and the report; {} stands for the limit
    low: float = -math.inf  # range of the limit
    high: float = math.inf
    allows_zero: bool = True

    def check(self, name: str, limit: float) -> None:
        """Refuse a limit that no episode, or every one, would break.

        Raises:
            UserError: names the option and the range.
        """
        option = f"`{name}`"
        if not self.low <= limit <= self.high:
            if math.isinf(self.low):
                bounds = f"at most {self.high:g}"
            elif math.isinf(self.high):
                bounds = f"at least {self.low:g}"
            else:
                bounds = f"in {self.low:g}..{self.high:g}"
            raise UserError(f"{option} must be {bounds}; got {limit}")
        if limit == 0 and not self.allows_zero:
            raise UserError(f"{option} must be more than 0; got 0, which drops everything")

    def describe(self, limit: float) -> str:
        """Say in words what the rule keeps."""
        return self.words.format(f"{limit:.3g}")


def _drop_if(metric: str, sign: str, name: str, *, unit: str = "") -> FindDrops:
    """Drop episodes of which a metric is below or above the limit; nan passes."""
    breaks = {"<": operator.lt, ">": operator.gt}[sign]

    def find(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
        values = {episode.episode_index: getattr(episode, metric) for episode in metrics}
        return {
            episode: f"{name} {_compare(value, sign, limit)}{unit}"
            for episode, value in values.items()
            if breaks(value, limit)
        }

    return find


def _compare(value: float, sign: str, limit: float) -> str:
    """Write both numbers with so many decimals that they differ."""
    pairs = [(f"{value:.{digits}f}", f"{limit:.{digits}f}") for digits in range(2, 9)]
    shown, bound = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"{shown} {sign} {bound}"


def _keep_top(metrics: Sequence[EpisodeMetrics], share: float) -> Drops:
    """Drop all but the best of each task; at least one stays, and those equal to the last kept."""
    drops = {}
    for members in by_task(metrics).values():
        scores = np.array([episode.success_score for episode in members])
        kept = max(1, math.ceil(share * len(members) - 1e-9))  # 0.3 * 10 is a little over 3
        lowest_kept = np.sort(scores)[-kept]
        for episode in members:
            if episode.success_score < lowest_kept:
                rank = 1 + int(np.sum(scores > episode.success_score))
                drops[episode.episode_index] = (
                    f"success score is number {rank} of {len(members)} in its task, "
                    f"the best {kept} are kept"
                )
    return drops


def _find_outliers(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what is much longer, shorter or less successful than the others of its task."""
    drops = {}
    for members in by_task(metrics).values():
        if len(members) < _MIN_EPISODES:
            continue
        lengths = robust_z(np.array([episode.seconds for episode in members]))
        scores = robust_z(np.array([episode.success_score for episode in members]))
        for episode, length, score in zip(members, lengths, scores, strict=True):
            if abs(length) > limit:
                reason = f"length {episode.seconds:.1f} s is an outlier, |z|"
                reason = f"{reason} {_compare(abs(length), '>', limit)}"
            elif -score > limit:
                reason = f"success score {episode.success_score:.2f} nats is an outlier, -z"
                reason = f"{reason} {_compare(-score, '>', limit)}"
            else:
                continue
            drops[episode.episode_index] = reason
    return drops


def robust_z(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Distance from the median in robust standard deviations; zeros when all values are equal.

    Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers: 0.6745 (x - median) / MAD, and
    where more than half of the values are the same, so that the MAD is 0, (x - median) / (1.2533
    times the mean absolute deviation).
    """
    away = values - np.median(values)
    spread = float(np.median(np.abs(away))) / 0.6745
    spread = spread or float(np.mean(np.abs(away))) * 1.2533
    return away / spread if spread else np.zeros(len(values))


def by_task(metrics: Sequence[EpisodeMetrics]) -> dict[str, list[EpisodeMetrics]]:
    """Group episodes by their task, in the order of its first episode."""
    tasks: dict[str, list[EpisodeMetrics]] = defaultdict(list)
    for episode in metrics:
        tasks[episode.task].append(episode)
    return dict(tasks)


def rule(find: FindDrops, words: str, **limits: Any) -> Any:
    """Declare a rule as a field of `RulesConfig`; `limits` are the other fields of `Rule`."""
    return field(default=None, metadata={"rule": Rule(find, words, **limits)})


@dataclass(frozen=True, kw_only=True)
class RulesConfig:
    """The rules by which episodes are dropped; an unset one is not used.

    An episode that breaks any of them is dropped; one that equals a limit is kept. Progress is scaled over all episodes of a task.
    """

    # 0..1; 0.8 is the rule when none is named
    min_final_progress: float | None = rule(
        _drop_if("final_progress", "<", "final progress"),
        "final progress at least {}",
        low=0,
        high=1,
    )
    # success score: mean log P(True) at the end, nats, <= 0
    min_success: float | None = rule(
        _drop_if("success_score", "<", "success score", unit=" nats"),
        "success score at least {} nats",
        high=0,
    )
    # rank correlation of reward and time, -1..1; undefined passes
    min_voc: float | None = rule(_drop_if("voc", "<", "VOC"), "VOC at least {}", low=-1, high=1)
    # share of each task's episodes, by success score, 0..1
    keep_top: float | None = rule(
        _keep_top, "the best {} of each task by success score", low=0, high=1, allows_zero=False
    )
    # longest time without progress, seconds
    max_stall: float | None = rule(
        _drop_if("longest_stall", ">", "stall", unit=" s"), "no stall longer than {} s", low=0
    )
    # largest loss of progress, 0..1
    max_regress: float | None = rule(
        _drop_if("regress", ">", "regress"), "no fall of progress of more than {}", low=0, high=1
    )
    # robust z of length or success score in the task, as 3.5; not for tasks of under 5 episodes
    outliers: float | None = rule(
        _find_outliers, "no outliers with a robust z beyond {}", low=0, allows_zero=False
    )
    decisions: Path | None = None  # JSON from the report: manual decisions, which override rules

    def __post_init__(self) -> None:
        """Check the limits that are set."""
        for name, limit in self.named.items():
            RULES[name].check(name, limit)

    @property
    def named(self) -> dict[str, float]:
        """The limits that are set, by the name of their rule."""
        limits = {name: getattr(self, name) for name in RULES}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def with_default(self) -> "RulesConfig":
        """These rules, or the default one where none is named."""
        return self if self.named else replace(self, min_final_progress=DEFAULT_FINAL_PROGRESS)


RULES: Mapping[str, Rule] = {
    item.name: item.metadata["rule"] for item in fields(RulesConfig) if "rule" in item.metadata
}


def judge(
    metrics: Sequence[EpisodeMetrics],
    rules: RulesConfig,
    *,
    custom: Sequence[CustomRule] = (),
    decisions: Mapping[int, bool] | None = None,
) -> list[Verdict]:
    """Say of every episode whether it is kept.

    Args:
        metrics: of all labeled episodes, since some rules compare those of a task.
        rules: limits; the default rule where none is named. Its file of decisions is not read.
        custom: rules of your own, applied beside the others.
        decisions: manual ones by episode, True to keep it; they override the rules.

    Returns:
        One verdict per episode, in the order of `metrics`.
    """
    drops = [*find_drops(metrics, rules).values(), *(find(metrics) for find in custom)]
    verdicts = []
    for episode in (each.episode_index for each in metrics):
        reasons = tuple(found[episode] for found in drops if episode in found)
        if decisions is not None and episode in decisions:
            reasons = () if decisions[episode] else (MANUAL,)
        verdicts.append(Verdict(episode, reasons))
    return verdicts


def find_drops(metrics: Sequence[EpisodeMetrics], rules: RulesConfig) -> dict[str, Drops]:
    """Apply every rule by itself, before manual decisions: what each drops, by its name."""
    limits = rules.with_default().named
    return {name: RULES[name].find(metrics, limit) for name, limit in limits.items()}
