"""The weighting schemes: each a frozen class with its options and its formula.

`scheme.weights(labels, chunk=...)` turns the labels of some frames into their raw weights;
`frame_weights.weigh` scales them, and gives frames without a label theirs. A new scheme is one more
class like these and its place in `SCHEMES`: its options, help and messages follow from it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.advantages import LEAST_SPREAD, gain_beyond_usual, standardize
from lerobot_topreward.train.base_scheme import (
    ProgressScheme,
    Scheme,
    require_positive,
    require_range,
)
from lerobot_topreward.train.records import (
    FrameLabels,
    prefix_gain,
    progress_gain,
    span_frames,
    success_scores,
)


@dataclass(frozen=True, kw_only=True)
class Uniform(Scheme):
    """Ones: plain behavior cloning."""

    name = "uniform"
    if_all_zero = if_almost_nothing = "raise `weighting.unlabelled_weight`"

    def weights(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """See `Scheme.weights`."""
        return np.ones(len(labels.index), dtype=np.float32)

    def describe(self, *, chunk: int, fps: float) -> str:
        """See `Scheme.describe`."""
        return "plain behavior cloning"


@dataclass(frozen=True, kw_only=True)
class Awr(ProgressScheme):
    """Advantage-weighted regression: ``clip(exp(z / beta), w_min, w_max)``.

    z is the advantage minus its mean, divided by its standard deviation, so that beta means the
    same whatever the span and the task. Where the advantage is constant, z = 0. See `advantages` for
    ``baseline=stage``. Source: the weight ``exp(A / beta)`` with an upper limit is that of Peng et
    al., Advantage-Weighted Regression, https://arxiv.org/abs/1910.00177; their A is a return minus
    a learned value.
    """

    name = "awr"
    if_all_zero = "raise `weighting.beta` or `weighting.w_min`"
    if_nearly_equal = (
        "lower `weighting.beta`, or give a longer `weighting.horizon`; with "
        "`weighting.horizon=episode`, label with `normalize=task`"
    )
    if_almost_nothing = "raise `weighting.beta`, or lower `weighting.w_max`"
    if_capped = "raise `weighting.w_max`, or `weighting.beta`"
    if_task_is_lost = "standardize each task alone with `weighting.per=task`"
    cap = "w_max"

    beta: float = 0.5  # temperature, standard deviations of the advantage
    w_min: float = 0.0  # smallest weight before normalization
    w_max: float = 20.0  # largest weight before normalization
    per: Literal["dataset", "task"] = "dataset"  # what the advantage is standardized over
    # What a gain is compared with: the mean of all frames, or what is usual from the same progress
    # on (stage). auto: stage with horizon=episode where no horizon is given and the labels are
    # normalized per task, the mean otherwise.
    baseline: Literal["auto", "mean", "stage"] = "auto"
    # With horizon=episode: the share of its worth that final progress keeps for each second until it
    # is reached, 0..1; by default all of it.
    discount: float | None = None

    def __post_init__(self) -> None:
        """Refuse options that break a rule."""
        if self.horizon != "episode" or self.baseline == "mean":
            super().__post_init__()
        to_end = self.horizon == "episode" or (self.horizon is None and self.baseline == "auto")
        if self.discount is not None and not to_end:
            raise UserError(
                "`weighting.discount` discounts the final progress, so it goes with "
                f"`weighting.horizon=episode` only; got {self.discount:g}. Leave it out, or give both"
            )
        require_range("discount", self.discount, low=0, high=1)
        require_positive(discount=self.discount, beta=self.beta, w_max=self.w_max)
        require_range("w_min", self.w_min, low=0)
        if self.w_min > self.w_max:
            raise UserError(
                f"`weighting.w_min` must be <= `weighting.w_max`; got {self.w_min} > {self.w_max}"
            )

    def weights(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """See `Scheme.weights`."""
        settled = self.settle(labels)
        group = labels.task_index if self.per == "task" else np.zeros_like(labels.task_index)
        if settled.baseline == "stage":
            span = settled.gain_frames(chunk=chunk, fps=labels.fps)
            gain = gain_beyond_usual(labels, group, horizon=span, discount=self.discount)
        else:
            gain = settled.gain(labels, chunk=chunk).astype(np.float64)
        least = LEAST_SPREAD if settled.horizon == "episode" else 0.0
        exponent = standardize(gain, group, least=least) / self.beta
        # exp(700) is still finite, and far beyond any sensible limit.
        weights = np.clip(np.exp(np.minimum(exponent, 700.0)), self.w_min, self.w_max)
        return weights.astype(np.float32)

    def settle(self, labels: FrameLabels) -> "Awr":
        """See `Scheme.settle`.

        Where episodes compare, what won in docs/weighted_bc.md. Where progress is scaled per
        episode, those that stop halfway end near 1 as well, and nothing was measured.
        """
        if self.baseline != "auto":
            return self
        to_end = self.horizon == "episode" or (
            self.horizon is None and (labels.normalize == "task" or self.discount is not None)
        )
        if to_end:
            return replace(self, baseline="stage", horizon="episode")
        return replace(self, baseline="mean")

    @property
    def stationary(self) -> Literal["keep", "drop"]:
        """See `Scheme.stationary`.

        Dropping them by stage is what docs/weighted_bc.md measured: better with ACT, as good with
        Diffusion.
        """
        return "drop" if self.baseline == "stage" and self.horizon == "episode" else "keep"

    def explain(self, labels: FrameLabels) -> str | None:
        """See `Scheme.explain`."""
        if self.baseline != "auto" or self.horizon is not None or self.discount is not None:
            return None
        best = "`weighting.baseline=stage` with `weighting.horizon=episode`"
        if labels.normalize == "task":
            still = "" if labels.idle is None else ", without frames that stand still"
            return f"default for labels that are normalized per task: {best}{still}"
        made = "are normalized per episode" if labels.normalize else "do not say how they were made"
        return (
            f"default for labels that {made}: `weighting.baseline=mean` over the action chunk. What "
            f"did better where it was measured is {best}, for labels "
            "that are normalized per task: the same lerobot-topreward label with `normalize=task`, "
            "which asks no VLM for scores that are stored"
        )

    def describe(self, *, chunk: int, fps: float) -> str:
        """See `Scheme.describe`."""
        to_end = self.horizon == "episode"
        what = "final progress" if to_end else super().describe(chunk=chunk, fps=fps)
        return f"{what}, beyond the usual" if self.baseline == "stage" else what


@dataclass(frozen=True, kw_only=True)
class TopAwr(ProgressScheme):
    """TOPReward's weights: ``clip(tau exp(increment - its mean), 0, delta_max)``.

    Source: arXiv 2602.19313, Eq. 3. Its section 5.3 turns values into advantages "by subtracting
    the dataset mean": here that of the increments, before the exponential, which makes an advantage
    of the increment as AWR wants. Eq. 3 as printed differs by a factor, which `tau` can hold.
    """

    name = "top-awr"
    if_all_zero = "raise `weighting.tau`"
    if_nearly_equal = (
        "the paper's defaults do this: give a longer `weighting.span`, or use "
        "`weighting.scheme=awr`"
    )
    if_almost_nothing = "lower `weighting.delta_max`"
    if_capped = "lower `weighting.tau` below `weighting.delta_max`"
    cap = "delta_max"

    tau: float = 2.0  # factor before the exponential
    delta_max: float = 2.0  # largest weight
    span: Literal["prefix", "chunk"] | float = "chunk"  # of the increment; or seconds

    def __post_init__(self) -> None:
        """Refuse options that break a rule."""
        super().__post_init__()
        span = None if isinstance(self.span, str) else self.span
        require_positive(tau=self.tau, delta_max=self.delta_max, span=span)
        if self.horizon is not None and self.span != "chunk":
            raise UserError(
                f"`weighting.horizon` and `weighting.span={self.span}` both give the span of "
                "top-awr; leave one of them out"
            )

    def weights(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """See `Scheme.weights`."""
        if self.span == "prefix":
            increment = prefix_gain(labels)
        elif self.span == "chunk":
            increment = self.gain(labels, chunk=chunk)
        else:
            horizon = span_frames("span", self.span, fps=labels.fps)
            increment = progress_gain(labels, horizon=horizon)
        increment = increment.astype(np.float64)
        increment -= increment.mean()
        return np.clip(self.tau * np.exp(increment), 0.0, self.delta_max).astype(np.float32)

    def gain_frames(self, *, chunk: int, fps: float) -> int | None:
        """See `Scheme.gain_frames`."""
        if self.span == "prefix":
            return None
        if self.span == "chunk":
            return super().gain_frames(chunk=chunk, fps=fps)
        return span_frames("span", self.span, fps=fps)

    def describe(self, *, chunk: int, fps: float) -> str:
        """See `Scheme.describe`."""
        if self.span == "prefix":
            return "progress from one scored prefix to the next"
        if self.span == "chunk":
            return super().describe(chunk=chunk, fps=fps)
        return f"progress over {self.span:g} s"


@dataclass(frozen=True, kw_only=True)
class Rabc(ProgressScheme):
    """Reward-aligned behavior cloning: nothing for lost progress, all for more than `kappa`.

    ``w~ = clip((d - (mu - 2 sigma)) / (4 sigma + epsilon), 0, 1)``; w = 1 if d > kappa, w~ if
    0 <= d <= kappa, else 0; with mu at least 0 and sigma at least epsilon. d is the progress gained
    over the horizon, which shrinks at the end of an episode. Source: SARM
    (https://arxiv.org/abs/2509.25358), Eq. 8-9, as in LeRobot's ``RABCWeights``
    (``lerobot/rewards/sarm/rabc.py``): d in float64, across changes of the instruction, the
    statistics in float64, the weights in float32, normalized over each batch.
    """

    name = "rabc"
    normalize = "batch"
    if_nearly_equal = "raise `weighting.kappa`, or use `weighting.scheme=awr`"
    if_almost_nothing = "lower `weighting.kappa`, or give a longer `weighting.horizon`"
    if_capped = None  # most frames are meant to have the full weight
    cap = 1.0

    kappa: float = 0.01  # progress gained that earns the full weight, 0..1
    epsilon: float = 1e-6  # keeps the division finite

    def __post_init__(self) -> None:
        """Refuse options that break a rule."""
        super().__post_init__()
        require_positive(epsilon=self.epsilon)
        require_range("kappa", self.kappa, low=0, high=1)

    def weights(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """See `Scheme.weights`."""
        horizon = self.horizon_frames(chunk=chunk, fps=labels.fps)
        gains = []
        for rows in labels.episodes():
            progress = labels.progress[rows].astype(np.float64)
            ahead = np.minimum(np.arange(len(progress)) + horizon, len(progress) - 1)
            gains.append(progress[ahead] - progress)
        gain = np.concatenate(gains)
        mean = max(float(np.mean(gain)), 0.0)
        spread = max(float(np.std(gain)), self.epsilon)
        delta = gain.astype(np.float32)
        soft = np.clip((delta - (mean - 2 * spread)) / (4 * spread + self.epsilon), 0.0, 1.0)
        soft = np.where(delta >= 0, soft, np.float32(0))
        return np.where(delta > self.kappa, np.float32(1), soft)


@dataclass(frozen=True, kw_only=True)
class Filter(ProgressScheme):
    """Filtered behavior cloning: 1 for what is at or above the limit, else 0.

    The limit is `threshold`, or the quantile of what is judged: frames by their advantage, or whole
    episodes by their success score. A quantile of episodes counts each once, however long it is.
    """

    name = "filter"
    keeps_episodes = False
    if_all_zero = "lower `weighting.threshold`, or give `weighting.quantile` instead"
    if_nearly_equal = "raise `weighting.threshold` or `weighting.quantile`"
    if_almost_nothing = if_task_is_lost = "lower `weighting.threshold` or `weighting.quantile`"

    by: Literal["advantage", "success"] = "success"  # frames by advantage, or whole episodes
    threshold: float | None = None  # keep what is at least this; progress gained, or nats
    quantile: float | None = None  # keep what is at least this quantile, 0..1

    def __post_init__(self) -> None:
        """Refuse options that break a rule."""
        super().__post_init__()
        require_range("quantile", self.quantile, low=0, high=1)
        if (self.threshold is None) == (self.quantile is None):
            raise UserError(
                "`weighting.scheme=filter` must have one of `weighting.threshold` and "
                f"`weighting.quantile`; got {'neither' if self.threshold is None else 'both'}"
            )
        if self.by == "success" and self.horizon is not None:
            raise UserError(
                f"`weighting.horizon={self.horizon}` is the span of the advantage, which "
                "`weighting.by=success` does not use; leave one of them out"
            )
        if self.by == "success" and self.threshold is not None and self.threshold > 0:
            raise UserError(
                "`weighting.threshold` must be <= 0 with `weighting.by=success`, a log-probability "
                f"in nats; got {self.threshold}"
            )
        if self.by == "advantage" and self.threshold is not None and abs(self.threshold) > 1:
            raise UserError(
                "`weighting.threshold` must be -1..1 with `weighting.by=advantage`, progress "
                f"gained; got {self.threshold}"
            )

    def weights(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """See `Scheme.weights`."""
        by_episode = self.by == "success"
        score = success_scores(labels) if by_episode else self.gain(labels, chunk=chunk)
        if self.quantile is None:
            passed = score >= self.threshold  # in the precision of the score
        else:
            passed = score >= np.quantile(score.astype(np.float64), self.quantile)
        if by_episode:
            passed = np.repeat(passed, [rows.stop - rows.start for rows in labels.episodes()])
        return passed.astype(np.float32)

    def gain_frames(self, *, chunk: int, fps: float) -> int | None:
        """See `Scheme.gain_frames`."""
        return None if self.by == "success" else super().gain_frames(chunk=chunk, fps=fps)

    def describe(self, *, chunk: int, fps: float) -> str:
        """See `Scheme.describe`."""
        if self.by == "success":
            return "success of whole episodes"
        return super().describe(chunk=chunk, fps=fps)


SCHEMES: dict[str, type[Scheme]] = {c.name: c for c in (Awr, TopAwr, Rabc, Filter, Uniform)}
