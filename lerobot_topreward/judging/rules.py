"""Which episodes to drop, and why: every rule looks at one thing, and any of them may drop one."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import EpisodeMetrics, Verdict

DEFAULT_FINAL_PROGRESS = 0.8
PERSON = "decided by a person"
_ENOUGH = 5  # episodes of a task before one of them can be called an outlier

# Episode index -> why the rule drops it. Some rules compare the episodes of a task, so a rule is
# given all of them at once.
Drops = Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class RulesConfig:
    """The rules by which episodes are dropped; an unset one is not used.

    An episode that breaks any of them is dropped; one that equals a limit is kept. Progress is scaled over all episodes of a task.
    """

    min_final_progress: float | None = None  # 0..1; 0.8 is the rule when none is named
    min_success: float | None = None  # success score: mean log P(True) at the end, nats, <= 0
    min_voc: float | None = None  # rank correlation of reward and time, -1..1; undefined passes
    keep_top: float | None = None  # share of each task's episodes, by success score, 0..1
    max_stall: float | None = None  # longest time without progress, seconds
    max_regress: float | None = None  # largest loss of progress, 0..1
    outliers: float | None = None  # robust z of length or success score in the task, as 3.5
    decisions: Path | None = None  # JSON from the report: a person's word, which beats every rule

    def __post_init__(self) -> None:
        """Refuse limits that no episode, or every one, would break."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{_option(name)} must be {_range(low, high)}; got {value}")
        for name in ("keep_top", "outliers"):
            if getattr(self, name) == 0:
                raise UserError(
                    f"{_option(name)} must be more than 0; got 0, which drops everything"
                )

    @property
    def named(self) -> dict[str, float]:
        """The limits that are set, by the name of their rule."""
        found = {name: getattr(self, name) for name in _RULES}
        return {name: limit for name, limit in found.items() if limit is not None}

    def in_force(self) -> "RulesConfig":
        """These rules, or the default one where none is named."""
        if self.named:
            return self
        return replace(self, min_final_progress=DEFAULT_FINAL_PROGRESS)


def judge(
    metrics: Sequence[EpisodeMetrics],
    rules: RulesConfig,
    *,
    decisions: Mapping[int, bool] | None = None,
) -> list[Verdict]:
    """Say of every episode whether it is kept.

    Args:
        metrics: of all labelled episodes, since some rules compare those of a task.
        rules: limits; the default rule where none is named. Its file of decisions is not read.
        decisions: a person's word by episode, True to keep it; it beats every rule.

    Returns:
        One verdict per episode, in the order of `metrics`.
    """
    drops = broken_rules(metrics, rules)
    verdicts = []
    for one in metrics:
        episode = one.episode_index
        reasons = tuple(found[episode] for found in drops.values() if episode in found)
        if decisions is not None and episode in decisions:
            reasons = () if decisions[episode] else (PERSON,)
        verdicts.append(Verdict(episode, reasons))
    return verdicts


def broken_rules(metrics: Sequence[EpisodeMetrics], rules: RulesConfig) -> dict[str, Drops]:
    """Apply every rule by itself, whatever a person decided.

    Returns:
        For each rule that is in force, by its name, the episodes that it drops and why.
    """
    named = rules.in_force().named
    return {name: _RULES[name](metrics, limit) for name, limit in named.items()}


def final_progress(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what ends before the task is done."""
    return _below("final progress", {m.episode_index: m.final_progress for m in metrics}, limit)


def success(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what the VLM does not believe to have succeeded."""
    scores = {m.episode_index: m.success_score for m in metrics}
    return _below("success score", scores, limit, unit=" nats")


def order(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what does not progress with time; an undefined VOC proves nothing, so it passes."""
    return _below("VOC", {m.episode_index: m.voc for m in metrics}, limit)


def stall(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what stands still for long."""
    return _above("stall", {m.episode_index: m.longest_stall for m in metrics}, limit, unit=" s")


def regress(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what undoes what was done."""
    return _above("regress", {m.episode_index: m.regress for m in metrics}, limit)


def below_top(metrics: Sequence[EpisodeMetrics], share: float) -> Drops:
    """Drop all but the best of each task; at least one stays, and those equal to the last kept."""
    drops = {}
    for members in by_task(metrics).values():
        scores = np.array([m.success_score for m in members])
        kept = max(1, math.ceil(share * len(members) - 1e-9))  # 0.3 * 10 is a little over 3
        line = np.sort(scores)[-kept]
        for one in members:
            if one.success_score < line:
                rank = 1 + int(np.sum(scores > one.success_score))
                drops[one.episode_index] = (
                    f"success score is number {rank} of {len(members)} in its task, "
                    f"the best {kept} are kept"
                )
    return drops


def unlike_others(metrics: Sequence[EpisodeMetrics], limit: float) -> Drops:
    """Drop what is much longer, shorter or less successful than the others of its task.

    Tasks of fewer than five episodes are passed over.
    """
    drops = {}
    for members in by_task(metrics).values():
        if len(members) < _ENOUGH:
            continue
        lengths = robust_z(np.array([m.seconds for m in members]))
        scores = robust_z(np.array([m.success_score for m in members]))
        for one, length, score in zip(members, lengths, scores, strict=True):
            if abs(length) > limit:
                what = f"length {one.seconds:.1f} s is an outlier, |z|"
                drops[one.episode_index] = f"{what} {_apart(abs(length), '>', limit)}"
            elif -score > limit:
                what = f"success score {one.success_score:.2f} nats is an outlier, -z"
                drops[one.episode_index] = f"{what} {_apart(-score, '>', limit)}"
    return drops


def robust_z(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Distance from the median in robust standard deviations.

    Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers: 0.6745 (x - median) / MAD, and
    where more than half of the values are the same, so that the MAD is 0, (x - median) / (1.2533
    times the mean absolute deviation).

    Args:
        values: any unit, at least one.

    Returns:
        z of each value; zeros when all are equal.
    """
    away = values - np.median(values)
    spread = float(np.median(np.abs(away))) / 0.6745
    spread = spread or float(np.mean(np.abs(away))) * 1.2533
    return away / spread if spread else np.zeros(len(values))


def by_task(metrics: Sequence[EpisodeMetrics]) -> dict[str, list[EpisodeMetrics]]:
    """Group episodes by their task, in the order of its first episode."""
    tasks: dict[str, list[EpisodeMetrics]] = defaultdict(list)
    for one in metrics:
        tasks[one.task].append(one)
    return dict(tasks)


def _below(what: str, values: Mapping[int, float], limit: float, *, unit: str = "") -> Drops:
    return {
        episode: f"{what} {_apart(value, '<', limit)}{unit}"
        for episode, value in values.items()
        if value < limit
    }


def _above(what: str, values: Mapping[int, float], limit: float, *, unit: str = "") -> Drops:
    return {
        episode: f"{what} {_apart(value, '>', limit)}{unit}"
        for episode, value in values.items()
        if value > limit
    }


def _apart(value: float, sign: str, limit: float) -> str:
    """Write both with so many decimals that they differ."""
    pairs = [(f"{value:.{digits}f}", f"{limit:.{digits}f}") for digits in range(2, 9)]
    mine, line = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"{mine} {sign} {line}"


_RULES: Mapping[str, Callable[[Sequence[EpisodeMetrics], float], Drops]] = {
    "min_final_progress": final_progress,
    "min_success": success,
    "min_voc": order,
    "keep_top": below_top,
    "max_stall": stall,
    "max_regress": regress,
    "outliers": unlike_others,
}
_RANGES = (
    ("min_final_progress", 0.0, 1.0),
    ("min_success", -math.inf, 0.0),
    ("min_voc", -1.0, 1.0),
    ("keep_top", 0.0, 1.0),
    ("max_stall", 0.0, math.inf),
    ("max_regress", 0.0, 1.0),
    ("outliers", 0.0, math.inf),
)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"in {low:g}..{high:g}"
