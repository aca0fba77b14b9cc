"""What weights will do to training, before it starts: how much data is left, and of what."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lerobot_topreward.console import spell_options
from lerobot_topreward.judging.profile import LEAST_EPISODES
from lerobot_topreward.train.draws import BatchWorth
from lerobot_topreward.train.records import FrameLabels, FrameWeights, list_first
from lerobot_topreward.train.schemes import Scheme

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# Shares of the frames beyond which weights deserve a warning.
_NEARLY_EQUAL = 0.99
_ALMOST_NOTHING = 0.1
_MOSTLY_ZERO = 0.9
_MOSTLY_CAPPED = 0.5
_LONG_SPAN = 1 / 3  # of the median episode
_FOLLOWS_LENGTH = 0.3  # rank correlation
_BY_CHANCE = 0.05  # p-value from which on a rank correlation says nothing
_ENDS = 5  # lowest and highest rows of a long list, each
_NAME_WIDTH = 34  # of a task, characters
_SHORTER = (
    "give a shorter `weighting.horizon`, in seconds, or compare how episodes end: "
    "`weighting.scheme=awr`, `weighting.baseline=stage` and `weighting.horizon=episode`"
)
_COUNTS_TIME = (
    "the rewards may count time: look at the static control of `lerobot-topreward evaluate`"
)


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """The weights of some frames: all, those of a task, or those of an episode."""

    key: int  # task or episode index; 0 for all
    name: str
    frames: int
    effective: float  # effective sample size, (sum w)^2 / sum w^2, frames
    relative: float  # weight of a frame over that of all frames: 1 is average
    zero_share: float  # of its frames that weigh nothing (`FrameWeights.nothing`), 0..1
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
    stationary: int | None = None  # frames that weigh nothing because they stand still
    worth: BatchWorth | None = None


def summarize(
    labels: FrameLabels,
    weights: FrameWeights,
    *,
    scheme: Scheme,
    chunk: int | None = None,
    worth: BatchWorth | None = None,
) -> WeightSummary:
    """Summarize the weights of the frames that are trained on.

    Where weights are normalized per batch, these are the raw ones: the batches see them in this
    proportion only on average. The warnings name the options of the scheme that help. `chunk` is the
    policy's action chunk, frames, without which nothing is said of how long a span is.

    Raises:
        ValueError: labels and weights are not of the same frames, or all weights are zero.
    """
    if not np.array_equal(labels.index, weights.index):
        raise ValueError("labels and weights must be of the same frames")
    if not weights.weight.any():
        raise ValueError("a weight must be positive; all are zero")
    (overall,) = _summarize_groups(weights, np.zeros_like(weights.index), {0: "all frames"})
    tasks = _summarize_groups(weights, labels.task_index, labels.tasks)
    episodes = _summarize_groups(weights, labels.episode_index, {})
    labeled = set(labels.episode_index[labels.labelled].tolist())
    still = None if weights.stationary is None else int(weights.stationary.sum())
    warnings = [*_warn(overall, tasks, episodes, scheme, labeled=labeled, still=still or 0)]
    lengths = np.array([episode.frames for episode in episodes])
    if chunk is not None:
        warnings += _warn_of_span(lengths, scheme, chunk=chunk, fps=labels.fps)
    # What is dropped because it stands still says nothing about rewards.
    moving = np.ones(len(labels.index)) if weights.stationary is None else ~weights.stationary
    _, rows = np.unique(labels.episode_index, return_inverse=True)
    count = np.bincount(rows, weights=moving)
    left = count > 0
    means = np.bincount(rows, weights=weights.weight * moving)[left] / count[left]
    by_gain = scheme.gain_frames(chunk=chunk or 1, fps=labels.fps) is not None
    warnings += _warn_of_lengths(lengths[left], means, advice=_SHORTER if by_gain else _COUNTS_TIME)
    return WeightSummary(overall, tasks, episodes, tuple(warnings), still, worth)


def _summarize_groups(
    weights: FrameWeights, keys: Int64[np.ndarray, " frames"], names: Mapping[int, str]
) -> tuple[GroupSummary, ...]:
    """Summarize the frames of each key, in the order of the keys."""
    # Sorted by key and then by weight: each group is a run of rows whose weights ascend, so that
    # the first and last are its extremes and quantiles lie in between.
    order = np.lexsort((weights.weight, keys))
    found, start = np.unique(keys[order], return_index=True)
    mean_of_all = float(np.mean(weights.weight[order], dtype=np.float64))
    nothing = weights.nothing  # of all frames, so once
    groups = []
    for key, rows in zip(found.tolist(), np.split(order, start[1:]), strict=True):
        weight, frames = weights.weight[rows].astype(np.float64), len(rows)
        total, squares = float(weight.sum()), float(weight @ weight)
        # Linear between neighbors, as np.quantile, which would sort again.
        quantiles = np.interp(np.array(QUANTILES) * (frames - 1), np.arange(frames), weight)
        groups.append(
            GroupSummary(
                key=key,
                name=names.get(key, str(key)),
                frames=frames,
                effective=total**2 / squares if squares > 0 else 0.0,
                relative=total / frames / mean_of_all,
                zero_share=float(np.mean(nothing[rows])),
                capped_share=float(np.mean(weights.capped[rows])),
                mean=total / frames,
                minimum=float(weight[0]),
                maximum=float(weight[-1]),
                quantiles=tuple(quantiles.tolist()),
            )
        )
    return tuple(groups)


def _warn(
    overall: GroupSummary,
    tasks: Sequence[GroupSummary],
    episodes: Sequence[GroupSummary],
    scheme: Scheme,
    *,
    labeled: Collection[int],
    still: int,
) -> Iterator[str]:
    share, zero = percent(overall.effective_share), percent(overall.zero_share)
    kept = overall.effective / (overall.frames - still)
    if kept > _NEARLY_EQUAL:
        if scheme.if_nearly_equal is not None:
            of_what = "frames that move" if still else "frames"
            yield (
                f"the weights are nearly equal (effective sample size {percent(kept)} of the "
                f"{of_what}), so this trains like plain behavior cloning; {scheme.if_nearly_equal}"
            )
    elif overall.effective_share < _ALMOST_NOTHING or overall.zero_share > _MOSTLY_ZERO:
        yield (
            f"almost nothing is left: {overall.frames} frames count as {overall.effective:.0f} "
            f"(effective sample size {share}), and {zero} weigh nothing; {scheme.if_almost_nothing}"
        )
    if overall.capped_share > _MOSTLY_CAPPED and scheme.if_capped is not None:
        yield (
            f"{percent(overall.capped_share)} of the frames are at the cap, above which weights do "
            f"not tell them apart; {scheme.if_capped}"
        )
    if lost := [repr(task.name) for task in tasks if task.zero_share == 1]:
        advice = f"; {scheme.if_task_is_lost}" if scheme.if_task_is_lost else ""
        yield (
            f"tasks without any weight, which the policy will not learn: {len(lost)} of "
            f"{len(tasks)} ({list_first(lost)}){advice}"
        )
    lost = [str(e.key) for e in episodes if e.zero_share == 1 and e.key in labeled]
    if lost and scheme.keeps_episodes:
        yield f"episodes without any weight: {len(lost)} of {len(episodes)} ({list_first(lost)})"


def _warn_of_span(
    lengths: Int64[np.ndarray, " episodes"], scheme: Scheme, *, chunk: int, fps: float
) -> Iterator[str]:
    """Long spans end with the episode, so that short episodes gain more in them."""
    span, median = scheme.gain_frames(chunk=chunk, fps=fps), float(np.median(lengths))
    if span is not None and span > _LONG_SPAN * median:
        yield (
            f"progress is compared over {span} frames ({span / fps:.2g} s), more than a third of the "
            f"median episode ({median:.0f} frames), so short episodes weigh more; {_SHORTER}"
        )


def _warn_of_lengths(
    lengths: Int64[np.ndarray, " episodes"],
    means: Float64[np.ndarray, " episodes"],
    *,
    advice: str,
) -> Iterator[str]:
    """Weights that follow length may reward speed, or a VLM that counts time."""
    from scipy.stats import spearmanr  # --help need not wait for it

    if len(lengths) < LEAST_EPISODES or np.ptp(lengths) == 0 or np.ptp(means) == 0:
        return
    found: Any = spearmanr(lengths, means)
    if abs(found.statistic) > _FOLLOWS_LENGTH and found.pvalue < _BY_CHANCE:
        more = "longer" if found.statistic > 0 else "shorter"
        yield (
            f"weights follow the length of episodes (rank correlation {found.statistic:.2f}): "
            f"{more} ones weigh more. Unless these are the better ones, {advice}"
        )


def percent(share: float) -> str:
    """A share of 0..1 as a percentage; 0% and 100% are exact, but for rounding errors."""
    share = round(share, 9)
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    return ">99.9%" if share > 0.999 else f"{share:.1%}"


def list_facts(summary: WeightSummary) -> dict[str, str]:
    """Say in words what weights do to all frames together, by what it is."""
    overall = summary.overall
    empty = sum(episode.zero_share == 1 for episode in summary.episodes)
    facts = {
        "frames": f"{overall.frames} in {len(summary.episodes)} episodes",
        "effective sample size": (
            f"{overall.effective:.0f} frames, {percent(overall.effective_share)}"
        ),
        "weigh nothing (<.01 mean)": f"{percent(overall.zero_share)} of the frames; whole episodes: {empty}",
        "at the cap": f"{percent(overall.capped_share)} of the frames",
        "lowest, mean, highest": (
            f"{overall.minimum:.3g}, {overall.mean:.3g}, {overall.maximum:.3g}"
        ),
        f"at {', '.join(f'{q:.0%}' for q in QUANTILES)}": (
            ", ".join(f"{value:.3g}" for value in overall.quantiles)
        ),
    }
    if summary.stationary is not None:
        share = percent(summary.stationary / overall.frames)
        facts["stationary, so dropped"] = f"{summary.stationary} frames, {share}"
    if (worth := summary.worth) is not None:
        facts |= {
            f"a batch of {worth.batch} is worth": (
                f"{worth.by_loss:.1f} frames by loss, {worth.by_sampling:.1f} by sampling"
            ),
            "frames seen in an epoch": (
                f"{percent(worth.distinct / worth.frames)} of those that can be drawn, by sampling"
            ),
        }
    return facts


def summary_table(summary: WeightSummary) -> RenderableType:
    """Lay out a summary for a terminal of 80 columns, whatever the dataset.

    Tasks and episodes are listed where their weights differ, at most ten of each: the lowest and
    the highest by their weight per frame.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in list_facts(summary).items():
        table.add_row(name, value)
    parts: list[RenderableType] = [table]
    for what, groups in (("task", summary.tasks), ("episode", summary.episodes)):
        ratios = [group.relative for group in groups]
        if max(ratios) - min(ratios) > 1e-6:
            parts += [Text(), _group_table(what, groups)]
    for warning in summary.warnings:
        parts += [Text(), Text(f"Warning: {spell_options(warning)}", style="yellow")]
    return Group(*parts)


def _group_table(what: str, groups: Sequence[GroupSummary]) -> Table:
    """One row per task or episode, from the lowest weight per frame to the highest."""
    table = Table(box=None, pad_edge=False)
    if what == "task":
        table.add_column(what, no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    else:
        table.add_column(what, justify="right")
    for title in ("frames", "x average", "effective", "at ~0", "at cap"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = sorted(groups, key=lambda group: (group.relative, group.key))
    if len(groups) > 2 * _ENDS:
        shown = [*shown[:_ENDS], *shown[-_ENDS:]]
        table.caption = f"the {_ENDS} lowest and the {_ENDS} highest of {len(groups)} {what}s"
        table.caption_justify = "left"
    for group in shown:
        table.add_row(
            Text(group.name),
            f"{group.frames}",
            f"{group.relative:.2f}",
            percent(group.effective_share),
            percent(group.zero_share),
            percent(group.capped_share),
        )
    return table
