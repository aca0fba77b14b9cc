"""What a curation would do, for a terminal."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from rich.console import Console

from lerobot_topreward.console import number, shorten, text_table
from lerobot_topreward.curate.plan import Plan
from lerobot_topreward.judging.judgment import print_judgment
from lerobot_topreward.judging.rules import RULES, by_task

WORST = 20  # episodes listed
_OTHER_COLUMNS = 28  # characters beside a task


def describe_rules(plan: Plan) -> list[str]:
    """The rules in words."""
    rules = [RULES[name].describe(limit) for name, limit in plan.rules.in_force.items()]
    return [*rules, *(["manual decisions"] if plan.decisions else [])]


def print_plan(plan: Plan, console: Console) -> None:
    """Say what would go and why, what each rule does, and what remains."""
    if plan.labels is None:
        console.print(
            "no labels: this looks at the recording alone and cannot see whether a task succeeded"
        )
    console.print(
        f"dataset  {plan.source.repo_id}: {len(plan.verdicts)} episodes, "
        f"{_minutes(plan, range(len(plan.verdicts))):.1f} minutes"
    )
    if plan.labels is not None:
        console.print(f"labels   by {plan.labels.key.judge} on {plan.labels.key.camera}")
    if plan.judgment is not None:
        print_judgment(plan.judgment, console)
    if plan.repeated:
        console.print("nothing to do: this dataset was already curated by these rules")
        return
    console.print(f"rules    {'; '.join(describe_rules(plan))}")
    if plan.chosen is not None:
        found = plan.chosen.threshold
        console.print(
            f"chosen automatically, by {plan.chosen.origin} of {plan.chosen.episodes} episodes: "
            f"success score at least {found.value:.3f} nats. Keeping successes so has precision "
            f"{number(found.precision)} and recall {number(found.recall)} in {found.folds}-fold "
            "cross-validation"
        )
    if plan.unlabelled:
        gone = sum(not plan.verdicts[episode].keep for episode in plan.unlabelled)
        kept = len(plan.unlabelled) - gone
        console.print(
            f"not labeled, so no rule can judge them: {len(plan.unlabelled)} episodes, of which "
            f"{kept} stay and {gone} go"
        )
    if plan.dropped:
        _print_dropped(plan, console)
    _print_rules(plan, console)
    _print_remaining(plan, console)
    for warning in find_warnings(plan):
        console.print(f"warning: {warning}", style="yellow")


def find_warnings(plan: Plan) -> Iterator[str]:
    """Rules that leave less than their user may have meant."""
    tasks = plan.tasks
    groups: dict[str, list[int]] = defaultdict(list)
    for episode, task in enumerate(tasks):
        groups[task].append(episode)
    for name, drops in plan.drops.items():
        for task, members in groups.items():
            gone = sum(episode in drops for episode in members)
            if gone == len(members):
                yield f"`{name}` drops every episode of '{task}'"
            elif gone > len(members) / 2:
                yield (
                    f"`{name}` drops {gone} of the {len(members)} episodes of '{task}', more than "
                    "half"
                )
    for task, judged in by_task(plan.metrics).items():
        if max(episode.log_odds for episode in judged) < 0:
            yield (
                f"in no episode of '{task}' does the VLM find success likelier than not; progress "
                "is scaled by a task's best, so rules about progress cannot see that"
            )
    kept = {tasks[episode] for episode in plan.kept}
    for task in dict.fromkeys(tasks):
        if task not in kept:
            yield f"nothing remains of the task '{task}'"


def _print_dropped(plan: Plan, console: Console) -> None:
    metrics = {judged.episode_index: judged for judged in plan.metrics}
    scores = {episode: judged.success_score for episode, judged in metrics.items()}
    worst = sorted(plan.dropped, key=lambda verdict: scores.get(verdict.episode_index, np.inf))
    title = f"{len(worst)} episodes go"
    if len(worst) > WORST:
        title = f"{title}, of which these {WORST} have the lowest success scores"
    table = text_table(title, "episode", "long s", "success", "final")
    table.add_column("why")
    for verdict in worst[:WORST]:
        episode, why = verdict.episode_index, "; ".join(verdict.reasons)
        if episode in plan.notes:
            why = f"{why} ({plan.notes[episode].words})"
        judged = metrics.get(episode)
        ends = (np.nan, np.nan) if judged is None else (judged.success_score, judged.final_progress)
        table.add_row(str(episode), number(plan.seconds(episode), 1), *map(number, ends), why)
    console.print(table, soft_wrap=False)


def _print_rules(plan: Plan, console: Console) -> None:
    table = text_table("by rule, before manual decisions", "drops", "it alone")
    table.add_column("rule")
    undefined = sum(bool(np.isnan(judged.voc)) for judged in plan.metrics)
    for name, drops in plan.drops.items():
        others = {e for other, found in plan.drops.items() if other != name for e in found}
        words = RULES[name].describe(plan.rules.in_force[name])
        if name == "min_voc" and undefined:
            words = f"{words}; undefined, so it passes, in {undefined}"
        table.add_row(str(len(drops)), str(len(drops.keys() - others)), words)
    console.print(table, soft_wrap=False)
    if plan.decisions:
        broken = {episode for found in plan.drops.values() for episode in found}
        saved = sum(keep and episode in broken for episode, keep in plan.decisions.items())
        dropped = sum(not keep for keep in plan.decisions.values())
        console.print(
            f"manual decisions about {len(plan.decisions)}: drops {dropped}, and keeps {saved} "
            "that a rule drops"
        )


def _print_remaining(plan: Plan, console: Console) -> None:
    table = text_table("what remains", "episodes", "minutes")
    table.add_column("task", no_wrap=True)
    kept, tasks = set(plan.kept), plan.tasks
    names = list(dict.fromkeys(tasks))
    for name in [*names, *([] if len(names) == 1 else [None])]:
        members = [e for e, task in enumerate(tasks) if name is None or task == name]
        stay = [episode for episode in members if episode in kept]
        table.add_row(
            f"{len(stay)} of {len(members)}",
            f"{_minutes(plan, stay):.1f} of {_minutes(plan, members):.1f}",
            "all" if name is None else shorten(name, console.width - _OTHER_COLUMNS),
        )
    console.print(table, soft_wrap=False)
    if plan.trim is not None:
        cut = sum(plan.seconds(e) - len(s) / plan.source.meta.fps for e, s in plan.spans.items())
        console.print(
            f"stationary at their ends, so trimmed: {len(plan.spans)} of {len(kept)} episodes, "
            f"{cut:.1f} s in all"
        )


def _minutes(plan: Plan, episodes: Iterable[int]) -> float:
    return sum(plan.seconds(episode) for episode in episodes) / 60
