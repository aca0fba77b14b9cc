"""Which formula suits a VLM: all that the stored scores allow, side by side, and what favors one.

Progress is log P(True) in the paper. Other formulas (`rewards.Formula`) take away what a video's
length alone earns, each under an assumption that a VLM may break. So each is measured on the same
dataset, and the paper's stays unless the evidence says otherwise:

- Where at least `FEW` successes and `FEW` failures are known, by the ROC-AUC of the success score.
  A formula is favored if the interval of its difference to the paper's lies above 0. Telling
  success from failure is what a reward is for, and only this sees a formula that removes progress
  together with the clock.
- Elsewhere by the static control, and only if time explains more than `LITTLE` of the paper's rise:
  the interval of the difference in |static rise / real rise| has to lie below 0, and the real
  curves still have to rise. A formula that subtracts the static control itself cannot be judged by
  it, nor can "contrast", for which static videos would have to be asked about other tasks, nor
  "prob", which keeps the order of log-prob, the clock's part in it, too, and only stretches the
  top, which static videos do not reach.

Both intervals are of paired differences, bootstrapped over episodes, at a level of 5 % divided by
the number of formulas (Bonferroni): the best of many is else favored by chance. Of several favored
ones the one with the largest difference is taken, of equal ones (to .01) the cheapest (`_BY_COST`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

import numpy as np

from lerobot_topreward.console import spell_options
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.controls import (
    COMPARABLE,
    FEW,
    LITTLE,
    MOST,
    EpisodeCurves,
    measure_episodes,
    share_of_rise,
    that_must_fall,
)
from lerobot_topreward.judging.differences import auc_gain, shared_episodes, static_gain
from lerobot_topreward.judging.intervals import Estimate, auc_estimate, mean_estimate
from lerobot_topreward.judging.metrics import mean_defined, rise_in_words
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import PAPER, Debias, Formula, Scale, find_baselines, make_curves

# By what labeling one more episode costs: nothing, nothing for most, more questions, one more pass.
_BY_COST: tuple[Debias, ...] = ("none", "blank", "contrast", "static")


@dataclass(frozen=True, slots=True)
class FormulaSummary:
    """One formula on the episodes that have what it subtracts; nan where undefined."""

    formula: Formula
    episodes: int
    voc: Estimate  # -1..1
    rise: Estimate  # in the curves' unit, of the real videos
    static_voc: float  # -1..1, of the static control under the same formula
    static_share: float  # mean rise of that control over that of the real videos
    reversed_share: float  # the same of the reversed control; of successes, where known
    auc: Estimate  # 0..1, of the success score
    gain: Estimate  # its AUC less the paper's on the same episodes, level of 5 % / formulas
    static_gain: Estimate  # the same of |static_share|: less is better


@dataclass(frozen=True, slots=True)
class FormulaComparison:
    """All formulas that the scores allow, the paper's first, and what speaks for one of them."""

    rows: tuple[FormulaSummary, ...]
    judged_by: Literal["success", "static", "nothing"]
    favored: Formula  # the paper's, unless the evidence says otherwise
    sentence: str
    remarks: tuple[str, ...]  # where an assumption does not hold


def list_formulas(
    real: Sequence[PrefixScores], controls: Sequence[PrefixScores], *, of_all: bool = False
) -> list[Formula]:
    """List the formulas that the scores allow, of some segments or `of_all`, the paper's first."""
    formulas = []
    for debias, scale in product(get_args(Debias), get_args(Scale)):
        if scale == "prob" and debias != "none":
            continue
        formula = Formula(scale, debias)
        found = {len(own) for own in find_baselines(real, formula, controls)}
        # Of all: of as many other instructions each, or those with fewer would not compare.
        if debias == "none" or (len(found) == 1 and found != {0} if of_all else any(found)):
            formulas.append(formula)
    return formulas


def compare_formulas(
    real: Sequence[PrefixScores],
    controls: Sequence[PrefixScores],
    *,
    success: Mapping[int, bool],
    formulas: Sequence[Formula] | None = None,
) -> FormulaComparison:
    """Measure formulas beside each other.

    Args:
        real: scores of every segment, control "none"; at least one.
        controls: every other score of these segments that there is.
        success: by episode, as far as it is known.
        formulas: the paper's among them; by default those of `list_formulas`.
    """
    formulas = list_formulas(real, controls) if formulas is None else formulas
    confidence = 1 - 0.05 / max(len(formulas) - 1, 1)
    by_name = {
        name: [part for part in controls if part.control == name] for name in ("static", "reversed")
    }

    def measure(
        formula: Formula, scores: Sequence[PrefixScores], episodes: set[int]
    ) -> EpisodeCurves:
        own = find_baselines(scores, formula, controls)
        kept = [
            part
            for part, found in zip(scores, own, strict=True)
            if part.segment.episode_index in episodes and (found or formula.debias == "none")
        ]
        kept.sort(key=lambda part: (part.segment.episode_index, part.segment.start))
        of = [part.segment.episode_index for part in kept]
        return measure_episodes(of, make_curves(kept, formula, controls))

    everything = {part.segment.episode_index for part in real}
    success = {episode: done for episode, done in success.items() if episode in everything}
    paper = measure(PAPER, real, everything)
    paper_static = measure(PAPER, by_name["static"], everything)
    falling = that_must_fall(everything, success)
    rows = []
    for formula in formulas:
        curves = measure(formula, real, everything)
        can = COMPARABLE[formula.debias]
        static, backwards = (
            measure(formula, by_name[name] if name in can else (), kept)
            for name, kept in (("static", everything), ("reversed", falling))
        )
        outcomes = [i for i, episode in enumerate(curves.episodes) if episode in success]
        outcome = np.array([success[curves.episodes[i]] for i in outcomes], dtype=bool)
        rows.append(
            FormulaSummary(
                formula=formula,
                episodes=len(curves.episodes),
                voc=mean_estimate(curves.voc),
                rise=mean_estimate(curves.rise),
                static_voc=mean_defined(static.voc.tolist()),
                static_share=_share(static, curves),
                reversed_share=_share(backwards, curves),
                auc=auc_estimate(curves.success_score[outcomes], outcome),
                gain=auc_gain(curves, paper, success, confidence=confidence),
                static_gain=static_gain(
                    (static, curves), (paper_static, paper), confidence=confidence
                ),
            )
        )
    favored, judged_by, sentence = _favor(rows, success)
    remarks = _remarks(rows, real, controls)
    return FormulaComparison(tuple(rows), judged_by, favored, sentence, remarks)


def _share(control: EpisodeCurves, real: EpisodeCurves) -> float:
    control, real = shared_episodes(control, real)
    return float(share_of_rise(control.rise, real.rise)) if real.episodes else float("nan")


def _favor(
    rows: Sequence[FormulaSummary], success: Mapping[int, bool]
) -> tuple[Formula, Literal["success", "static", "nothing"], str]:
    """Say which formula the evidence favors, by the rule that stands above."""
    paper = rows[0]
    others = sorted(rows[1:], key=lambda row: _BY_COST.index(row.formula.debias))
    stays = "so the paper's, log-prob, stays"
    few = min(sum(success.values()), len(success) - sum(success.values())) < FEW
    why = f"fewer than {FEW} successes or {FEW} failures are known" if few else ""
    if not few:
        better = [row for row in others if row.gain.low > 0]
        if not better:
            text = "no other formula surely tells success from failure better"
            return PAPER, "success", f"the evidence favors none: {text}, {stays}"
        best = max(better, key=lambda row: round(row.gain.value, 2))
        text = (
            f"the evidence favors {best.formula.name}: ROC-AUC {best.auc.value:.2f}, "
            f"{best.gain.value:+.2f} [{best.gain.low:.2f}, {best.gain.high:.2f}] beside log-prob's "
            f"on the same {best.gain.defined} episodes"
        )
        return best.formula, "success", text
    if np.isnan(paper.static_share):
        more = "and the control static was not scored (evaluate `controls=static` does that)"
        if not np.isnan(paper.static_voc):
            more = "and the real curves do not rise, so the control static says nothing"
        return PAPER, "nothing", f"nothing to judge formulas by: {why} {more}, {stays}"
    still = f"under log-prob the first frame repeated {rise_in_words(paper.static_share)}"
    if abs(paper.static_share) < LITTLE:
        return PAPER, "static", f"no other formula is needed: {still}, {stays} ({why})"
    better = [
        row
        for row in others
        if row.formula.scale != "prob" and row.static_gain.high < 0 and row.rise.low > 0
    ]
    if not better:
        text = "none surely rises less by time alone"
        return PAPER, "static", f"the evidence favors none: {text}, {stays} ({why})"
    best = min(better, key=lambda row: round(row.static_gain.value, 2))
    text = (
        f"the evidence favors {best.formula.name}: {still}, under this one it "
        f"{rise_in_words(best.static_share)} ({why}, so nothing says whether it tells success from "
        "failure)"
    )
    return best.formula, "static", text


def _remarks(
    rows: Sequence[FormulaSummary],
    real: Sequence[PrefixScores],
    controls: Sequence[PrefixScores],
) -> tuple[str, ...]:
    """Say where what a formula assumes does not hold."""
    remarks = []
    reasons = {
        "none": "the clock is not the same in both answers",
        "blank": "gray images have another clock than still ones",
    }
    for row in rows:
        assumes = row.formula not in (PAPER, Formula("prob"))
        if assumes and abs(row.static_share) >= LITTLE:
            moves = "rises" if row.static_share > 0 else "falls"
            remarks.append(
                f"{row.formula.name}: the first frame repeated still {moves} by "
                f"{abs(row.static_share):.0%} of the real rise, so {reasons[row.formula.debias]}"
            )
    # What other tasks earn by the same video is what contrast takes away, the clock's part or not.
    own = find_baselines(real, Formula(debias="contrast"), controls)
    asked = [(part, found) for part, found in zip(real, own, strict=True) if found]
    if asked:
        of = [part.segment.episode_index for part, _ in asked]
        true = measure_episodes(of, make_curves([part for part, _ in asked]))
        other = measure_episodes(of, [np.mean(make_curves(found), axis=0) for _, found in asked])
        share = _share(other, true)
        if share >= MOST:
            remarks.append(
                "contrast: asked about other tasks, the same videos rise by "
                f"{share:.0%} of what they do for their own. That is a clock, or an "
                "instruction that is hardly read: then contrast takes the progress away, too"
            )
    return tuple(remarks)


def formulas_to_json(found: FormulaComparison) -> Mapping[str, Any]:
    """Put a comparison as JSON holds it."""
    return {
        **plain(found),
        "sentence": spell_options(found.sentence),
        "remarks": [spell_options(remark) for remark in found.remarks],
    }
