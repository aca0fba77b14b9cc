"""What controls say of a reward: pure arithmetic on scores, and the sentence that follows from it.

A curve that rises is no proof. The static video repeats the first frame, so whatever still rises is
time alone. The reversed video shows the same images the other way round, so a reward of progress
has to fall. The swapped instruction is never carried out, so its reward has to stay low.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import DegenerateDataWarning, bootstrap

from lerobot_topreward.judging.intervals import CONFIDENCE, RESAMPLES, mean_estimate
from lerobot_topreward.judging.metrics import mean_defined, rise, rise_in_words, success_score, voc
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.rewards import Scale

# Half of a rise, and time or another task explains more of it than the task itself does; below a
# fifth it is small beside the rest. Between them it is a matter of degree, and we say so.
MOST, LITTLE = 0.5, 0.2
# A drift of a thousandth has a rank correlation, too: order counts only beside a rise. From here on
# a curve is mostly in the order of time.
ORDERED = 0.5
# How often the true instruction must end higher than another one before we say that it is read.
CLEARLY_ABOVE = 0.75
FEW = 5  # episodes below which a sentence is a hint

Interval = tuple[float, float]  # nan, nan where it is undefined


@dataclass(frozen=True, slots=True)
class CurveSummary:
    """The curves of a sample of episodes; the value of an episode is the mean of its segments."""

    voc: float  # -1..1, mean over the episodes that have one; nan without any
    voc_interval: Interval
    voc_undefined: int  # episodes whose curves are constant or have one value
    rise: float  # nats, mean: the last three prefixes over the first one
    rise_interval: Interval
    prob_rise: float  # the same of P(True), -1..1
    prob_rise_interval: Interval
    success_score: float  # nats, mean log P(True) of the last three prefixes
    success_score_interval: Interval


@dataclass(frozen=True, slots=True)
class ControlSummary:
    """A control beside the real videos of the same episodes."""

    control: str  # one of `scoring.CONTROLS`
    episodes: int  # that both have
    scale: Scale  # what progress is made of, and so whose rise is shared
    real: CurveSummary
    other: CurveSummary  # of the control
    share: float  # mean rise of the control over that of the real curves; nan if these do not rise
    share_interval: Interval
    real_above: float  # 0..1, episodes whose real success score is above the control's; ties half
    real_above_interval: Interval


@dataclass(frozen=True, slots=True)
class _Curves:
    """One value per episode."""

    voc: Float[np.ndarray, " episodes"]  # nan where undefined
    rise: Float[np.ndarray, " episodes"]
    prob_rise: Float[np.ndarray, " episodes"]
    success_score: Float[np.ndarray, " episodes"]


def compare_controls(
    real: Sequence[PrefixScores],
    control: Sequence[PrefixScores],
    *,
    scale: Scale = "log-prob",
    success: Mapping[int, bool] | None = None,
) -> ControlSummary:
    """Compare a control with the real videos of the same segments.

    Intervals are bootstrapped over episodes. Played backwards, only a success has to fall: a
    failure may have been undone, which backwards becomes a success. So where successes are known,
    only they count under the control "reversed".

    Args:
        real: scores under the control "none"; of other episodes, too.
        control: scores under one control.
        scale: what progress is made of.
        success: by episode, as far as it is known.

    Raises:
        ValueError: there is no segment that both have.
    """
    segments = {one.segment for one in real} & {one.segment for one in control}
    if not segments:
        raise ValueError("real and control must share a segment; they share none")
    if control[0].control == "reversed":
        known = success or {}
        segments = {one for one in segments if known.get(one.episode_index)} or segments
    true, other = _curves(real, segments), _curves(control, segments)
    climbs = [c.prob_rise if scale == "prob" else c.rise for c in (true, other)]
    above = mean_estimate(np.sign(true.success_score - other.success_score) / 2 + 0.5)
    return ControlSummary(
        control=control[0].control,
        episodes=len(true.rise),
        scale=scale,
        real=_summary(true),
        other=_summary(other),
        share=float(_share(climbs[1], climbs[0])),
        share_interval=_share_interval(climbs[1], climbs[0]),
        real_above=above.value,
        real_above_interval=(above.low, above.high),
    )


def _curves(scores: Sequence[PrefixScores], segments: set[Segment]) -> _Curves:
    episodes: dict[int, list[Float[np.ndarray, " prefixes"]]] = defaultdict(list)
    for one in sorted(scores, key=lambda one: (one.segment.episode_index, one.segment.start)):
        if one.segment in segments:
            episodes[one.segment.episode_index].append(one.log_prob_true.astype(np.float64))
    each = list(episodes.values())
    return _Curves(
        voc=np.array([mean_defined([voc(part) for part in parts]) for parts in each]),
        rise=np.array([np.mean([rise(part) for part in parts]) for parts in each]),
        prob_rise=np.array([np.mean([rise(np.exp(part)) for part in parts]) for parts in each]),
        success_score=np.array([success_score(np.concatenate(parts)) for parts in each]),
    )


def _summary(curves: _Curves) -> CurveSummary:
    order, rises = mean_estimate(curves.voc), mean_estimate(curves.rise)
    prob_rises, success = mean_estimate(curves.prob_rise), mean_estimate(curves.success_score)
    return CurveSummary(
        voc=order.value,
        voc_interval=(order.low, order.high),
        voc_undefined=order.undefined,
        rise=rises.value,
        rise_interval=(rises.low, rises.high),
        prob_rise=prob_rises.value,
        prob_rise_interval=(prob_rises.low, prob_rises.high),
        success_score=success.value,
        success_score_interval=(success.low, success.high),
    )


def _share(
    above: Float[np.ndarray, "*n"], below: Float[np.ndarray, "*n"], axis: int = -1
) -> Float[np.ndarray, "*m"] | np.float64:
    climbed = np.mean(below, axis=axis)
    climbed = np.where(climbed > 0, climbed, np.nan)  # of no rise there is no share
    return np.mean(above, axis=axis) / climbed


def _share_interval(
    above: Float[np.ndarray, " episodes"], below: Float[np.ndarray, " episodes"]
) -> Interval:
    if len(above) < 2:
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        # Where the real curves of a resample do not rise, the interval is nan, which says it.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (above, below),
            _share,
            n_resamples=RESAMPLES,
            paired=True,  # both curves of an episode together
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(found.low), float(found.high)


def verdict(summary: ControlSummary) -> str:
    """Say in a sentence what a control says of the reward."""
    if np.isnan(summary.share) or not _risen(summary.real, summary.scale) > 0:
        sentence = (
            "The curves of the real videos do not rise, so there is nothing to compare: this "
            "reward shows no progress. Try another --camera, a larger --vlm or a clearer "
            "--instruction."
        )
    else:
        sentence = _SENTENCES[summary.control](summary)
    few = f" (Only {summary.episodes} episodes: a hint, no more.)" if summary.episodes < FEW else ""
    return sentence + few


def _risen(curve: CurveSummary, scale: Scale) -> float:
    """The lower end of how far a curve rises; the mean where there is no interval."""
    low = (curve.prob_rise_interval if scale == "prob" else curve.rise_interval)[0]
    return low if not np.isnan(low) else (curve.prob_rise if scale == "prob" else curve.rise)


def _static(summary: ControlSummary) -> str:
    shown = f"the first frame repeated {rise_in_words(summary.share)}"
    if summary.share < LITTLE:
        return f"Time alone explains little of this curve: {shown}."
    if summary.share >= MOST and summary.other.voc >= ORDERED:
        prob = " or --scale prob" if summary.scale == "log-prob" else ""
        return (
            f"Time alone explains most of this curve: {shown}. Do not weight with it; try --debias "
            f"static, a larger --vlm{prob}."
        )
    return (
        f"Time alone explains a part of this curve: {shown}. --debias static takes that part away."
    )


def _reversed(summary: ControlSummary) -> str:
    if summary.share <= -LITTLE:
        return (
            f"Played backwards the curve falls, by {_percent(-summary.share)} of what it rises "
            "forwards, as it should: the reward follows what is seen."
        )
    if summary.share < LITTLE:
        return (
            "Played backwards the curve neither rises nor falls much: the order of the images "
            "counts, and a success that is undone is only in part taken back."
        )
    shown = f"Played backwards the curve {rise_in_words(summary.share)}, where it should fall"
    if summary.share >= MOST and summary.other.voc >= ORDERED:
        return (
            f"{shown}: the order of the images hardly counts for this model. Do not weight with "
            "it; try a larger --vlm."
        )
    return f"{shown}: the order of the images counts only in part."


def _swapped(summary: ControlSummary) -> str:
    above = f"the true task ends higher in {_percent(summary.real_above)} of the episodes"
    shown = f"asked about another task the curve {rise_in_words(summary.share)}, and {above}"
    if summary.share < LITTLE and summary.real_above >= CLEARLY_ABOVE:
        return f"The model reads the instruction: {shown}."
    if summary.share >= MOST and summary.real_above < CLEARLY_ABOVE:
        return (
            f"The model does not read the instruction: {shown}. Its reward says that something is "
            "done, not that the task is. Where the two tasks look alike, ask a different one with "
            "--swapped-instruction; else try a clearer --instruction or a larger --vlm."
        )
    return f"The model reads the instruction only in part: {shown}."


def _percent(share: float) -> str:
    return f"{round(100 * share)}%"


_SENTENCES: dict[str, Callable[[ControlSummary], str]] = {
    "static": _static,
    "reversed": _reversed,
    "swapped": _swapped,
}
