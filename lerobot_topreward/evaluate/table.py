"""The evaluation as tables for a terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from lerobot_topreward.console import number, shorten, text_table
from lerobot_topreward.evaluate.summary import (
    DebiasSummary,
    GroupSummary,
    GvlSummary,
    SuccessSummary,
)
from lerobot_topreward.judging.controls import ControlSummary, CurveSummary, verdict
from lerobot_topreward.judging.intervals import Estimate
from lerobot_topreward.records import EpisodeMetrics

WORST = 10  # episodes listed
_OTHER_COLUMNS = 64  # characters beside an instruction

# attribute, heading, unit, what it says, decimals
_METRICS = (
    ("voc", "VOC", "", "1: it always rises with time", 2),
    ("success_score", "success score", " nats", "log-prob of the last 3 prefixes", 2),
    ("final_progress", "final progress", "", "of what the task's best reach", 2),
    ("max_progress", "maximum progress", "", "the same at its best moment", 2),
    ("seconds_to_90", "time to 0.9", " s", "", 1),
    ("negative_share", "frames losing", "", "share of negative advantage", 2),
    ("longest_stall", "longest stall", " s", "without any progress", 1),
    ("regress", "largest fall", "", "of progress from its maximum", 2),
    ("log_odds", "log-odds", " nats", "of True against False", 2),
)


def print_groups(groups: Sequence[GroupSummary], console: Console) -> None:
    """Print the dataset's means with their intervals, then those of its tasks if it has several."""
    everything = groups[-1]
    table = text_table(f"mean over {everything.episodes} episodes, with its 95 % interval")
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", style="dim")
    for attribute, heading, unit, meaning, decimals in _METRICS:
        one: Estimate = getattr(everything, attribute)
        gaps = f"undefined in {one.undefined}" if one.undefined else ""
        table.add_row(
            heading,
            f"{number(one.value, decimals)}{unit}",
            interval(one, decimals),
            "; ".join(text for text in (meaning, gaps) if text),
        )
    table.show_header = False
    console.print(table)
    if len(groups) > 2:
        console.print(_tasks(groups[:-1], console))


def _tasks(groups: Sequence[GroupSummary], console: Console) -> Table:
    table = text_table("by task")
    for heading in ("episodes", "VOC", "success", "final", "to 0.9", "losing", "stall", "fall"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    table.add_column("task", no_wrap=True)
    for group in groups:
        table.add_row(
            str(group.episodes),
            number(group.voc.value),
            number(group.success_score.value),
            number(group.final_progress.value),
            number(group.seconds_to_90.value, 1),
            number(group.negative_share.value),
            number(group.longest_stall.value, 1),
            number(group.regress.value),
            shorten(group.name, console.width - _OTHER_COLUMNS),
        )
    return table


def print_worst(
    metrics: Sequence[EpisodeMetrics], success: Mapping[int, bool], console: Console
) -> None:
    """Print the episodes with the lowest success scores."""
    worst = sorted(metrics, key=lambda one: one.success_score)[:WORST]
    title = "episodes" if len(worst) == len(metrics) else f"the {len(worst)} worst episodes"
    table = text_table(f"{title}, by success score")
    for heading in ("episode", "success", "final", "VOC", "stall s", "fall", "long s"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    if success:
        table.add_column("ok", no_wrap=True, min_width=3)
    table.add_column("task", no_wrap=True)
    for one in worst:
        table.add_row(
            str(one.episode_index),
            number(one.success_score),
            number(one.final_progress),
            number(one.voc),
            number(one.longest_stall, 1),
            number(one.regress),
            number(one.seconds, 1),
            *([_outcome(success, one.episode_index)] if success else []),
            shorten(one.task, console.width - _OTHER_COLUMNS),
        )
    console.print(table)


def _outcome(success: Mapping[int, bool], episode: int) -> str:
    return {None: "?", True: "yes", False: "no"}[success.get(episode)]


def print_success(found: SuccessSummary | None, console: Console) -> None:
    """Print whether rewards tell success from failure, or that nothing is known of success."""
    if found is None:
        console.print(
            "success: no labels, so no AUC. They can come from next.success, next.reward, a column "
            "success in meta/episodes, or --success-file FILE.csv (episode_index,success)"
        )
        return
    console.print(
        f"success, from {found.origin}: {found.successes} succeeded, {found.failures} failed"
        + (f", {found.unknown} unknown" if found.unknown else "")
    )
    if math.isnan(found.auc.value):
        console.print("  all alike, so no AUC")
        return
    console.print(f"  ROC-AUC of the success score  {_with_interval(found.auc)}")
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
        f"{line.folds}-fold cross-validation)\n"
        f"    lerobot-topreward curate ... --min-success {line.value:.3f}"
    )


def _with_interval(one: Estimate) -> str:
    return f"{number(one.value)} {interval(one)}".rstrip()


def interval(one: Estimate, decimals: int = 2) -> str:
    """An estimate's interval; empty where undefined."""
    if math.isnan(one.low):
        return ""
    return f"[{number(one.low, decimals)}, {number(one.high, decimals)}]"


_MEANING = {
    "static": "the first frame repeated",
    "reversed": "the video backwards",
    "swapped": "another task's instruction",
}


def print_controls(controls: Sequence[ControlSummary], console: Console) -> None:
    """Print each control under the real videos of the same episodes, and what follows from it."""
    if not controls:
        console.print(
            "controls: none was scored. Without them a rising curve proves nothing: "
            "--controls static,reversed,swapped"
        )
        return
    table = text_table("controls, against the real videos of the same episodes")
    table.add_column("", no_wrap=True)
    for heading in ("VOC", "success", "rise", "of real", "ends below"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(6, len(heading)))
    shown: CurveSummary | None = None
    for one in controls:
        if one.real != shown:  # the sample may differ from control to control
            shown = one.real
            table.add_row(f"the real videos of {one.episodes}", *_curve(one.real, one), "", "")
        share, below = _percent(one.share), _percent(one.real_above)
        table.add_row(_MEANING[one.control], *_curve(one.other, one), share, below)
    console.print(table)
    console.print(
        "rise: of "
        + ("P(True)" if controls[0].scale == "prob" else "log P(True), nats")
        + ", the last three prefixes over the first; ends below: in so many episodes"
    )
    for one in controls:
        console.print(f"{one.control}: {verdict(one)}")


def print_debias(found: DebiasSummary | None, console: Console) -> None:
    """Print what subtracting the static curves does, where it can be known."""
    if found is None:
        return
    auc = ""
    if not math.isnan(found.auc.value):
        auc = f", ROC-AUC {number(found.auc.value)} -> {number(found.auc_debiased.value)}"
    console.print(
        f"label --debias static would change VOC {number(found.voc.value)} -> "
        f"{number(found.voc_debiased.value)}{auc}, on {found.episodes} episodes"
    )


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


def _curve(curve: CurveSummary, summary: ControlSummary) -> list[str]:
    risen = curve.prob_rise if summary.scale == "prob" else curve.rise
    undefined = f" ({curve.voc_undefined} undefined)" if curve.voc_undefined else ""
    return [f"{number(curve.voc)}{undefined}", number(curve.success_score), number(risen)]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{round(100 * share)}%"
