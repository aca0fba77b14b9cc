"""Where the episodes of a task start: where start poses crowd, and where none is."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lerobot_topreward.judging.profile import LEAST_EPISODES, Profile
from lerobot_topreward.records import Finding

_MANY = 2000  # start poses: of more, pairs are not compared
_NEAR = 0.02  # of the signals' ranges: start poses that are nearer to each other are alike


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where the episodes of a task start, in the two signals that differ most between them."""

    task: str
    episodes: tuple[int, ...]
    names: tuple[str, ...]  # of the one or two signals
    starts: Float64[np.ndarray, "episodes signals"]


def measure_coverage(
    starts: Mapping[int, np.ndarray], tasks: Mapping[int, str], profile: Profile
) -> list[Coverage]:
    """Say where the episodes of each task start, for tasks of at least eight."""
    groups: dict[str, list[int]] = defaultdict(list)
    for episode, task in tasks.items():
        groups[task].append(episode)
    commands = {*profile.signals.commands}
    measured = [i for i in np.flatnonzero(profile.range > 0) if i not in commands]
    found: list[Coverage] = []
    for task, episodes in groups.items():
        if len(episodes) < LEAST_EPISODES or not measured:
            continue
        poses = np.array([starts[episode] for episode in episodes])[:, measured]
        poses = (poses - profile.low[measured]) / profile.range[measured]
        spread = np.std(np.where(np.isfinite(poses), poses, 0), axis=0)
        chosen = np.argsort(-spread, kind="stable")[:2]
        names = tuple(profile.signals.names[measured[i]] for i in chosen)
        found.append(Coverage(task, tuple(episodes), names, poses[:, chosen]))
    return found


def note_coverage(coverage: Coverage) -> Finding:
    """Make a note of where the episodes of a task start."""
    return Finding(None, "note", "coverage", f"{coverage.task!r} {describe_coverage(coverage)}")


def describe_coverage(coverage: Coverage) -> str:
    """Put into words how the start poses of a task crowd and where none is; the task is left out."""
    starts = coverage.starts
    sides: list[str] = []
    for name, values in zip(coverage.names, starts.T, strict=True):
        ordered = np.sort(values[np.isfinite(values)])
        width = float(np.ptp(ordered)) if len(ordered) else 0.0
        gap = float(np.diff(ordered).max(initial=0.0))
        name = name.removeprefix("observation.")
        sides.append(f"{min(width, 1):.0%} of {name}, largest gap {min(gap, 1):.0%}")
    text = f"starts over {'; '.join(sides)}"
    if len(starts) <= _MANY:
        gaps = np.abs(starts[:, None] - starts[None]).max(axis=-1)
        np.fill_diagonal(gaps, np.inf)
        near = int((gaps.min(axis=1) < _NEAR).sum())
        text = f"{text}; {near} of {len(starts)} episodes within {_NEAR:.0%} of another"
    return text
