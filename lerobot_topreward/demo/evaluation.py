"""How well rewards agree with the simulator's truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot_topreward.judging.metrics import mean_defined, rise, roc_auc, success_score, voc
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.simulation.truth import Truth


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The demo's four numbers; nan where undefined."""

    successes: int  # episodes that truly succeed
    failures: int  # episodes that do not
    voc: float  # mean over successes, -1..1
    auc: float  # of success scores, 0..1
    static_voc: float  # mean over the static controls whose curve is not constant, -1..1
    static_rise: float  # mean rise of static controls over mean real rise of successes, a share


def evaluate(
    real: Sequence[PrefixScores], static: Sequence[PrefixScores], truth: Mapping[int, Truth]
) -> Evaluation:
    """Compare scored prefixes with the truth.

    The share that statics rise compares means over all episodes: a single episode's real rise may
    be close to nothing. `static` are scores of the same episodes with their first frame repeated;
    `truth` is by episode index.

    Raises:
        ValueError: nothing was scored, or an episode has no truth.
    """
    if not real:
        raise ValueError("real must hold at least one scored episode; got none")
    unknown = sorted({scores.segment.episode_index for scores in real} - set(truth))
    if unknown:
        raise ValueError(f"episodes {unknown} have no truth")
    success = np.array([truth[scores.segment.episode_index].success for scores in real])
    curves = [scores.log_prob_true for scores in real]
    good = [curve for curve, succeeds in zip(curves, success, strict=True) if succeeds]
    still = [scores.log_prob_true for scores in static]
    climbed = mean_defined([rise(curve) for curve in good]) or float("nan")
    return Evaluation(
        successes=len(good),
        failures=len(real) - len(good),
        voc=mean_defined([voc(curve) for curve in good]),
        auc=roc_auc(np.array([success_score(curve) for curve in curves]), success),
        static_voc=mean_defined([voc(curve) for curve in still]),
        static_rise=mean_defined([rise(curve) for curve in still]) / climbed,
    )
