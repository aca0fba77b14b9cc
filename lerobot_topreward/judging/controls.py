"""What controls say of a reward: pure arithmetic on scores, and the sentence that follows from it.

A curve that rises is no proof. The static video repeats the first frame, so whatever still rises is
time alone. The reversed video shows the same images the other way round, so a reward of progress
has to fall. The swapped instruction is never carried out, so its reward has to stay low.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from lerobot_topreward.judging.intervals import bootstrap_interval, mean_estimate
from lerobot_topreward.judging.metrics import mean_defined, rise, rise_in_words, success_score, voc
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import PAPER, Debias, Formula, find_baselines, make_curves

# Half of a rise, and time or another task explains more of it than the task itself does; below a
# fifth it is small beside the rest. Between them it is a matter of degree, and we say so.
MOST, LITTLE = 0.5, 0.2
# A drift of a thousandth has a rank correlation, too: order counts only beside a rise. From here on
# a curve is mostly in the order of time.
ORDERED = 0.5
# How often the true instruction must end higher than another one before we say that it is read.
CLEARLY_ABOVE = 0.75
# Episodes (or outcomes of one kind) below which nothing but a constant is judged as bad: intervals
# of fewer hardly mean anything.
FEW = 5
# Controls whose curve a formula can make: what it subtracts is there for them, too, and is not the
# control itself. Backwards, a video is as long as before, so it has the same clock.
COMPARABLE: dict[Debias, tuple[str, ...]] = {
    "none": ("static", "reversed", "swapped"),
    "static": ("reversed",),
    "blank": ("static", "reversed"),
    "contrast": (),
}
Grade = Literal["good", "care", "bad"]
Interval = tuple[float, float]  # nan, nan where it is undefined


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one look at the reward found."""

    name: str  # of what was looked at
    grade: Grade
    text: str  # a sentence with numbers, and what to do about it


@dataclass(frozen=True, slots=True)
class CurveSummary:
    """The curves of a sample of episodes; the value of an episode is the mean of its segments."""

    voc: float  # -1..1, mean over the episodes that have one; nan without any
    voc_interval: Interval
    voc_undefined: int  # episodes whose curves are constant or have one value
    rise: float  # in the curves' unit, mean: the last three prefixes over the first one
    rise_interval: Interval
    success_score: float  # in the curves' unit, mean of the last three prefixes
    success_score_interval: Interval


@dataclass(frozen=True, slots=True)
class ControlSummary:
    """A control beside the real videos of the same episodes."""

    control: str  # one of `scorer.CONTROLS`
    episodes: int  # that both have
    formula: Formula  # what the curves are
    real: CurveSummary
    other: CurveSummary  # of the control
    share: float  # mean rise of the control over that of the real curves; nan if these do not rise
    share_interval: Interval
    real_above: float  # 0..1, episodes whose real success score is above the control's; ties half
    real_above_interval: Interval


@dataclass(frozen=True, slots=True)
class EpisodeCurves:
    """What the curves of episodes are summed up to, one value per episode."""

    episodes: list[int]  # in the order of the values
    voc: Float[np.ndarray, " episodes"]  # -1..1, mean over the segments; nan where undefined
    rise: Float[np.ndarray, " episodes"]  # in the curves' unit, mean over the segments
    success_score: Float[np.ndarray, " episodes"]  # in the curves' unit


def measure_episodes(
    episodes: Sequence[int], curves: Sequence[Float[np.ndarray, " _"]]
) -> EpisodeCurves:
    """Sum up the curves of every episode.

    Args:
        episodes: the episode of each curve.
        curves: values of growing prefixes: one curve per segment, in the order of time.
    """
    parts: dict[int, list[Float[np.ndarray, " _"]]] = defaultdict(list)
    for episode, curve in zip(episodes, curves, strict=True):
        parts[episode].append(curve.astype(np.float64))
    each = parts.values()
    return EpisodeCurves(
        episodes=list(parts),
        voc=np.array([mean_defined([voc(curve) for curve in own]) for own in each]),
        rise=np.array([np.mean([rise(curve) for curve in own]) for own in each]),
        success_score=np.array([success_score(np.concatenate(own)) for own in each]),
    )


def measure_ends(scores: Sequence[PrefixScores], measured: EpisodeCurves) -> EpisodeCurves:
    """Take what a reward model says of success, where it says that of every prefix."""
    if any(part.log_prob_success is None for part in scores):
        return measured
    episodes = [part.segment.episode_index for part in scores]
    return measure_episodes(episodes, [part.success for part in scores])


def compare_controls(
    real: Sequence[PrefixScores],
    control: Sequence[PrefixScores],
    *,
    formula: Formula = PAPER,
    controls: Sequence[PrefixScores] = (),
    success: Mapping[int, bool] | None = None,
) -> ControlSummary:
    """Compare a control with the real videos of the same segments.

    Intervals are bootstrapped over episodes. Of the control "reversed" only those count that
    `that_must_fall`.

    Args:
        real: scores under the control "none"; of other episodes, too.
        control: scores under one control.
        formula: what the curves are made of.
        controls: what the formula subtracts, of both alike; segments without are left out.
        success: by episode, as far as it is known.

    Raises:
        ValueError: there is no segment that both have.
    """
    segments = {scores.segment for scores in real} & {scores.segment for scores in control}
    if formula.debias != "none":
        found = find_baselines(real, formula, controls)
        segments &= {part.segment for part, own in zip(real, found, strict=True) if own}
    if not segments:
        raise ValueError("real and control must share a segment; they share none")
    if control[0].control == "reversed":
        fall = that_must_fall({part.episode_index for part in segments}, success or {})
        segments = {part for part in segments if part.episode_index in fall}
    measured = []
    for scored in (real, control):
        shared = [scores for scores in scored if scores.segment in segments]
        shared.sort(key=lambda scores: (scores.segment.episode_index, scores.segment.start))
        episodes = [scores.segment.episode_index for scores in shared]
        measured.append(measure_episodes(episodes, make_curves(shared, formula, controls)))
    true, other = measured
    above = mean_estimate(np.sign(true.success_score - other.success_score) / 2 + 0.5)
    return ControlSummary(
        control=control[0].control,
        episodes=len(true.episodes),
        formula=formula,
        real=_summarize(true),
        other=_summarize(other),
        share=float(share_of_rise(other.rise, true.rise)),
        share_interval=bootstrap_interval((other.rise, true.rise), share_of_rise, paired=True),
        real_above=above.value,
        real_above_interval=(above.low, above.high),
    )


def that_must_fall(episodes: Set[int], success: Mapping[int, bool]) -> set[int]:
    """The episodes whose reward has to fall when they are played backwards.

    That is a success: a failure may have been undone, which backwards becomes a success. Where no
    success is known, it is all of them.
    """
    return {episode for episode in episodes if success.get(episode)} or set(episodes)


def _summarize(curves: EpisodeCurves) -> CurveSummary:
    names = ("voc", "rise", "success_score")
    summary: dict[str, Any] = {}
    for name in names:
        mean = mean_estimate(getattr(curves, name))
        summary |= {name: mean.value, f"{name}_interval": (mean.low, mean.high)}
        if name == "voc":
            summary["voc_undefined"] = mean.undefined
    return CurveSummary(**summary)


def share_of_rise(
    control: Float[np.ndarray, "*n"], real: Float[np.ndarray, "*n"], axis: int = -1
) -> Float[np.ndarray, "*m"] | np.float64:
    """The mean rise of a control over that of the real videos; nan where these do not rise."""
    risen = np.mean(real, axis=axis)
    risen = np.where(risen > 0, risen, np.nan)  # of no rise there is no share
    return np.mean(control, axis=axis) / risen


def judge_control(summary: ControlSummary) -> Evidence:
    """Say what a control says of the reward."""
    share, words = summary.share, rise_in_words(summary.share)
    # Curves rise where the lower end of their mean rise is above zero, or where there is no
    # interval, the mean itself.
    risen = summary.real.rise_interval[0]
    risen = summary.real.rise if np.isnan(risen) else risen
    # The real videos may rise no more than the control: the interval of the ratio reaches 1.
    highest = share if np.isnan(summary.share_interval[1]) else summary.share_interval[1]
    explains_all = share >= MOST and highest >= 1
    grade: Grade
    if np.isnan(share) or not risen > 0:
        grade, text = (
            "bad",
            (
                "the curves of the real videos do not rise, so there is nothing to compare: this "
                "reward shows no progress; try another `camera`, a larger `vlm` or a clearer "
                "`instruction`"
            ),
        )
    elif summary.control == "static":
        shown = f"the first frame repeated {words}"
        odds = " or `scale=log-odds`" if summary.formula.scale != "log-odds" else ""
        if share < LITTLE:
            grade, text = "good", f"time alone explains little of this curve: {shown}"
        elif explains_all:
            grade, text = (
                "bad",
                (
                    f"time alone explains all of this curve: {shown}; try `debias=static`, a larger "
                    f"`vlm`{odds}"
                ),
            )
        else:
            part = "most" if share >= MOST else "a part"
            grade, text = (
                "care",
                (
                    f"time alone explains {part} of this curve: {shown}; `debias=static` subtracts "
                    "that part"
                ),
            )
    elif summary.control == "reversed":
        if share <= -LITTLE:
            grade, text = (
                "good",
                (
                    f"played backwards the curve falls, by {-share:.0%} of what it rises "
                    "forwards, as it should: the reward follows what is seen"
                ),
            )
        elif share < LITTLE:
            grade, text = (
                "good",
                (
                    "played backwards the curve neither rises nor falls much: the order of the images "
                    "counts, and a success that is undone is only in part taken back"
                ),
            )
        else:
            shown = f"played backwards the curve {words}, where it should fall"
            grade = "bad" if explains_all else "care"
            counts = "hardly counts for this model" if explains_all else "counts only in part"
            text = f"{shown}: the order of the images {counts}; try a larger `vlm`"
    else:
        above = f"the true task ends higher in {summary.real_above:.0%} of the episodes"
        shown = f"asked about another task the curve {words}, and {above}"
        if share < LITTLE and summary.real_above >= CLEARLY_ABOVE:
            grade, text = "good", f"the model reads the instruction: {shown}"
        elif share >= MOST and summary.real_above < CLEARLY_ABOVE:
            grade, text = (
                "care",
                (
                    f"the model does not read the instruction: {shown}. Its reward says that something "
                    "is done, not that the task is. Where the two tasks look alike, ask a different "
                    "one with `swapped_instruction`; else try a clearer `instruction` or a larger "
                    "`vlm`"
                ),
            )
        else:
            grade, text = "care", f"the model reads the instruction only in part: {shown}"
    if summary.episodes < FEW:
        text += f" (only {summary.episodes} episodes: a hint, no more)"
        grade = "care" if grade == "bad" else grade
    return Evidence(summary.control, grade, text)
