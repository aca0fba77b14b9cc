"""The summary of the weights as it is printed: at most 80 columns, whatever the dataset."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lerobot_topreward.train.summary import QUANTILES, GroupSummary, WeightSummary, percent

_ENDS = 5  # lowest and highest rows of a long list, each
_NAME_WIDTH = 34  # of a task, characters


def summary_table(summary: WeightSummary) -> RenderableType:
    """Lay out a summary for a terminal of 80 columns.

    Tasks and episodes are listed where their weights differ, at most ten of each: the lowest and
    the highest by their weight per frame.
    """
    parts: list[RenderableType] = [_facts(summary)]
    for what, groups in (("task", summary.tasks), ("episode", summary.episodes)):
        ratios = [group.relative for group in groups]
        if max(ratios) - min(ratios) > 1e-6:
            parts += [Text(), _table(what, groups)]
    for warning in summary.warnings:
        parts += [Text(), Text(f"Warning: {warning}", style="yellow")]
    return Group(*parts)


def _facts(summary: WeightSummary) -> Table:
    overall = summary.overall
    silent = sum(episode.maximum == 0 for episode in summary.episodes)
    quantiles = ", ".join(f"{value:.3g}" for value in overall.quantiles)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    rows = {
        "frames": f"{overall.frames} in {len(summary.episodes)} episodes",
        "effective sample size": (
            f"{overall.effective:.0f} frames, {percent(overall.effective_share)}"
        ),
        "weigh nothing": f"{percent(overall.zero_share)} of the frames; whole episodes: {silent}",
        "at the cap": f"{percent(overall.capped_share)} of the frames",
        "lowest, mean, highest": (
            f"{overall.minimum:.3g}, {overall.mean:.3g}, {overall.maximum:.3g}"
        ),
        f"at {', '.join(f'{q:.0%}' for q in QUANTILES)}": quantiles,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _table(what: str, groups: Sequence[GroupSummary]) -> Table:
    """One row per task or episode, from the lowest weight per frame to the highest."""
    table = Table(box=None, pad_edge=False)
    if what == "task":
        table.add_column(what, no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    else:
        table.add_column(what, justify="right")
    for title in ("frames", "x average", "effective", "at 0", "at cap"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in _ends(groups):
        table.add_row(
            Text(group.name),
            f"{group.frames}",
            f"{group.relative:.2f}",
            percent(group.effective_share),
            percent(group.zero_share),
            percent(group.capped_share),
        )
    if len(groups) > 2 * _ENDS:
        table.caption = f"the {_ENDS} lowest and the {_ENDS} highest of {len(groups)} {what}s"
        table.caption_justify = "left"
    return table


def _ends(groups: Sequence[GroupSummary]) -> list[GroupSummary]:
    """All of a short list, the two ends of a long one."""
    ascending = sorted(groups, key=lambda group: (group.relative, group.key))
    if len(ascending) <= 2 * _ENDS:
        return ascending
    return [*ascending[:_ENDS], *ascending[-_ENDS:]]
