"""Controls beside the real videos, as a table for a terminal."""

import math
from collections.abc import Sequence

from rich.console import Console

from lerobot_topreward.evaluate.controls import ControlSummary, CurveSummary, verdict
from lerobot_topreward.evaluate.summary import DebiasSummary, GvlSummary
from lerobot_topreward.evaluate.table import interval, number, text_table

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
