"""The evaluation as tables for a terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console

from lerobot_topreward.console import number, shorten, text_table
from lerobot_topreward.errors import UserError
from lerobot_topreward.evaluate.summary import (
    GroupSummary,
    GvlSummary,
    SuccessSummary,
)
from lerobot_topreward.judging.controls import ControlSummary, CurveSummary, judge_control
from lerobot_topreward.judging.episode_metrics import METRICS
from lerobot_topreward.judging.findings import count_levels
from lerobot_topreward.judging.formulas import FormulaComparison
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.intervals import Estimate
from lerobot_topreward.records import EpisodeMetrics

WORST = 10  # episodes listed
_OTHER_COLUMNS = 70  # characters beside an instruction
# A line has room for some metrics only.
_BY_TASK = ("success_score", "final_progress", "voc", "seconds_to_90", "longest_stall", "regress")
_BY_EPISODE = ("success_score", "final_progress", "voc", "longest_stall", "regress")
_CONTROL_VIDEOS = {
    "static": "the first frame repeated",
    "reversed": "the video backwards",
    "swapped": "another task's instruction",
}


def print_groups(groups: Sequence[GroupSummary], console: Console) -> None:
    """Print the dataset's means with their intervals, then those of its tasks if it has several."""
    everything = groups[-1]
    table = text_table(f"mean over {everything.episodes} episodes, with its 95 % interval")
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", style="dim")
    for metric in METRICS:
        mean = everything.means[metric.key]
        undefined = f"; undefined in {mean.undefined}" if mean.undefined else ""
        table.add_row(
            metric.label,
            f"{number(mean.value, metric.digits)} {metric.unit}".rstrip(),
            interval(mean, metric.digits),
            metric.explanation + undefined,
        )
    table.show_header = False
    console.print(table)
    if len(groups) > 2:
        table = text_table("by task", "Episodes", *_headings(_BY_TASK))
        table.add_column("Task", no_wrap=True)
        for group in groups[:-1]:
            means = {key: estimate.value for key, estimate in group.means.items()}
            task = shorten(group.name, console.width - _OTHER_COLUMNS)
            table.add_row(str(group.episodes), *_cells(_BY_TASK, means), task)
        console.print(table)


def print_worst(
    metrics: Sequence[EpisodeMetrics], success: Mapping[int, bool], console: Console
) -> None:
    """Print the episodes with the lowest success scores."""
    worst = sorted(metrics, key=lambda episode: episode.success_score)[:WORST]
    title = "episodes" if len(worst) == len(metrics) else f"the {len(worst)} worst episodes"
    known = ["OK"] if success else []
    headings = ("Episode", *_headings(_BY_EPISODE), "Length, s", *known)
    table = text_table(f"{title}, by success score", *headings)
    table.add_column("Task", no_wrap=True)
    for episode in worst:
        outcome = {None: "?", True: "yes", False: "no"}[success.get(episode.episode_index)]
        table.add_row(
            str(episode.episode_index),
            *_cells(_BY_EPISODE, {key: getattr(episode, key) for key in _BY_EPISODE}),
            number(episode.seconds, 1),
            *([outcome] if success else []),
            shorten(episode.task, console.width - _OTHER_COLUMNS),
        )
    console.print(table)


def _headings(keys: Sequence[str]) -> list[str]:
    metrics = {metric.key: metric for metric in METRICS}
    units = {"s": ", s"}  # nats are said above
    return [metrics[key].short + units.get(metrics[key].unit, "") for key in keys]


def _cells(keys: Sequence[str], values: Mapping[str, float]) -> list[str]:
    digits = {metric.key: metric.digits for metric in METRICS}
    return [number(values[key], digits[key]) for key in keys]


def print_success(found: SuccessSummary | None, console: Console) -> None:
    """Print whether rewards tell success from failure, or that nothing is known of success."""
    if found is None:
        console.print(
            "success: no labels, so no AUC. They can come from next.success, next.reward, a column "
            "success in meta/episodes, or `success_file=FILE.csv` (episode_index,success)"
        )
        return
    console.print(
        f"success, from {found.origin}: {found.successes} succeeded, {found.failures} failed"
        + (f", {found.unknown} unknown" if found.unknown else "")
    )
    if math.isnan(found.auc.value):
        console.print("  all alike, so no AUC")
        return
    auc = f"{number(found.auc.value)} {interval(found.auc)}".rstrip()
    console.print(f"  ROC-AUC of the success score  {auc}")
    console.print(
        f"  VOC of successes {number(found.voc_successes.value)}, of failures "
        f"{number(found.voc_failures.value)}: where they are alike, VOC does not see failure"
    )
    if (line := found.threshold) is None:
        console.print("  too few of one outcome to suggest a threshold")
        return
    console.print(
        f"  suggested: keep a success score of at least {number(line.value)} "
        f"(precision {number(line.precision)}, recall {number(line.recall)} in "
        f"{line.folds}-fold cross-validation)"
    )


def interval(estimate: Estimate, decimals: int = 2) -> str:
    """An estimate's interval; empty where undefined."""
    if math.isnan(estimate.low):
        return ""
    return f"[{number(estimate.low, decimals)}, {number(estimate.high, decimals)}]"


def print_controls(controls: Sequence[ControlSummary], console: Console) -> None:
    """Print each control under the real videos of the same episodes, and what follows from it."""
    if not controls:
        console.print(
            "controls: none was scored. Without them a rising curve proves nothing: "
            "`controls=static,reversed,swapped`"
        )
        return
    table = text_table("controls, against the real videos of the same episodes")
    table.add_column("", no_wrap=True)
    for heading in ("VOC", "Success", "Rise", "Rise / real rise", "Final score below real"):
        table.add_column(heading, justify="right", min_width=6)

    def cells(curve: CurveSummary) -> list[str]:
        undefined = f" ({curve.voc_undefined} undefined)" if curve.voc_undefined else ""
        return [f"{number(curve.voc)}{undefined}", number(curve.success_score), number(curve.rise)]

    real: CurveSummary | None = None
    for control in controls:
        if control.real != real:  # the sample may differ from control to control
            real = control.real
            name = f"the real videos of {control.episodes}"
            table.add_row(name, *cells(real), "", "")
        shares = [_share(share) for share in (control.share, control.real_above)]
        name = _CONTROL_VIDEOS[control.control]
        table.add_row(name, *cells(control.other), *shares)
    console.print(table)
    console.print(
        f"of {controls[0].formula.words}: success, the mean of the last three prefixes; rise, that "
        "over the first; final score below real: share of episodes"
    )
    for control in controls:
        console.print(f"{control.control}: {judge_control(control).text}")


def print_formulas(found: FormulaComparison, console: Console) -> None:
    """Print what every formula makes of the same scores, and which one the evidence favors."""
    counts = {row.episodes for row in found.rows}
    table = text_table(f"formulas, on the stored scores of {max(counts)} episodes")
    table.add_column("", no_wrap=True)
    for heading in ("VOC", "Static VOC", "Static rise", "Rev. rise", "AUC"):
        table.add_column(heading, justify="right", no_wrap=heading in ("VOC", "AUC"))
    for row in found.rows:
        fewer = f" ({row.episodes})" if row.episodes < max(counts) else ""
        table.add_row(
            row.formula.name + fewer,
            _short(row.voc),
            number(row.static_voc).replace("0.", "."),
            *(_share(share) for share in (row.static_share, row.reversed_share)),
            _short(row.auc),
        )
    console.print(table)
    console.print(
        "rise: of the control (rev.: reversed) under the same formula, as a share of the real rise"
    )
    console.print(f"formula: {found.sentence}")
    for remark in found.remarks:
        console.print(f"  {remark}")


def _short(estimate: Estimate) -> str:
    """An estimate and its interval without zeros before the point, for terminals of 80 columns."""
    return f"{number(estimate.value)} {interval(estimate)}".rstrip().replace("0.", ".")


def _share(share: float) -> str:
    return "-" if math.isnan(share) else f"{round(100 * share)}%"


def print_gvl(found: GvlSummary | None, console: Console) -> None:
    """Print GVL's order beside the reward's, and how many of its answers could not be used."""
    if found is None:
        return
    console.print(
        f"baseline GVL: {found.usable} of {found.segments} answers keep to the format"
        + "".join(f"; {count} break '{rule}'" for rule, count in found.reasons.items())
    )
    if found.usable:
        console.print(
            f"  VOC of its percentages {number(found.voc.value)} {interval(found.voc)}, undefined in "
            f"{found.voc.undefined}; of log P(True) in the same episodes "
            f"{number(found.voc_reward.value)} {interval(found.voc_reward)}"
        )


def print_recording(found: Inspection | UserError, console: Console) -> None:
    """Print how much the recording says against itself, or that it cannot be inspected."""
    if isinstance(found, UserError):
        console.print(f"recording: not checked, since {found}", style="yellow")
        return
    counts = count_levels(found.findings)
    if counts["broken"] or counts["suspect"]:
        console.print(
            f"recording: {counts['broken']} broken, {counts['suspect']} suspect; "
            "lerobot-topreward check says more",
            style="yellow" if counts["broken"] else None,
        )
