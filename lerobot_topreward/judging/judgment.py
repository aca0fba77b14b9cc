"""Can this reward judge this dataset? One judgment, which every command says alike.

A curve that rises is no proof. So each kind of evidence is looked at by itself and gets a level:
the scores must vary by more than the model's own rounding, neighbors must agree more than distant
prefixes, the curves must follow time, and they must do so because of what is seen (see `controls`).
Where outcomes are known, successes must score higher.

The worst level decides. Every threshold stands below with its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console

from lerobot_topreward.console import spell_options
from lerobot_topreward.data.success import Success
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.controls import (
    COMPARABLE,
    FEW,
    ORDERED,
    ControlSummary,
    EpisodeCurves,
    Evidence,
    Grade,
    compare_controls,
    judge_control,
    measure_ends,
    measure_episodes,
)
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.intervals import Estimate, auc_estimate, mean_estimate
from lerobot_topreward.judging.rules import DEFAULT_FINAL_PROGRESS
from lerobot_topreward.records import EpisodeMetrics, PrefixScores
from lerobot_topreward.rewards import Debias, Formula
from lerobot_topreward.storage.reader import LabelledDataset

# Rounding steps of log P(True): logits are about 16 to 32, where bfloat16 has 8 and float16 11
# significant bits. Scores that move by fewer than three steps are mostly rounding.
STEPS = {"bfloat16": 2.0**-3, "float16": 2.0**-6, "float32": 2.0**-19}
LEAST_STEPS = 3
# Nats. Less than that, and P(True) varies by less than a tenth of itself over the whole dataset:
# published curves rise by 12 (arXiv 2602.19313), those of an untrained VLM vary by .07.
LEAST_RANGE = 0.1
# Von Neumann (1941): the mean square of successive differences is twice the variance for noise, and
# far less for a curve. From half of that on, a curve is mostly noise.
NOISY = 0.5
SMOOTH_FROM = 5  # prefixes of a curve before its noise is measured
# Of the success score, ROC-AUC; the paper reports .654 for Qwen3-VL-8B.
WEAK_AUC = 0.7
ENOUGH = 10  # outcomes of each kind, from which on a chance AUC speaks against the reward
# Nearly always most demonstrations are meant well. A rule that drops more than this share says more
# about the reward than about them.
MANY_DROPPED = 2 / 3

Level = Literal["usable", "usable with care", "cannot judge this dataset"]


@dataclass(frozen=True, slots=True)
class Judgment:
    """Whether a reward can judge a dataset, and everything that speaks for and against it."""

    level: Level
    evidence: tuple[Evidence, ...]

    @property
    def usable(self) -> bool:
        """Whether anything may be decided by this reward."""
        return self.level != "cannot judge this dataset"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences that decided the level; for a usable reward, all of them."""
        grade = {"usable": "good", "usable with care": "care"}.get(self.level, "bad")
        return tuple(found.text for found in self.evidence if found.grade == grade)


def judge_labels(
    dataset: LabelledDataset,
    *,
    controls: Mapping[str, Sequence[PrefixScores]],
    success: Success | None,
    metrics: Sequence[EpisodeMetrics] | None = None,
) -> Judgment:
    """Judge the reward that made the labels of a dataset.

    Args:
        dataset: with at least one labeled episode.
        controls: scores of the controls that there are, of any labeled episodes.
        success: as far as it is known.
        metrics: of all labeled episodes, where they are known already.
    """
    truth = {} if success is None else success.by_episode
    if metrics is None:
        metrics = episode_metrics(dataset.scores, dataset.rewards(), fps=dataset.fps)
    formula = dataset.known_formula
    found = judge_reward(
        dataset.scores,
        metrics,
        curves=dataset.curves() if formula.scale != "prob" else None,
        controls=[
            compare_controls(
                dataset.scores,
                scores,
                formula=formula if name in COMPARABLE[formula.debias] else Formula(formula.scale),
                controls=dataset.baselines,
                success=truth,
            )
            for name, scores in controls.items()
            if scores
        ],
        success=truth,
        subtracted=formula.debias,
        dtype=dataset.key.precision,
    )
    if formula == dataset.formula:
        return found
    text = (
        f"progress is made of {dataset.formula.words}, but what is subtracted is not stored here, so "
        "the curves without it were judged; evaluate the folder that label wrote to be sure"
    )
    return _decide([*_soften(found.evidence), Evidence("formula", "care", text)])


def judge_reward(
    scores: Sequence[PrefixScores],
    metrics: Sequence[EpisodeMetrics],
    *,
    curves: Sequence[Float[np.ndarray, " _"]] | None = None,
    controls: Sequence[ControlSummary] = (),
    success: Mapping[int, bool],
    subtracted: Debias = "none",
    dtype: str = "float32",
) -> Judgment:
    """Judge a reward by its scores.

    Args:
        scores: of every segment, control "none"; at least one.
        metrics: of the same episodes.
        curves: what progress is made of, one curve per segment; by default log P(True), nats.
        controls: what each control that was scored says.
        success: by episode, as far as it is known.
        subtracted: what is subtracted in `curves`.
        dtype: that the answers' logits were computed in.
    """
    made_of = [part.log_prob_true for part in scores] if curves is None else curves
    measured = measure_episodes([part.segment.episode_index for part in scores], made_of)
    auc = _estimate_auc(measure_ends(scores, measured), success)
    order, rises = _judge_order(measured, success, auc)
    found: list[Evidence] = [
        _judge_range(np.concatenate([part.log_prob_true for part in scores]), dtype=dtype),
        *_judge_noise(made_of),
        order,
        # Of curves that do not rise, controls have nothing to compare.
        *(_judge_controls(controls, episodes=len(metrics), subtracted=subtracted) if rises else ()),
        *_judge_success(auc),
        *_judge_drops(metrics),
    ]
    if len(metrics) < FEW:
        few = f"only {len(metrics)} episodes are labeled, which is a hint and no more"
        found = [*_soften(found), Evidence("episodes", "care", few)]
    return _decide(found)


def _soften(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Make nothing bad but a constant, where too little is known for more."""
    return [
        replace(each, grade="care") if each.grade == "bad" and each.name != "range" else each
        for each in evidence
    ]


def _decide(evidence: Sequence[Evidence]) -> Judgment:
    """Let the worst piece of evidence decide."""
    grades = {each.grade for each in evidence}
    level: Level = "usable with care" if "care" in grades else "usable"
    return Judgment("cannot judge this dataset" if "bad" in grades else level, tuple(evidence))


def _judge_range(log_probs: Float[np.ndarray, " prefixes"], *, dtype: str) -> Evidence:
    """Do the scores vary by more than the model's own rounding?"""
    low, high = np.quantile(log_probs.astype(np.float64), (0.05, 0.95))
    spread = float(high - low)
    step = STEPS.get(dtype, STEPS["bfloat16"])
    limit = max(LEAST_RANGE, LEAST_STEPS * step)
    shown = f"nine tenths of all scores lie within {spread:.2g} nats"
    if spread >= limit:
        return Evidence("range", "good", shown)
    rounding = f" ({dtype} rounds to {step:g})" if limit > LEAST_RANGE else ""
    return Evidence(
        "range",
        "bad",
        f"{shown}, less than {limit:g}{rounding}: this VLM says the same of every prefix, and "
        "scaling that to 0..1 makes progress of noise; try a larger `vlm` or a clearer "
        "`instruction`",
    )


def _judge_noise(curves: Sequence[Float[np.ndarray, " _"]]) -> list[Evidence]:
    """Do neighbors agree more than distant prefixes?"""
    ratios = [
        float(np.mean((curve[1:] - curve[:-1]) ** 2) / 2 / np.var(curve))
        for curve in (values.astype(np.float64) for values in curves)
        if len(curve) >= SMOOTH_FROM and np.ptp(curve) > 0
    ]
    if not ratios:
        return []
    found = mean_estimate(ratios)
    surely = found.value if np.isnan(found.low) else found.low
    if surely < NOISY:
        return [Evidence("noise", "good", f"noise is {found.value:.0%} of a curve's variance")]
    return [
        Evidence(
            "noise",
            "bad",
            f"noise is {found.value:.0%} of a curve's variance: neighboring prefixes differ as much "
            "as distant ones; try a larger `vlm` or another `camera`",
        )
    ]


def _judge_order(
    measured: EpisodeCurves, success: Mapping[int, bool], auc: tuple[Estimate, int] | None
) -> tuple[Evidence, bool]:
    """Do the curves follow time? Of the successes where they are known: only they have to.

    Returns:
        The evidence, and whether the curves rise at all.
    """
    good = np.array([success.get(episode, False) for episode in measured.episodes], dtype=bool)
    of_successes = int(good.sum()) >= FEW
    found = mean_estimate(measured.voc[good] if of_successes else measured.voc)
    of = "successes" if of_successes else "episodes"
    shown = f"VOC {found.value:.2f} {_interval(found)}".rstrip() + f" of {found.defined} {of}"
    low = found.value if np.isnan(found.low) else found.low
    if low > 0:
        if found.value >= ORDERED:
            return Evidence("order", "good", f"curves follow time: {shown}"), True
        text = f"curves follow time only loosely: {shown}; look at them in the report"
        return Evidence("order", "care", text), True
    text = f"curves {'fall' if found.high < 0 else 'do not rise'} with time: {shown}"
    if not found.defined:
        text = (
            f"no curve has an order: those of all {found.undefined} {of} are constant or one value"
        )
    if auc is not None and auc[0].low > 0.5:
        text += (
            "; successes end higher all the same, so judge whole episodes (`min_success`, "
            "`weighting.by=success`), not frames"
        )
        return Evidence("order", "care", text), False
    advice = "try another `camera`, a larger `vlm` or a clearer `instruction`"
    text += f", so this reward shows no progress; {advice}"
    return Evidence("order", "bad", text), False


def _judge_controls(
    controls: Sequence[ControlSummary], *, episodes: int, subtracted: Debias
) -> list[Evidence]:
    """Ask the controls that were scored; a reward without the static one is not proven."""
    if subtracted in ("static", "contrast"):
        grade: Grade = "good" if subtracted == "static" else "care"
        text = "what the first frame repeated earns is subtracted already"
        if subtracted == "contrast":
            text = (
                "what other tasks earn is subtracted; static videos were not asked about them, so "
                "whether time alone explains the rest cannot be said"
            )
        others = [judge_control(control) for control in controls if control.control != "static"]
        return [Evidence("static", grade, text), *others]
    found = [judge_control(control) for control in controls]
    if any(control.control == "static" for control in controls):
        return found
    text = (
        "the control static was not scored, so time alone may explain this curve: "
        "lerobot-topreward evaluate `controls=static,reversed` costs as much as labeling "
        f"{2 * min(10, episodes)} episodes"
    )
    return [Evidence("static", "care", text), *found]


def _estimate_auc(
    measured: EpisodeCurves, success: Mapping[int, bool]
) -> tuple[Estimate, int] | None:
    """ROC-AUC of the success score, and how many outcomes there are of the rarer kind."""
    known = [i for i, episode in enumerate(measured.episodes) if episode in success]
    outcome = np.array([success[measured.episodes[i]] for i in known], dtype=bool)
    rarer = int(min(outcome.sum(), (~outcome).sum()))
    if rarer < FEW:
        return None
    return auc_estimate(measured.success_score[known], outcome), rarer


def _judge_success(found: tuple[Estimate, int] | None) -> list[Evidence]:
    """Do successes score higher than failures, where there are enough of both?"""
    if found is None:
        return []
    auc, rarer = found
    shown = f"ROC-AUC of the success score {auc.value:.2f} {_interval(auc)}"
    if auc.high < 0.5:
        text = f"failures score higher than successes: {shown}; look for swapped outcomes"
        return [Evidence("success", "bad", text)]
    if auc.low <= 0.5:
        grade: Grade = "bad" if rarer >= ENOUGH else "care"
        text = f"the reward does not tell success from failure: {shown}; try a larger `vlm`"
        return [Evidence("success", grade, text)]
    if auc.value < WEAK_AUC:
        text = f"successes score higher only on average: {shown}; look before you drop"
        return [Evidence("success", "care", text)]
    return [Evidence("success", "good", f"successes score higher: {shown}")]


def _judge_drops(metrics: Sequence[EpisodeMetrics]) -> list[Evidence]:
    dropped = sum(episode.final_progress < DEFAULT_FINAL_PROGRESS for episode in metrics)
    if dropped <= MANY_DROPPED * len(metrics):
        return []
    text = (
        f"the default rule would drop {dropped} of {len(metrics)} episodes, which says more about "
        "the reward than about them; look at the report before you drop any"
    )
    return [Evidence("drops", "care", text)]


def _interval(found: Estimate) -> str:
    return "" if np.isnan(found.low) else f"[{found.low:.2f}, {found.high:.2f}]"


def judgment_to_json(judgment: Judgment) -> Mapping[str, Any]:
    """Put a judgment as JSON holds it."""
    return {
        "level": judgment.level,
        "reasons": [spell_options(reason) for reason in judgment.reasons],
        "evidence": [
            {**plain(found), "text": spell_options(found.text)} for found in judgment.evidence
        ],
    }


def print_judgment(judgment: Judgment, console: Console) -> None:
    """Print the level, and every piece of evidence on a line of its own, the worst first."""
    style = {"usable": "green", "usable with care": "yellow"}.get(judgment.level, "bold red")
    console.print(f"this reward: {judgment.level}", style=style)
    for grade, mark in (("bad", "x"), ("care", "!"), ("good", "+")):
        for found in judgment.evidence:
            if found.grade == grade:
                console.print(f"  {mark} {found.text}")
