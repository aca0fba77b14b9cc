"""The comparison as a table of 80 columns."""

import math
from collections import Counter

from rich.console import Console

from lerobot_topreward.compare.comparison import Comparison, JudgeResult
from lerobot_topreward.console import number, shorten, text_table
from lerobot_topreward.judging.controls import ControlSummary
from lerobot_topreward.judging.intervals import Estimate

_WIDTH = 80
_STYLES = {"usable": "green", "usable with care": "yellow"}
_LISTED = 5  # episodes that failed, of each judge


def print_comparison(found: Comparison, console: Console) -> None:
    """Print what was asked, a row of numbers and a verdict for each judge, and the advice."""
    counts = Counter(found.success.values())
    outcomes = f"; {counts[True]} succeeded, {counts[False]} failed" if counts else ""
    console.print(
        f"dataset  {found.dataset}: {len(found.episodes)} of {found.total} episodes{outcomes}"
    )
    console.print(f"shown    to all alike, {found.camera}:\n         {found.schedule}")
    table = text_table("")
    table.title, table.padding = None, 0
    table.add_column("", no_wrap=True)
    for heading in ("VOC", "Static VOC", "Static rise", "Rev. VOC", "AUC"):
        table.add_column(heading, justify="right", no_wrap=heading in ("VOC", "AUC"))
    for heading in ("Agree", "Cens.", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in found.results:
        table.add_row(*_cells(result, found))
    console.print(table, soft_wrap=False)
    console.print(
        "static: the first frame repeated, its rise as a share of the real one; rev.: backwards;\n"
        "AUC: of the success score; agree: mean rank correlation with the other judges' curves;\n"
        "cens.: prefixes of which a server gave a bound only; s: seconds per video scored now,\n"
        "three of them per episode; labeling takes one"
    )
    for result in found.results:
        _print_verdict(result, console)
    if found.advice is not None:
        console.print(found.advice.sentence, style="bold")
    if found.label is not None:
        console.print(f"  {found.label}")


def _cells(result: JudgeResult, found: Comparison) -> list[str]:
    summary = result.summary
    if summary is None:
        return [result.letter, *["-"] * 8]
    static, backwards = (summary.controls.get(name) for name in ("static", "reversed"))
    return [
        result.letter,
        _short(summary.voc),
        _order(static),
        _percent(summary.static_share),
        _order(backwards),
        _short(summary.auc),
        _trim(found.agreement_of(result.letter)),
        _percent(summary.censored),
        number(result.seconds, 1 if result.seconds < 100 else 0),
    ]


def _print_verdict(result: JudgeResult, console: Console) -> None:
    name = shorten(result.judge.name, _WIDTH - 30)
    if result.summary is None:
        console.print(f"{result.letter}  {name}: failed: {result.reason}", style="red")
    else:
        judgment = result.summary.judgment
        style = _STYLES.get(judgment.level, "red")
        console.print(f"{result.letter}  {name}: {judgment.level}", style=style)
        if judgment.level != "usable":
            for reason in judgment.reasons:
                console.print(f"     {reason}")
    for episode, reason in [*sorted(result.failed.items())][:_LISTED]:
        console.print(f"     episode {episode} could not be scored: {reason}", style="yellow")
    if len(result.failed) > _LISTED:
        console.print(f"     and {len(result.failed) - _LISTED} more could not", style="yellow")


def _order(control: ControlSummary | None) -> str:
    return "-" if control is None else _trim(control.other.voc)


def _short(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return _trim(estimate.value)
    return f"{_trim(estimate.value)} [{_trim(estimate.low)}, {_trim(estimate.high)}]"


def _trim(value: float) -> str:
    """Two decimals without a zero before the point: a row has 80 columns."""
    return number(value).replace("0.", ".")


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{round(100 * share)}%"
