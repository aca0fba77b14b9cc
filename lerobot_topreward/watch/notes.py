"""The totals of a dataset that is being recorded, as a watch saw them: where its episodes begin.

They outlive the watch in ``<output>/topreward/<key>/watch/marks.json``.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import write_file
from lerobot_topreward.files.jsonable import read_index, read_json_object
from lerobot_topreward.watch.recording import BEGINNING, Mark, NotYetError, Span

_FORMAT = 1


@dataclass(slots=True)
class Marks:
    """Totals by the number of episodes that they are of; that of none is always known."""

    path: Path
    by_episodes: dict[int, Mark]

    def add(self, episodes: int, mark: Mark) -> bool:
        """Note the totals of a dataset that has so many episodes.

        Returns:
            False where they are not those of the dataset before, which is forgotten.
        """
        known = self.by_episodes
        if known.get(episodes) == mark and max(known) == episodes:
            return True
        marks = {**known, episodes: mark}
        same = max(known) < episodes and _ascends(marks)
        self.by_episodes = marks if same else {0: BEGINNING, episodes: mark}
        self._write()
        return same

    def forget(self) -> None:
        """Begin with nothing: the dataset is gone."""
        if len(self.by_episodes) > 1:
            self.by_episodes = {0: BEGINNING}
            self._write()

    def _write(self) -> None:
        marks = {str(i): [mark.frames, mark.tasks] for i, mark in self.by_episodes.items()}
        write_file(self.path, json.dumps({"format": _FORMAT, "marks": marks}))

    def span_of(self, episode: int) -> tuple[Span, Mark, Mark]:
        """Find the frames of an episode, and the totals before and after it.

        Raises:
            NotYetError: nobody looked at the dataset between it and one of its neighbors.
        """
        before, after = (self.by_episodes.get(episode + i) for i in (0, 1))
        if before is None or after is None:
            raise NotYetError("where it begins or ends was not seen")
        return Span(before.frames, after.frames - before.frames), before, after


def open_marks(path: Path) -> Marks:
    """Read what an earlier watch saw; whoever wrote it is a stranger, and damage costs only time."""
    marks = {0: BEGINNING}
    if path.is_file():
        with suppress(UserError, ValueError):
            marks |= _read(read_json_object(path, advice="Delete it"))
    return Marks(path, marks if _ascends(marks) else {0: BEGINNING})


def _read(content: Mapping[str, Any]) -> dict[int, Mark]:
    found = content.get("marks")
    if content.get("format") != _FORMAT or not isinstance(found, dict):
        raise ValueError("no marks of this version")
    marks = {}
    for name, totals in found.items():
        episodes = read_index(name)
        if episodes is None or not isinstance(totals, list) or len(totals) != 2:
            raise ValueError("totals are two numbers by a third one")
        if not all(type(number) is int for number in totals):
            raise ValueError("totals are whole numbers")
        marks[episodes] = Mark(*totals)
    return marks


def _ascends(marks: Mapping[int, Mark]) -> bool:
    """Whether totals grow from none; every episode has a frame."""
    ordered = sorted(marks.items())
    return ordered[0] == (0, BEGINNING) and all(
        later.frames - mark.frames >= episodes - less and later.tasks >= mark.tasks
        for (less, mark), (episodes, later) in pairwise(ordered)
    )
