"""Policies against each other: LeRobot's evaluation files or counts -> rates, tests, a sentence.

`lerobot-eval` writes ``eval_info.json``, in one of two layouts::

    {"per_task": [{"task_group": "so101", "task_id": 0, "metrics": {"successes": [true, ...]}}], ...}
    {"per_episode": [{"success": true, "seed": 1000, ...}, ...], "aggregated": {...}}

The second, of LeRobot before 0.4 and of its `eval_policy`, says on which seed an episode ran. The
first does not; an episode is then paired with the one at the same place of the same task, which is
the same scene where both evaluations had the same ``--seed``. McNemar's test holds either way.
"""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.console import number, print_json, text_table
from lerobot_topreward.errors import UserError
from lerobot_topreward.evaluate.config import EvaluateConfig
from lerobot_topreward.files.jsonable import plain, read_json_object
from lerobot_topreward.judging.trials import (
    Comparison,
    Rate,
    compare_counts,
    compare_paired,
    success_rate,
)

_MOST_BYTES = 64 * 2**20  # of an eval_info.json: a million episodes
_MOST_TRIALS = 10**6
_ADVICE = "name the eval_info.json that lerobot-eval wrote"


@dataclass(frozen=True, slots=True)
class PolicyTrials:
    """How often a policy succeeded, and where that is known on which scenes."""

    name: str
    successes: int
    trials: int
    by_scene: Mapping[Hashable, bool] | None  # scene -> whether it was solved


def compare_policies(config: EvaluateConfig, *, console: Console) -> int:
    """Compare policies by their trials and print what follows; returns the exit code.

    Raises:
        UserError: a file or a count cannot be used.
    """
    policies = [read_evaluation(path) for path in config.policies]
    policies += [read_count(text, place) for place, text in enumerate(config.trials, start=1)]
    rates = [success_rate(policy.successes, policy.trials) for policy in policies]
    first, *others = policies
    comparisons = [compare_two(first, other) for other in others]
    sentences = [
        conclude(first, other, comparison)
        for other, comparison in zip(others, comparisons, strict=True)
    ]
    if config.json:
        found = {
            "version": __version__,
            "policies": [
                {
                    "name": policy.name,
                    "successes": policy.successes,
                    "trials": policy.trials,
                    "success_rate": plain(rate),
                }
                for policy, rate in zip(policies, rates, strict=True)
            ],
            "comparisons": [
                {"first": first.name, "second": other.name, **plain(comparison), "sentence": text}
                for other, comparison, text in zip(others, comparisons, sentences, strict=True)
            ],
        }
        print_json(console, found)
    else:
        _print_policies(policies, rates, console)
        for sentence, comparison in zip(sentences, comparisons, strict=True):
            console.print(sentence)
            console.print(_describe(comparison))
        console.print(
            "differences in points with 95 % Newcombe intervals; what can be told: two-sided, alpha "
            "5 %, power 80 %, by Cohen's h, as if scenes were not paired"
        )
    return 0


def read_count(text: str, place: int) -> PolicyTrials:
    """Read ``17/20``: the successes and trials of the policy at this place.

    Raises:
        UserError: it is written otherwise, or has no trials or too many successes.
    """
    found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    successes, trials = map(int, found.groups()) if found else (0, 0)
    if not successes <= trials <= _MOST_TRIALS or not trials:
        raise UserError(
            f"`trials` must be counts such as 17/20, successes of trials, at least one trial and at "
            f"most {_MOST_TRIALS}; got {text!r}"
        )
    return PolicyTrials(f"policy {place}", successes, trials, None)


def read_evaluation(path: Path) -> PolicyTrials:
    """Read a file of LeRobot's evaluation, or the one in a folder.

    Raises:
        UserError: it cannot be read, or does not say of every episode whether it succeeded.
    """
    file = path.expanduser()
    file = file / "eval_info.json" if file.is_dir() else file
    if file.is_file() and file.stat().st_size > _MOST_BYTES:
        raise UserError(f"{file} must be at most {_MOST_BYTES >> 20} MiB; {_ADVICE}")
    content = read_json_object(file, advice=_ADVICE)
    if "per_task" in content:
        by_scene = _read_tasks(content["per_task"], file)
    elif "per_episode" in content:
        by_scene = _read_episodes(content["per_episode"], file)
    else:
        raise UserError(
            f"{file} must have per_task or per_episode, as LeRobot writes it; {_ADVICE}"
        )
    if not by_scene:
        raise UserError(f"{file} must have at least one episode; it has none. {_ADVICE}")
    return PolicyTrials(str(path), sum(by_scene.values()), len(by_scene), by_scene)


def _read_tasks(tasks: Any, file: Path) -> dict[Hashable, bool]:
    """Scenes by group, task and place: the order of tasks differs where they ran at once."""
    by_scene: dict[Hashable, bool] = {}
    for place, task in enumerate(_list(tasks, "per_task", file)):
        where = f"per_task[{place}]"
        task = _mapping(task, where, file)
        group, number_in_group = task.get("task_group"), task.get("task_id")
        if not isinstance(group, str) or type(number_in_group) is not int:
            raise UserError(
                f"{file}: {where} must have a text task_group and a whole task_id; {_ADVICE}"
            )
        metrics = _mapping(task.get("metrics"), f"{where}.metrics", file)
        successes = _list(metrics.get("successes"), f"{where}.metrics.successes", file)
        if (group, number_in_group, 0) in by_scene:
            raise UserError(f"{file}: {where} must be a task that was not there before; {_ADVICE}")
        for episode, success in enumerate(successes):
            name = f"{where}.metrics.successes[{episode}]"
            by_scene[group, number_in_group, episode] = _boolean(success, name, file)
    return by_scene


def _read_episodes(episodes: Any, file: Path) -> dict[Hashable, bool]:
    """Scenes by place and seed, so that only the same seeds in the same order are paired."""
    by_scene: dict[Hashable, bool] = {}
    for place, episode in enumerate(_list(episodes, "per_episode", file)):
        where = f"per_episode[{place}]"
        episode = _mapping(episode, where, file)
        seed = episode.get("seed")
        if seed is not None and type(seed) is not int:
            raise UserError(f"{file}: {where}.seed must be a whole number or null; {_ADVICE}")
        # Without a seed the scene was drawn at random, and no other evaluation has seen it.
        scene = (str(file.resolve()), place) if seed is None else (place, seed)
        by_scene[scene] = _boolean(episode.get("success"), f"{where}.success", file)
    return by_scene


def _list(value: Any, name: str, file: Path) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{file}: {name} must be a list; got {type(value).__name__}. {_ADVICE}")
    return value


def _mapping(value: Any, name: str, file: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{file}: {name} must be an object; got {type(value).__name__}. {_ADVICE}")
    return value


def _boolean(value: Any, name: str, file: Path) -> bool:
    if not isinstance(value, bool):
        raise UserError(
            f"{file}: {name} must be true or false; got {type(value).__name__}. {_ADVICE}"
        )
    return value


def compare_two(first: PolicyTrials, second: PolicyTrials) -> Comparison:
    """Compare two policies, scene by scene where they were tried on the same ones."""
    mine, other = first.by_scene, second.by_scene
    if mine is None or other is None or set(mine) != set(other):
        return compare_counts((first.successes, first.trials), (second.successes, second.trials))
    scenes = list(mine)
    return compare_paired(
        np.array([mine[scene] for scene in scenes]), np.array([other[scene] for scene in scenes])
    )


def conclude(first: PolicyTrials, second: PolicyTrials, found: Comparison) -> str:
    """Say in one sentence what follows from a comparison."""
    points = _points(found.difference)
    if found.shown:
        more = "more" if found.difference.value > 0 else "less"
        return f"{second.name} succeeds {more} often than {first.name}: {points} points."
    rates = (found.detectable_below, found.detectable_above)
    parts = [
        f"{word} {rate:.0%}"
        for word, rate in zip(("down to", "up to"), rates, strict=True)
        if not math.isnan(rate)
    ]
    could = (
        f"so many trials are likely to show only a difference as large as from "
        f"{first.successes / first.trials:.0%} {' or '.join(parts)}"
        if parts
        else "so few trials are not likely to show any difference"
    )
    return (
        f"No difference between {second.name} and {first.name} is shown ({points} points): {could}."
    )


def _points(rate: Rate) -> str:
    value, low, high = (round(100 * x) for x in (rate.value, rate.low, rate.high))
    return f"{value:+d} [{low:+d}, {high:+d}]"


def _print_policies(
    policies: Sequence[PolicyTrials], rates: Sequence[Rate], console: Console
) -> None:
    table = text_table("success, with its 95 % Wilson interval", "Successes", "Trials", "Rate")
    table.add_column("", no_wrap=True)
    table.add_column("Policy", overflow="fold")
    for policy, rate in zip(policies, rates, strict=True):
        interval = f"[{rate.low:.0%}, {rate.high:.0%}]"
        counts = (str(policy.successes), str(policy.trials))
        table.add_row(*counts, f"{rate.value:.0%}", interval, policy.name)
    console.print(table)


def _describe(found: Comparison) -> str:
    """Say how a comparison was made, in one line."""
    p = "p < .001" if found.p_value < 0.001 else f"p = {number(found.p_value, 3)}"
    if found.test == "mcnemar":
        test = (
            f"McNemar's exact test, scene by scene: {p}; {found.only_first} solved by the first "
            f"alone, {found.only_second} by the second alone"
        )
    else:
        test = f"Fisher's exact test: {p}"
    rates = (found.detectable_below, found.detectable_above)
    shown = " or ".join(f"{rate:.0%}" for rate in rates if not math.isnan(rate)) or "none"
    return f"  {test}; rates that can be told from the first's: {shown}"
