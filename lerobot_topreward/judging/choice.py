"""Which of several judges to use on a dataset, in one sentence: rules over paired differences.

1. A judge that cannot judge the dataset (`judgment`) is never advised. Where all cannot, the advice
   is none of these: the best of useless rewards is still useless.
2. With at least `FEW` successes and `FEW` failures, a judge is left out whose ROC-AUC of the success
   score is surely below that of the judge with the highest. Telling success from failure is what a
   reward is for, and only this sees a curve that follows something else in the video.
3. A judge is left out whose curve rises on a still image by `LITTLE` or more of its real rise, and
   surely by more than that of the judge where it rises least. Such a curve is made of length: the
   paper's authors measured a VOC of .99 on still images for the model with the highest VOC on real
   ones. Below `LITTLE` a difference is not worth a choice.
4. Of those left, which the sample does not tell apart, one that is usable comes before one that is
   usable with care only; then one that takes `FASTER` less time per episode; else either is advised.

"Surely" means that the interval of the paired difference over the same episodes excludes 0, at a
level of 5 % divided by the number of comparisons that could be made (Bonferroni): the best of many
is else better by chance. So no difference is claimed that lies within its interval.

VOC, the reversed control and agreement choose nothing by themselves, though the judgment reads the
first two: a clock has the best VOC, backwards a task may be as much of a task, and two clocks agree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot_topreward.judging.controls import FEW, LITTLE, MOST
from lerobot_topreward.judging.differences import auc_gain, shared_episodes, static_gain
from lerobot_topreward.judging.judges import JudgeSummary

FASTER = 0.8  # of the other's time per episode, from which on a difference is more than the noise
_ALIKE = "which these episodes do not tell apart from it"
_NAMED = 3  # judges about which the sentence says why not
# What is bad about a judge that cannot judge, by the piece of evidence that says so.
_FAULTS = {
    "range": "{0} says the same of every prefix",
    "noise": "{0}'s curve is mostly noise",
    "order": "{0}'s curve does not rise with time",
    "static": "{0}'s curve rises as much on a still image ({1})",
    "reversed": "{0}'s curve rises as much backwards",
    "success": "{0} does not tell success from failure",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A judge that scored the sample."""

    name: str
    summary: JudgeSummary
    seconds: float = float("nan")  # per video scored; nan where that was not measured


@dataclass(frozen=True, slots=True)
class Advice:
    """Which judge to use."""

    names: tuple[str, ...]  # the one to use; several where either will do; none where none will
    sentence: str


def choose_judge(candidates: Sequence[Candidate], success: Mapping[int, bool]) -> Advice:
    """Choose among judges by the rules that stand above.

    Args:
        candidates: at least one, in the order in which equal ones are preferred.
        success: by episode, as far as it is known.
    """
    able = [candidate for candidate in candidates if candidate.summary.judgment.usable]
    why_not = {
        candidate.name: _fault(candidate) for candidate in candidates if candidate not in able
    }
    if not able:
        return Advice((), f"use none of these: {_join(list(why_not.values()))}")
    confidence = 1 - 0.05 / max(len(able) * (len(able) - 1), 1)  # pairs, and two rules
    left = _leave_out_blind(able, success, confidence, why_not)
    left = _leave_out_clocks(left, confidence, why_not)
    best = _prefer(left, why_not)
    names = " or ".join(candidate.name for candidate in best)
    care = "" if best[0].summary.judgment.level == "usable" else ", with care"
    if len(best) > 1:
        good = [_praise(candidate, f"{candidate.name}'s") for candidate in best]
        sentence = f"use {names}{care}; these episodes do not tell them apart: {_join(good)}"
    else:
        sentence = f"use {names}{care}: {_praise(best[0], 'its')}"
    if why_not:
        sentence += f"; {_join(list(why_not.values()))}"
    episodes = min(len(candidate.summary.curves.episodes) for candidate in candidates)
    if episodes < FEW:
        sentence += f" (only {episodes} episodes: a hint, no more)"
    return Advice(tuple(candidate.name for candidate in best), sentence)


def _leave_out_blind(
    able: Sequence[Candidate],
    success: Mapping[int, bool],
    confidence: float,
    why_not: dict[str, str],
) -> list[Candidate]:
    """Leave out those that surely tell success from failure less well than the best (rule 2)."""

    def is_worse(candidate: Candidate, best: Candidate) -> bool:
        own, other = best.summary.curves, candidate.summary.curves
        shared = shared_episodes(own, other)[0].episodes
        known = [success[episode] for episode in shared if episode in success]
        if min(sum(known), len(known) - sum(known)) < FEW:
            return False
        return auc_gain(own, other, success, confidence=confidence).low > 0

    def say(candidate: Candidate) -> str:
        return f"{candidate.name} tells success from failure less well (AUC {candidate.summary.auc.value:.2f})"

    return _leave_out(able, lambda candidate: candidate.summary.auc.value, is_worse, say, why_not)


def _leave_out_clocks(
    able: Sequence[Candidate], confidence: float, why_not: dict[str, str]
) -> list[Candidate]:
    """Leave out those that surely rise more on a still image than the best (rule 3)."""

    def is_worse(candidate: Candidate, best: Candidate) -> bool:
        own, other = (
            (each.summary.static_curves, each.summary.curves) for each in (best, candidate)
        )
        if len(shared_episodes(*own, *other)[0].episodes) < FEW:
            return False
        less = static_gain(own, other, confidence=confidence)
        return abs(candidate.summary.static_share) >= LITTLE and less.high < 0

    def worth(candidate: Candidate) -> float:
        return -abs(candidate.summary.static_share)

    return _leave_out(able, worth, is_worse, _describe_still, why_not)


def _leave_out(
    able: Sequence[Candidate],
    worth: Callable[[Candidate], float],
    is_worse: Callable[[Candidate, Candidate], bool],
    say: Callable[[Candidate], str],
    why_not: dict[str, str],
) -> list[Candidate]:
    known = [candidate for candidate in able if not np.isnan(worth(candidate))]
    if not known:
        return list(able)
    best = max(known, key=worth)
    left = [candidate for candidate in able if candidate is best or not is_worse(candidate, best)]
    why_not |= {candidate.name: say(candidate) for candidate in able if candidate not in left}
    return left


def _prefer(left: Sequence[Candidate], why_not: dict[str, str]) -> list[Candidate]:
    """Take the better judged ones, then the fastest one (rule 4)."""
    usable = [candidate for candidate in left if candidate.summary.judgment.level == "usable"]
    if usable:
        careful = [candidate for candidate in left if candidate not in usable]
        why_not |= {
            candidate.name: f"{candidate.name}, {_ALIKE}, is usable with care only"
            for candidate in careful
        }
        left = usable
    fastest = min(left, key=lambda candidate: np.nan_to_num(candidate.seconds, nan=np.inf))
    slower = [candidate for candidate in left if candidate is not fastest]
    if slower and all(fastest.seconds <= FASTER * candidate.seconds for candidate in slower):
        why_not |= {
            candidate.name: f"{candidate.name}, {_ALIKE}, takes {candidate.seconds:.2g} s per episode, not {fastest.seconds:.2g}"
            for candidate in slower
        }
        return [fastest]
    return list(left)


def _praise(candidate: Candidate, whose: str) -> str:
    """Say what speaks for a judge."""
    summary, share = candidate.summary, candidate.summary.static_share
    if np.isnan(share):
        said = f"{whose} curve rises with time, and what a still image earns is unknown"
    elif abs(share) < LITTLE:
        said = f"{whose} curve follows the video (static rise {_percent(share)})"
    else:
        said = f"{whose} curve follows the video in part (static rise {_percent(share)})"
    if summary.auc.low > 0.5:
        said += f" and tells success from failure (AUC {summary.auc.value:.2f})"
    elif any(found.name == "success" for found in summary.judgment.evidence):
        said += f", but is not seen to tell success from failure (AUC {summary.auc.value:.2f})"
    return said


def _fault(candidate: Candidate) -> str:
    """Say why a judge cannot judge, by the first piece of evidence that is bad."""
    bad = next(each.name for each in candidate.summary.judgment.evidence if each.grade == "bad")
    control = candidate.summary.controls.get(bad)
    if control is not None and not control.real.rise_interval[0] > 0:
        bad = "order"  # there was nothing to compare
    return _FAULTS[bad].format(candidate.name, _percent(candidate.summary.static_share))


def _describe_still(candidate: Candidate) -> str:
    """Say how far the curve of a judge rises on a still image; as much, where that may be so."""
    static = candidate.summary.controls["static"]
    if static.share >= MOST and static.share_interval[1] >= 1:
        return _FAULTS["static"].format(candidate.name, _percent(static.share))
    verb = "rises" if static.share > 0 else "falls"
    return f"{candidate.name}'s curve {verb} on a still image by {_percent(abs(static.share))} of its real rise"


def _percent(share: float) -> str:
    return "unknown" if np.isnan(share) else f"{round(100 * share)} %"


def _join(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return "; ".join(reasons[:_NAMED]) + more
