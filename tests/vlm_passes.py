"""Counts what a VLM is asked."""

from typing import Any

import pytest

from lerobot_topreward.records import Clip
from lerobot_topreward.vlm.one_pass import OnePassScorer


class Passes:
    """Counts the passes of the VLM, and what each of them shows and asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[int, tuple[str, ...]]] = []
        score = OnePassScorer.score

        def counted(scorer: OnePassScorer, clip: Clip, prefixes: Any, asked: Any) -> Any:
            self.made.append((clip.segment.episode_index, tuple(asked)))
            return score(scorer, clip, prefixes, asked)

        monkeypatch.setattr(OnePassScorer, "score", counted)
