"""The static control beside the labels: what the first frame repeated scores, and debiasing by it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from lerobot_topreward.judging.metrics import mean_defined, rise, voc
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import debias_static


@dataclass(frozen=True, slots=True)
class StaticControl:
    """What the first frame repeated does, beside the real videos; nan where undefined."""

    real_voc: float  # mean over segments, -1..1
    static_voc: float  # mean over segments whose curve is not constant, -1..1
    share: float  # mean rise of static curves over mean rise of real ones; nan if these do not rise


def compare_static(
    real: Sequence[PrefixScores], static: Sequence[PrefixScores]
) -> StaticControl | None:
    """Compare static videos with the real ones of the same segments; None without any."""
    segments = {score.segment for score in static}
    curves = [score.log_prob_true for score in real if score.segment in segments]
    still = [score.log_prob_true for score in static]
    if not curves:
        return None
    risen = float(np.mean([rise(curve) for curve in curves]))
    return StaticControl(
        real_voc=mean_defined([voc(curve) for curve in curves]),
        static_voc=mean_defined([voc(curve) for curve in still]),
        share=float(np.mean([rise(curve) for curve in still])) / risen
        if risen > 0
        else float("nan"),
    )


def leave_out_undebiased(
    scores: Sequence[PrefixScores], static: Sequence[PrefixScores], *, console: Console
) -> list[PrefixScores]:
    """Keep the scores of the episodes that can be debiased; prints how many cannot."""
    known = {score.segment for score in static}
    lacking = {score.segment.episode_index for score in scores if score.segment not in known}
    if lacking:
        console.print(
            f"left without rewards: {len(lacking)} of the episodes that earlier runs scored, which "
            "have no static control; run again without --episodes to score it"
        )
    return [score for score in scores if score.segment.episode_index not in lacking]


def describe_debiasing(scores: Sequence[PrefixScores], static: Sequence[PrefixScores]) -> str:
    """Say what debiasing does to the mean VOC of the real videos."""
    before = mean_defined([voc(score.log_prob_true) for score in scores])
    after = mean_defined([voc(curve) for curve in debias_static(scores, static)])
    return f"VOC {before:.2f} -> {after:.2f} of the real videos, their static curves subtracted"
