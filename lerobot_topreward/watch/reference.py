"""Where good begins: a number that was given, or what a labeled dataset says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.judgment import judge_labels
from lerobot_topreward.judging.line import Line, line_at, line_of_outcomes, line_of_progress
from lerobot_topreward.judging.metrics import success_score
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.watch.config import WatchConfig

NO_LINE = "nothing says what is good: give `min_success` or a `reference`"


@dataclass(frozen=True, slots=True)
class Lines:
    """The line of each task, or why there is none."""

    by_task: Mapping[str, Line | str]
    otherwise: Line | str  # of other tasks

    def of(self, task: str) -> Line | str:
        """The line of a task, or why there is none."""
        return self.by_task.get(task, self.otherwise)


def draw_lines(config: WatchConfig, key: ScoreKey, *, console: Console) -> Lines:
    """Draw the lines that were asked for.

    Raises:
        UserError: the reference is no labeled dataset, or its scores do not compare with these.
    """
    if config.min_success is not None:
        line = line_at(config.min_success, origin="`min_success`", precision=key.precision)
        return Lines({}, line)
    if config.reference is None:
        return Lines({}, NO_LINE)
    reference = open_labelled(repo_id=None, root=config.reference, revision=None)
    _refuse_others(config, reference.key, key)
    success = read_success(reference.source, config.success_file)
    judgment = judge_labels(reference, controls={}, success=success)
    if not judgment.usable:
        why = f"the reward cannot judge the reference: {judgment.reasons[0]}"
        console.print(why, style="yellow")
        return Lines({}, why)
    return _lines_of(reference, success)


def _lines_of(reference: LabelledDataset, success: Success | None) -> Lines:
    """By known outcomes all tasks have one line, as in curate; else each has its own."""
    name, precision = f"the reference {reference.source.repo_id}", reference.key.precision
    episodes: dict[int, list[PrefixScores]] = {}
    for part in reference.scores:
        episodes.setdefault(part.segment.episode_index, []).append(part)
    tasks: dict[str, list[int]] = {}
    for episode, parts in episodes.items():
        tasks.setdefault(_task(parts), []).append(episode)
    curves = {i: np.concatenate([part.success for part in own]) for i, own in episodes.items()}
    otherwise = f"{name} has no episode of this task"
    if success is None or not success.by_episode:
        lines = {
            task: line_of_progress([curves[i] for i in own], origin=name, precision=precision)
            for task, own in tasks.items()
        }
        return Lines(lines, otherwise)
    known = [i for i in episodes if i in success.by_episode]
    line = line_of_outcomes(
        np.array([success_score(curves[i]) for i in known]),
        np.array([success.by_episode[i] for i in known], dtype=bool),
        origin=name,
        precision=precision,
    )
    return Lines(dict.fromkeys(tasks, line), otherwise)


def _task(parts: Sequence[PrefixScores]) -> str:
    return " / ".join(dict.fromkeys(part.segment.instruction for part in parts))


def _refuse_others(config: WatchConfig, theirs: ScoreKey, ours: ScoreKey) -> None:
    """Refuse scores that were made otherwise than those to come.

    Raises:
        UserError: names what differs.
    """
    mine, other = ours.to_json(), theirs.to_json()
    differing = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
    if differing:
        values = ", ".join(
            f"{name} {other.get(name)!r} there and {mine.get(name)!r} here"
            for name in differing[:3]
        )
        raise UserError(
            f"`reference={config.reference}` was scored otherwise, so its scores do not compare: "
            f"{values}. Give the options that it was labeled with"
        )
