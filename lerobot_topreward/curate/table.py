"""What a curation would do, for a terminal."""

from collections.abc import Iterator

import numpy as np
from rich.console import Console

from lerobot_topreward.console import number, shorten, text_table
from lerobot_topreward.curate.plan import Plan
from lerobot_topreward.judging.rules import by_task

WORST = 20  # episodes listed
_OTHER_COLUMNS = 28  # characters beside a task
_WORDS = {
    "min_final_progress": "final progress at least {}",
    "min_success": "success score at least {} nats",
    "min_voc": "VOC at least {}",
    "keep_top": "the best {} of each task by success score",
    "max_stall": "no stall longer than {} s",
    "max_regress": "no fall of progress of more than {}",
    "outliers": "no outliers with a robust z beyond {}",
}


def describe_rules(plan: Plan) -> list[str]:
    """The rules in words."""
    rules = [_WORDS[name].format(f"{limit:.3g}") for name, limit in plan.rules.named.items()]
    return [*rules, *(["a person's decisions"] if plan.decisions else [])]


def print_plan(plan: Plan, console: Console) -> None:
    """Say what would go and why, what each rule does, and what remains."""
    dataset = plan.dataset
    console.print(
        f"dataset  {dataset.source.repo_id}: {len(plan.verdicts)} episodes, "
        f"{_minutes(plan, range(len(plan.verdicts))):.1f} minutes"
    )
    console.print(f"labels   by {dataset.key.vlm} on {dataset.key.camera}")
    if plan.again:
        console.print("nothing to do: this dataset was already curated by these rules")
        return
    console.print(f"rules    {'; '.join(describe_rules(plan))}")
    _print_picked(plan, console)
    if plan.unlabelled:
        gone = sum(not plan.verdicts[episode].keep for episode in plan.unlabelled)
        kept = len(plan.unlabelled) - gone
        console.print(
            f"not labelled, so no rule can judge them: {len(plan.unlabelled)} episodes, of which "
            f"{kept} stay and {gone} go"
        )
    if plan.dropped:
        _print_dropped(plan, console)
    _print_rules(plan, console)
    _print_remaining(plan, console)
    for warning in warnings(plan):
        console.print(f"warning: {warning}", style="yellow")


def warnings(plan: Plan) -> Iterator[str]:
    """Rules that leave less than one may have meant."""
    groups = by_task(plan.metrics)
    for name, drops in plan.drops.items():
        for task, members in groups.items():
            gone = sum(one.episode_index in drops for one in members)
            if len(members) / 2 < gone < len(members):
                yield (
                    f"--{name.replace('_', '-')} drops {gone} of the {len(members)} episodes of "
                    f"'{task}', more than half"
                )
            elif gone == len(members):
                yield f"--{name.replace('_', '-')} drops every episode of '{task}'"
    for task, members in groups.items():
        if max(one.log_odds for one in members) < 0:
            yield (
                f"in no episode of '{task}' does the VLM find success likelier than not; progress "
                "is scaled by a task's best, so rules about progress cannot see that"
            )
    kept = {plan.tasks[episode] for episode in plan.kept}
    for task in dict.fromkeys(plan.tasks):
        if task not in kept:
            yield f"nothing remains of the task '{task}'"


def _print_picked(plan: Plan, console: Console) -> None:
    if plan.picked is None:
        return
    line = plan.picked.threshold
    console.print(
        f"chosen automatically, by {plan.picked.origin} of {plan.picked.episodes} episodes: success "
        f"score at least {line.value:.3f} nats. Keeping successes so has precision "
        f"{number(line.precision)} and recall {number(line.recall)} in {line.folds}-fold "
        "cross-validation"
    )


def _print_dropped(plan: Plan, console: Console) -> None:
    metrics = {one.episode_index: one for one in plan.metrics}
    worst = sorted(
        plan.dropped,
        key=lambda verdict: (
            metrics[verdict.episode_index].success_score
            if verdict.episode_index in metrics
            else np.inf
        ),
    )
    shown = worst[:WORST]
    title = f"{len(worst)} episodes go"
    if len(shown) < len(worst):
        title = f"{title}, of which these {len(shown)} have the lowest success scores"
    table = text_table(title)
    for heading in ("episode", "long s", "success", "final"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    table.add_column("why")
    for verdict in shown:
        one = metrics.get(verdict.episode_index)
        table.add_row(
            str(verdict.episode_index),
            number(plan.seconds(verdict.episode_index), 1),
            "-" if one is None else number(one.success_score),
            "-" if one is None else number(one.final_progress),
            "; ".join(verdict.reasons),
        )
    console.print(table, soft_wrap=False)


def _print_rules(plan: Plan, console: Console) -> None:
    table = text_table("by rule, whatever a person decided")
    for heading in ("drops", "it alone"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("rule")
    for name, drops in plan.drops.items():
        others = [found for other, found in plan.drops.items() if other != name]
        alone = sum(not any(episode in found for found in others) for episode in drops)
        limit = plan.rules.named[name]
        note = ""
        if name == "min_voc":
            undefined = sum(bool(np.isnan(one.voc)) for one in plan.metrics)
            note = f"; undefined, so it passes, in {undefined}" if undefined else ""
        table.add_row(str(len(drops)), str(alone), _WORDS[name].format(f"{limit:.3g}") + note)
    console.print(table, soft_wrap=False)
    if plan.decisions:
        ruled = {episode for found in plan.drops.values() for episode in found}
        saved = sum(keep and episode in ruled for episode, keep in plan.decisions.items())
        dropped = sum(not keep for keep in plan.decisions.values())
        console.print(
            f"a person decided about {len(plan.decisions)}: drops {dropped}, and keeps {saved} that "
            "a rule drops"
        )


def _print_remaining(plan: Plan, console: Console) -> None:
    table = text_table("what remains")
    for heading in ("episodes", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("task", no_wrap=True)
    kept = set(plan.kept)
    names = list(dict.fromkeys(plan.tasks))
    for name in [*names, *([] if len(names) == 1 else [None])]:
        members = [e for e, task in enumerate(plan.tasks) if name is None or task == name]
        stay = [episode for episode in members if episode in kept]
        table.add_row(
            f"{len(stay)} of {len(members)}",
            f"{_minutes(plan, stay):.1f} of {_minutes(plan, members):.1f}",
            "all" if name is None else shorten(name, console.width - _OTHER_COLUMNS),
        )
    console.print(table, soft_wrap=False)
    if plan.trim is not None:
        cut = sum(plan.seconds(e) - s.length / plan.dataset.fps for e, s in plan.spans.items())
        console.print(
            f"standing still at their ends, so trimmed: {len(plan.spans)} of {len(plan.kept)} "
            f"episodes, {cut:.1f} s in all"
        )


def _minutes(plan: Plan, episodes: "list[int] | range") -> float:
    return sum(plan.seconds(episode) for episode in episodes) / 60
