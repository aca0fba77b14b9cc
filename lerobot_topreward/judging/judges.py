"""What the scores of one sample say of the judge that gave them, and how far two judges agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int64
from scipy.stats import rankdata

from lerobot_topreward.judging.controls import (
    ControlSummary,
    EpisodeCurves,
    compare_controls,
    measure_ends,
    measure_episodes,
)
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.intervals import Estimate, auc_estimate, mean_estimate
from lerobot_topreward.judging.judgment import Judgment, judge_reward
from lerobot_topreward.judging.metrics import mean_defined
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import label_rewards


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """A judge on a sample of episodes, by log P(True)."""

    curves: EpisodeCurves  # of the real videos
    static_curves: EpisodeCurves  # of their first frames repeated
    voc: Estimate  # -1..1
    auc: Estimate  # 0..1, of the success score; nan without both outcomes
    controls: Mapping[str, ControlSummary]  # by name, those that were scored
    censored: float  # 0..1, prefixes of the real videos where only a bound of True is known
    judgment: Judgment

    @property
    def static_share(self) -> float:
        """What the first frame repeated rises, as a share of the real rise; nan if unknown."""
        static = self.controls.get("static")
        return float("nan") if static is None else static.share


def summarize_judge(
    real: Sequence[PrefixScores],
    controls: Mapping[str, Sequence[PrefixScores]],
    *,
    success: Mapping[int, bool],
    episode_index: Int64[np.ndarray, " frames"],
    fps: float,
    dtype: str,
) -> JudgeSummary:
    """Sum up what a judge says of a sample.

    Args:
        real: scores of every segment of its episodes, control "none", ascending; at least one.
        controls: scores of the same episodes under each control, some of which may be missing.
        success: by episode, as far as it is known.
        episode_index: the episode of every frame of the dataset, ascending.
        fps: the dataset's clock, Hz.
        dtype: that the answers' logits were computed in.
    """
    rewards = label_rewards(real, episode_index, horizon=max(1, round(fps)), normalize="task")
    summaries = {
        name: compare_controls(real, scores, success=success)
        for name, scores in controls.items()
        if scores
    }
    curves, static = _measure(real), _measure(controls.get("static", ()))
    curves = replace(curves, success_score=measure_ends(real, curves).success_score)
    known = [i for i, episode in enumerate(curves.episodes) if episode in success]
    outcome = np.array([success[curves.episodes[i]] for i in known], dtype=bool)
    bounds = [
        np.zeros(len(part.prefix_length), dtype=bool)
        if part.true_censored is None
        else part.true_censored
        for part in real
    ]
    return JudgeSummary(
        curves=curves,
        static_curves=static,
        voc=mean_estimate(curves.voc),
        auc=auc_estimate(curves.success_score[known], outcome),
        controls=summaries,
        censored=float(np.concatenate(bounds).mean()),
        judgment=judge_reward(
            real,
            episode_metrics(real, rewards, fps=fps),
            controls=list(summaries.values()),
            success=success,
            dtype=dtype,
        ),
    )


def curve_agreement(one: Sequence[PrefixScores], other: Sequence[PrefixScores]) -> Estimate:
    """How far two judges order the prefixes of an episode alike, -1..1.

    Spearman's rank correlation of their log P(True) over the prefixes of a segment, averaged over
    the segments of an episode and then over the episodes that both scored, with its interval over
    episodes. It is nan where one of the curves is constant or has one value. Two judges that only
    count images agree perfectly: it says that they are alike, not that they are right.

    Args:
        one: scores of one judge, control "none".
        other: of another one, asked after the same prefixes.

    Raises:
        ValueError: a segment was asked about after other prefixes.
    """
    theirs = {scores.segment: scores for scores in other}
    episodes: dict[int, list[float]] = {}
    for scores in one:
        against = theirs.get(scores.segment)
        if against is None:
            continue
        if not np.array_equal(scores.prefix_length, against.prefix_length):
            raise ValueError(f"{scores.segment} must be scored after the same prefixes by both")
        found = _rank_correlation(scores.log_prob_true, against.log_prob_true)
        episodes.setdefault(scores.segment.episode_index, []).append(found)
    return mean_estimate([mean_defined(found) for found in episodes.values()])


def _rank_correlation(
    one: Float[np.ndarray, " prefixes"], other: Float[np.ndarray, " prefixes"]
) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _measure(scores: Sequence[PrefixScores]) -> EpisodeCurves:
    return measure_episodes(
        [part.segment.episode_index for part in scores], [part.log_prob_true for part in scores]
    )
