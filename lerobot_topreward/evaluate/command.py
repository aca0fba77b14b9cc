"""The evaluate command: labels -> metrics, success, controls, baseline -> tables or JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.episode_metrics import episode_metrics
from lerobot_topreward.evaluate.summary import (
    GroupSummary,
    SuccessSummary,
    summarise,
    summarise_success,
)
from lerobot_topreward.evaluate.table import print_groups, print_success, print_worst
from lerobot_topreward.labelled import LabelledDataset, open_labelled
from lerobot_topreward.plain import plain
from lerobot_topreward.records import EpisodeMetrics
from lerobot_topreward.success import Success, read_success


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Say how far the rewards of a labelled dataset can be believed, and which episodes look bad.

    Needs no VLM, but for --controls and --baseline.
    """

    repo_id: str | None = None  # labelled dataset on the Hub, or under $HF_LEROBOT_HOME
    root: Path | None = None  # labelled dataset, or its source, in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    labels: Path | None = None  # folder that label wrote, where it is neither of the above
    success_file: Path | None = None  # CSV episode_index,success; else what the dataset itself says
    json: bool = False  # print everything as JSON instead of tables


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was found."""

    metrics: Sequence[EpisodeMetrics]
    groups: Sequence[GroupSummary]
    known: Success | None
    success: SuccessSummary | None


def evaluate(config: EvaluateConfig, *, console: Console) -> int:
    """Evaluate a labelled dataset; returns the exit code.

    Raises:
        UserError: no such dataset, not labelled, or a control cannot be scored.
    """
    dataset = open_labelled(
        repo_id=config.repo_id, root=config.root, revision=config.revision, labels=config.labels
    )
    known = read_success(dataset.source, config.success_file)
    metrics = episode_metrics(dataset.scores, dataset.rewards(), fps=dataset.fps)
    found = Evaluation(
        metrics=metrics,
        groups=summarise(metrics),
        known=known,
        success=None if known is None else summarise_success(metrics, known),
    )
    if config.json:
        text = json.dumps(as_json(dataset, found), indent=2, allow_nan=False)
        console.print(text, soft_wrap=True)
    else:
        _print(dataset, found, console)
    return 0


def as_json(dataset: LabelledDataset, found: Evaluation) -> dict[str, Any]:
    """Everything that was found as JSON can hold it; null where undefined."""
    known = {} if found.known is None else found.known.by_episode
    return {
        "version": __version__,
        "dataset": dataset.source.repo_id,
        "fingerprint": dataset.fingerprint,
        "provenance": plain(dataset.provenance),
        "groups": plain(found.groups),
        "success": plain(found.success),
        "episodes": [
            {**plain(one), "success": known.get(one.episode_index)} for one in found.metrics
        ],
    }


def _print(dataset: LabelledDataset, found: Evaluation, console: Console) -> None:
    total = dataset.source.meta.total_episodes
    console.print(f"dataset  {dataset.source.repo_id}, {len(found.metrics)} of {total} labelled")
    console.print(f"labels   by {dataset.key.vlm} on {dataset.key.camera}, in {dataset.labels}")
    console.print(
        f"progress here is {dataset.scale}, scaled per task so that episodes compare"
        + (
            "; the dataset's own columns are scaled per episode"
            if dataset.provenance.get("normalize") == "episode"
            else ""
        )
    )
    print_groups(found.groups, console)
    print_worst(found.metrics, {} if found.known is None else found.known.by_episode, console)
    print_success(found.success, console)
