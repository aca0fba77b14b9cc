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
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.inspection import Inspection, group_by_task
from lerobot_topreward.judging.motion import task_z
from lerobot_topreward.judging.profile import LEAST_EPISODES
from lerobot_topreward.records import EpisodeMetrics, Verdict

DEFAULT_FINAL_PROGRESS = 0.8
# Share of an episode. Of the simulated ones in docs/recording.md, good ones stand still for .13 of
# their length at most, and those that stopped before they were done for .28 at least.
DEFAULT_IDLE = 0.25
MANUAL = "decided by a person"
_MIN_EPISODES = 5  # of a task before one of them can be called an outlier

# Episode index -> why the rule drops it. Some rules compare the episodes of a task, so a rule is
# given all of them at once: their metrics, or what their recording says.
Drops = Mapping[int, str]
FindDrops = Callable[[Sequence[EpisodeMetrics], float], Drops]
FindRecordedDrops = Callable[[Inspection, float], Drops]
CustomRule = Callable[[Sequence[EpisodeMetrics]], Drops]


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to drop episodes, with one number as its limit."""

    find: FindDrops | FindRecordedDrops
    words: str  # what is kept, for tables, cards and the report; {} stands for the limit
    low: float = -math.inf  # range of the limit
    high: float = math.inf
    allows_zero: bool = True
    of_recording: bool = False  # `find` is given the inspection: no labels are needed

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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Drop episodes of which a metric is below or above the limit; nan passes."""

    metric: str  # the field of EpisodeMetrics
    sign: Literal["<", ">"]  # of what is dropped
    name: str  # of the metric, in reasons
    unit: str = ""

    def __call__(self, metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
        """Find what the limit drops, with the reason."""
        breaks = {"<": operator.lt, ">": operator.gt}[self.sign]
        values = {episode.episode_index: getattr(episode, self.metric) for episode in metrics}
        return {
            episode: f"{self.name} {_compare(value, self.sign, limit)}{self.unit}"
            for episode, value in values.items()
            if breaks(value, limit)
        }


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


def _find_broken(inspection: Inspection, _: float) -> Drops:
    """Drop the episodes on which training would be wrong."""
    return inspection.describe_broken()


def _find_idle(inspection: Inspection, limit: float) -> Drops:
    """Drop the episodes in which the arm stands still for too long."""
    return {
        episode: f"longest idle run {_compare(motion.longest_idle, '>', limit)} of the episode"
        for episode, motion in inspection.motions.items()
        if motion.longest_idle > limit
    }


def _choose_idle(inspection: Inspection | None) -> float | None:
    """The default limit, or twice the median where standing still is usual: some robots wait."""
    if inspection is None:
        return None
    shares = [motion.longest_idle for motion in inspection.motions.values()]
    return min(1.0, max(DEFAULT_IDLE, 2 * float(np.median(shares)) if shares else 0.0))


def _find_jerky(inspection: Inspection, limit: float) -> Drops:
    """Drop the episodes that move less smoothly than the others of their task."""
    drops: dict[int, str] = {}
    for members in group_by_task(inspection.motions).values():
        if len(members) < LEAST_EPISODES:
            continue
        jerk = [motion.jerk for motion in members]
        for motion, z in zip(members, task_z(jerk).tolist(), strict=True):
            if z > limit:
                drops[motion.episode_index] = (
                    f"log dimensionless jerk {motion.jerk:.2f}, z {_compare(z, '>', limit)}"
                )
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


def rule(
    find: FindDrops | FindRecordedDrops, words: str, *, default: bool | None = None, **limits: Any
) -> Any:
    """Declare a rule as a field of `RulesConfig`; `limits` are the other fields of `Rule`."""
    return field(default=default, metadata={"rule": Rule(find, words, **limits)})


@dataclass(frozen=True, kw_only=True)
class RulesConfig:
    """The rules by which episodes are dropped; an unset one is not used.

    An episode that breaks any of them is dropped; one that equals a limit is kept. Progress is scaled over all episodes of a task.
    """

    # 0..1; 0.8 is the rule when none is named
    min_final_progress: float | None = rule(
        Comparison("final_progress", "<", "final progress"),
        "final progress at least {}",
        low=0,
        high=1,
    )
    # success score: mean log P(True) at the end, nats, <= 0
    min_success: float | None = rule(
        Comparison("success_score", "<", "success score", " nats"),
        "success score at least {} nats",
        high=0,
    )
    # rank correlation of reward and time, -1..1; undefined passes
    min_voc: float | None = rule(Comparison("voc", "<", "VOC"), "VOC at least {}", low=-1, high=1)
    # share of each task's episodes, by success score, 0..1
    keep_top: float | None = rule(
        _keep_top, "the best {} of each task by success score", low=0, high=1, allows_zero=False
    )
    # longest time without progress, seconds
    max_stall: float | None = rule(
        Comparison("longest_stall", ">", "stall", " s"), "no stall longer than {} s", low=0
    )
    # largest loss of progress, 0..1
    max_regress: float | None = rule(
        Comparison("regress", ">", "regress"), "no fall of progress of more than {}", low=0, high=1
    )
    # robust z of length or success score in the task, as 3.5; not for tasks of under 5 episodes
    outliers: float | None = rule(
        _find_outliers, "no outliers with a robust z beyond {}", low=0, allows_zero=False
    )
    # leave out episodes that `check` calls broken
    drop_broken: bool = rule(
        _find_broken, "nothing broken in the recording", default=True, of_recording=True
    )
    # longest time without any movement, share of the episode, 0..1; 0.25, or twice
    # the median episode's, when no rule is named
    max_idle: float | None = rule(
        _find_idle, "idle for at most {} of the episode", low=0, high=1, of_recording=True
    )
    # robust z of the log dimensionless jerk in the task, as 3.5; not for tasks of under 8 episodes
    max_jerk_z: float | None = rule(
        _find_jerky, "jerk with a robust z of at most {}", low=0, of_recording=True
    )
    decisions: Path | None = None  # JSON from the report: manual decisions, which override rules

    def __post_init__(self) -> None:
        """Check the limits that are set."""
        for name, limit in self.named.items():
            RULES[name].check(name, limit)

    @property
    def named(self) -> dict[str, float]:
        """The limits that are set, by the name of their rule."""
        limits = {name: getattr(self, name) for name in RULES if name != "drop_broken"}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def in_force(self) -> dict[str, float]:
        """Those, and `drop_broken` unless it was switched off."""
        return {**self.named, **({"drop_broken": 1.0} if self.drop_broken else {})}

    def with_default(
        self, inspection: Inspection | None = None, *, labeled: bool = True
    ) -> "RulesConfig":
        """These rules, or the default ones where none is named: without labels, of motion alone."""
        if self.named:
            return self
        progress = DEFAULT_FINAL_PROGRESS if labeled else None
        return replace(self, min_final_progress=progress, max_idle=_choose_idle(inspection))


RULES: Mapping[str, Rule] = {
    item.name: item.metadata["rule"] for item in fields(RulesConfig) if "rule" in item.metadata
}


def judge(
    metrics: Sequence[EpisodeMetrics],
    rules: RulesConfig,
    *,
    inspection: Inspection | None = None,
    custom: Sequence[CustomRule] = (),
    decisions: Mapping[int, bool] | None = None,
) -> list[Verdict]:
    """Say of every episode whether it is kept.

    Args:
        metrics: of all labeled episodes, since some rules compare those of a task.
        rules: limits; the default ones where none is named. Its file of decisions is not read.
        inspection: what the recording says; without it, its rules are not used.
        custom: rules of your own, applied beside the others.
        decisions: manual ones by episode, True to keep it; they override the rules.

    Returns:
        One verdict per episode, in the order of `metrics`.
    """
    drops = find_drops(metrics, rules.with_default(inspection), inspection)
    found = [*drops.values(), *(find(metrics) for find in custom)]
    return decide([each.episode_index for each in metrics], found, decisions or {})


def decide(
    episodes: Sequence[int], drops: Sequence[Drops], decisions: Mapping[int, bool]
) -> list[Verdict]:
    """Put together what rules drop and what a person decided, who overrides the rules."""
    verdicts: list[Verdict] = []
    for episode in episodes:
        reasons = tuple(found[episode] for found in drops if episode in found)
        if episode in decisions:
            reasons = () if decisions[episode] else (MANUAL,)
        verdicts.append(Verdict(episode, reasons))
    return verdicts


def find_drops(
    metrics: Sequence[EpisodeMetrics], rules: RulesConfig, inspection: Inspection | None = None
) -> dict[str, Drops]:
    """Apply every rule by itself, before manual decisions: what each drops, by its name."""
    drops: dict[str, Drops] = {}
    for name, limit in rules.in_force.items():
        # What a rule is given depends on what it is about: see `Rule.of_recording`.
        given: Any = inspection if RULES[name].of_recording else metrics
        if given is not None:
            drops[name] = RULES[name].find(given, limit)
    return drops
