import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lerobot_topreward.watch.command

# For the modules beside this one: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parent))

from watching import Watching


@pytest.fixture
def watching(tmp_path: Path, tiny_vlm: Path) -> Watching:
    return Watching(tmp_path, tiny_vlm)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The episodes that a scorer was asked about by watches, one after another."""
    episodes: list[int] = []
    load: Callable[..., Any] = lerobot_topreward.watch.command.load_scorer

    def load_counting(*args: Any, **options: Any) -> Any:
        scorer = load(*args, **options)
        score = scorer.score

        def count(clip: Any, *more: Any) -> Any:
            episodes.append(clip.segment.episode_index)
            return score(clip, *more)

        scorer.score = count
        return scorer

    monkeypatch.setattr(lerobot_topreward.watch.command, "load_scorer", load_counting)
    return episodes
