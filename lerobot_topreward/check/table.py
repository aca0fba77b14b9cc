"""What was found in a recording, for a terminal."""

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console

from lerobot_topreward.console import shorten, text_table
from lerobot_topreward.judging.defects import DEFECTS
from lerobot_topreward.judging.findings import count_levels
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.records import Finding
from lerobot_topreward.vlm.prompts import question

_LISTED = 8  # episodes named in a line
_TASKS = 3  # tasks shown as questions
_COLORS = {"broken": "red", "suspect": "yellow", "note": "dim"}


def print_check(
    inspection: Inspection,
    *,
    name: str,
    episodes: int,
    frames: int,
    fps: float,
    cameras: Sequence[str],
    seconds: float,
    console: Console,
) -> None:
    """Print each defect with its episodes, the first of them and what to do; then the counts."""
    looked = f"numbers and pictures of {', '.join(cameras)}" if cameras else "numbers"
    console.print(
        f"dataset  {name}: {episodes} episodes, {frames / fps / 60:.1f} minutes at {fps:g} fps; "
        f"{looked} checked in {seconds:.1f} s"
    )
    console.print("This says nothing of whether a task succeeded.")
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in inspection.findings:
        groups[finding.level, finding.defect].append(finding)
    order = {defect: place for place, defect in enumerate(DEFECTS)}
    for level in _COLORS:
        found = {defect: group for (of, defect), group in groups.items() if of == level}
        if not found:
            continue
        table = text_table(level)
        for heading in ("defect", "episodes", "for example", "what to do"):
            table.add_column(heading, overflow="fold")
        for defect in sorted(found, key=lambda defect: order.get(defect, len(order))):
            group = found[defect]
            table.add_row(
                defect, _name_episodes(group), _example(group), DEFECTS.get(defect, ""),
                style=_COLORS[level] if level == "broken" else None,
            )  # fmt: skip
        console.print(table, soft_wrap=False)
    counts = count_levels(inspection.findings)
    clean = episodes - len({f.episode_index for f in inspection.findings} - {None})
    console.print(
        f"{counts['broken']} broken, {counts['suspect']} suspect, {counts['note']} notes; nothing "
        f"found in {clean} of {episodes} episodes"
    )
    tasks = [task for task in dict.fromkeys(inspection.tasks.values()) if task]
    for task in tasks[:_TASKS]:
        console.print(f"a VLM will be asked: {question(shorten(task, 120))}", style="dim")
    if len(tasks) > _TASKS:
        console.print(f"and {len(tasks) - _TASKS} more tasks", style="dim")


def _name_episodes(group: Sequence[Finding]) -> str:
    named = sorted({f.episode_index for f in group if f.episode_index is not None})
    if not named:
        return "dataset"
    more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
    return f"{len(named)}: {', '.join(map(str, named[:_LISTED]))}{more}"


def _example(group: Sequence[Finding]) -> str:
    first = group[0]
    if first.episode_index is None:
        return "; ".join(finding.text for finding in group[:_TASKS])
    return f"{first.episode_index}: {first.text}"
