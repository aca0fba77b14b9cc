"""A small labelled dataset, and controls of it scored by the tiny VLM."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lerobot_topreward.cli import main
from lerobot_topreward.scoring.control_scores import ControlScores, score_controls
from lerobot_topreward.scoring.scorer import CONTROLS
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.vlm.identity import VlmConfig

TASKS = ("pick up the cube", "open the drawer")


def label(root: Path, vlm: Path, output: Path, *options: str) -> Path:
    with pytest.raises(SystemExit) as stopped:
        main(["label", "--root", str(root), "--vlm", str(vlm), "--output", str(output), *options])
    assert stopped.value.code == 0
    return output


def reopen(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def score(
    dataset: LabelledDataset,
    vlm: Path | None,
    *,
    controls: Sequence[str] = CONTROLS,
    episodes: Sequence[int] | None = None,
    swapped: str | None = None,
    output: Path | None = None,
    **options: Any,
) -> ControlScores:
    given = VlmConfig(vlm=str(vlm), **options) if vlm is not None else VlmConfig(**options)
    return score_controls(
        dataset,
        controls=controls,
        episodes=dataset.episodes if episodes is None else episodes,
        vlm=given,
        swapped_instruction=swapped,
        output=output,
        console=Console(quiet=True),
    )
