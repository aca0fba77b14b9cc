"""What weights will do to training, before it starts: how much data is left, and of what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lerobot_topreward.train.config import Scheme
from lerobot_topreward.train.records import FrameLabels, FrameWeights

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# Shares of the frames beyond which weights deserve a warning.
_NEARLY_EQUAL = 0.99
_ALMOST_NOTHING = 0.1
_MOSTLY_ZERO = 0.9
_MOSTLY_CAPPED = 0.5
_NAMED = 8  # episodes or tasks in a warning


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """The weights of some frames: all, those of a task, or those of an episode."""

    key: int  # task or episode index; 0 for all
    name: str
    frames: int
    effective: float  # effective sample size, (sum w)^2 / sum w^2, frames
    weight_share: float  # of the weight of all frames, 0..1
    relative: float  # that share over the share of frames: 1 is average
    zero_share: float  # of its frames that weigh nothing, 0..1
    capped_share: float  # of its frames at the formula's upper limit, 0..1
    mean: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]  # at QUANTILES

    @property
    def effective_share(self) -> float:
        """Effective sample size as a share of the frames, 0..1; 1 if all weigh the same."""
        return self.effective / self.frames


@dataclass(frozen=True, slots=True)
class WeightSummary:
    """The weights of all frames that are trained on, by task, and by episode."""

    overall: GroupSummary
    tasks: tuple[GroupSummary, ...]  # by task index
    episodes: tuple[GroupSummary, ...]  # by episode index
    warnings: tuple[str, ...]


def summarize(
    labels: FrameLabels, weights: FrameWeights, *, scheme: Scheme | None = None
) -> WeightSummary:
    """Summarise the weights of the frames that are trained on.

    Where weights are normalised per batch, these are the raw ones: the batches see them in this
    proportion only on average.

    Args:
        labels: of these frames.
        weights: of these frames, not all zero.
        scheme: where they come from; its warnings then name the options that cure them.

    Raises:
        ValueError: labels and weights are not of the same frames, or all weights are zero.
    """
    if not np.array_equal(labels.index, weights.index):
        raise ValueError("labels and weights must be of the same frames")
    if not weights.weight.any():
        raise ValueError("a weight must be positive; all are zero")
    (overall,) = _groups(weights, np.zeros(len(weights.index), dtype=np.int64), {0: "all frames"})
    tasks = _groups(weights, labels.task_index, labels.tasks)
    episodes = _groups(weights, labels.episode_index, {})
    empty = np.setdiff1d(labels.episode_index, labels.episode_index[labels.labelled])
    return WeightSummary(
        overall=overall,
        tasks=tasks,
        episodes=episodes,
        warnings=(
            *_warn_of_amount(overall, scheme),
            *_warn_of_cap(overall, scheme),
            *_warn_of_silence(tasks, episodes, scheme, unlabelled=set(empty.tolist())),
        ),
    )


def _groups(
    weights: FrameWeights, keys: Int64[np.ndarray, " frames"], names: Mapping[int, str]
) -> tuple[GroupSummary, ...]:
    """Summarise the frames of each key, in the order of the keys."""
    order = np.lexsort((weights.weight, keys))
    found, start = np.unique(keys[order], return_index=True)
    weight, capped = weights.weight[order], weights.capped[order]
    mean_of_all = float(np.mean(weight, dtype=np.float64))
    edges = [*start.tolist(), len(order)]
    return tuple(
        _group(
            weight[first:stop],
            capped[first:stop],
            key=key,
            name=names.get(key, str(key)),
            mean_of_all=mean_of_all,
            total_frames=len(order),
        )
        for key, first, stop in zip(found.tolist(), edges[:-1], edges[1:], strict=True)
    )


def _group(
    ascending: Float32[np.ndarray, " frames"],
    capped: Bool[np.ndarray, " frames"],
    *,
    key: int,
    name: str,
    mean_of_all: float,
    total_frames: int,
) -> GroupSummary:
    weight = ascending.astype(np.float64)
    total, squares, frames = float(weight.sum()), float(weight @ weight), len(weight)
    # Linear between neighbours, as np.quantile, but the weights are sorted already.
    at = np.array(QUANTILES) * (frames - 1)
    quantiles = np.interp(at, np.arange(frames), weight)
    return GroupSummary(
        key=key,
        name=name,
        frames=frames,
        effective=total**2 / squares if squares > 0 else 0.0,
        weight_share=total / (mean_of_all * total_frames),
        relative=total / frames / mean_of_all,
        zero_share=float(np.mean(weight == 0)),
        capped_share=float(np.mean(capped)),
        mean=total / frames,
        minimum=float(weight[0]),
        maximum=float(weight[-1]),
        quantiles=tuple(quantiles.tolist()),
    )


_SHARPEN = {
    "awr": "lower --weighting.beta, or give a longer --weighting.horizon",
    "top-awr": "the paper's defaults do this: give a longer --weighting.span, try "
    "--weighting.centre=weight, or use --weighting.scheme=awr",
    "rabc": "raise --weighting.kappa, or use --weighting.scheme=awr",
    "filter": "raise --weighting.threshold or --weighting.quantile",
    None: "choose options that tell the frames apart",
}
_SOFTEN = {
    "awr": "raise --weighting.beta, or lower --weighting.w_max",
    "top-awr": "use --weighting.centre=increment",
    "rabc": "lower --weighting.kappa, or give a longer --weighting.horizon",
    "filter": "lower --weighting.threshold or --weighting.quantile",
    "uniform": "raise --weighting.unlabelled_weight",
    None: "choose options that keep more frames",
}
_UNCAP = {
    "awr": "raise --weighting.w_max, or --weighting.beta",
    "top-awr": "lower --weighting.tau below --weighting.delta_max",
    None: "raise the limit",
}
_KEEP_TASKS: dict[Scheme | None, str] = {
    "awr": "standardise each task alone with --weighting.per=task",
    "filter": "lower --weighting.threshold or --weighting.quantile",
}


def _warn_of_amount(overall: GroupSummary, scheme: Scheme | None) -> Sequence[str]:
    if overall.effective_share > _NEARLY_EQUAL:
        if scheme == "uniform":
            return ()
        return (
            f"the weights are nearly equal (effective sample size {percent(overall.effective_share)} "
            f"of the frames), so this trains like plain behavior cloning; {_SHARPEN[scheme]}",
        )
    if overall.effective_share < _ALMOST_NOTHING or overall.zero_share > _MOSTLY_ZERO:
        return (
            f"almost nothing is left: {overall.frames} frames count as {overall.effective:.0f} "
            f"(effective sample size {percent(overall.effective_share)}), and {percent(overall.zero_share)} "
            f"weigh nothing; {_SOFTEN[scheme]}",
        )
    return ()


def _warn_of_cap(overall: GroupSummary, scheme: Scheme | None) -> Sequence[str]:
    # RA-BC means most frames to have the full weight.
    if overall.capped_share <= _MOSTLY_CAPPED or scheme == "rabc":
        return ()
    return (
        f"{percent(overall.capped_share)} of the frames are at the cap, above which weights do not "
        f"tell them apart; {_UNCAP.get(scheme, _UNCAP[None])}",
    )


def _warn_of_silence(
    tasks: Sequence[GroupSummary],
    episodes: Sequence[GroupSummary],
    scheme: Scheme | None,
    *,
    unlabelled: set[int],
) -> Sequence[str]:
    warnings = []
    silent = [repr(task.name) for task in tasks if task.maximum == 0]
    if silent:
        cure = _KEEP_TASKS.get(scheme)
        warnings.append(
            f"tasks without any weight, which the policy will not learn: {len(silent)} of "
            f"{len(tasks)} ({_named(silent)}){f'; {cure}' if cure else ''}"
        )
    silent = [str(e.key) for e in episodes if e.maximum == 0 and e.key not in unlabelled]
    if silent and scheme != "filter":  # whose purpose this is
        warnings.append(
            f"episodes without any weight: {len(silent)} of {len(episodes)} ({_named(silent)})"
        )
    return warnings


def _named(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_NAMED])
    return listed if len(names) <= _NAMED else f"{listed}, ..."


def percent(share: float) -> str:
    """A share of 0..1 as a percentage; 0% and 100% are exact, but for rounding errors."""
    share = round(share, 9)
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    return ">99.9%" if share > 0.999 else f"{share:.1%}"
