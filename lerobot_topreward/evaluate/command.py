"""The evaluate command: labels -> metrics, success, controls, baseline -> tables or JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.console import make_console
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.evaluate.config import EvaluateConfig
from lerobot_topreward.evaluate.gvl import gvl_baseline
from lerobot_topreward.evaluate.gvl_question import GvlResult
from lerobot_topreward.evaluate.summary import (
    DebiasSummary,
    GroupSummary,
    GvlSummary,
    SuccessSummary,
    summarize,
    summarize_debias,
    summarize_gvl,
    summarize_success,
)
from lerobot_topreward.evaluate.table import (
    print_controls,
    print_debias,
    print_groups,
    print_gvl,
    print_success,
    print_worst,
)
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.controls import ControlSummary, compare_controls, verdict
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.records import EpisodeMetrics
from lerobot_topreward.scoring.control_scores import (
    ControlScores,
    sample_episodes,
    score_controls,
    stored_controls,
)
from lerobot_topreward.scoring.scorer import CONTROLS
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was found."""

    metrics: Sequence[EpisodeMetrics]
    groups: Sequence[GroupSummary]
    known: Success | None
    success: SuccessSummary | None
    controls: Sequence[ControlSummary]
    debias: DebiasSummary | None
    left_out: Mapping[str, str]  # control -> why it could not be scored
    failed: Mapping[int, str]  # episode -> why its controls or baseline could not be scored
    gvl: GvlSummary | None  # where it was asked for


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
    # Progress is not part of the JSON.
    told = make_console(stderr=True) if config.json else console
    scored = _controls(config, dataset, told)
    gvl = _gvl(config, dataset, told) if config.baseline == "gvl" else None
    found = Evaluation(
        metrics=metrics,
        groups=summarize(metrics),
        known=known,
        success=None if known is None else summarize_success(metrics, known),
        controls=[
            compare_controls(
                scored.real,
                scores,
                scale=dataset.scale,
                success=None if known is None else known.by_episode,
            )
            for scores in scored.controls.values()
            if scores
        ],
        debias=summarize_debias(scored.real, scored.controls.get("static", []), known),
        left_out=scored.reasons,
        failed={**scored.failed, **(gvl.failed if gvl else {})},
        gvl=None if gvl is None else summarize_gvl(gvl, dataset.scores),
    )
    if config.json:
        text = json.dumps(as_json(dataset, found), indent=2, allow_nan=False)
        console.print(text, soft_wrap=True)
    else:
        _print(dataset, found, console)
    return 1 if found.failed else 0


def _controls(config: EvaluateConfig, dataset: LabelledDataset, told: Console) -> ControlScores:
    """Score the controls that were asked for, or read those that earlier runs scored."""
    if not config.control_names:
        stored = stored_controls(dataset, controls=CONTROLS, output=config.output)
        return ControlScores(real=dataset.scores, controls=stored)
    return score_controls(
        dataset,
        controls=config.control_names,
        episodes=sample_episodes(dataset, config.control_episodes),
        vlm=config.vlm_config,
        swapped_instruction=config.swapped_instruction,
        output=config.output,
        console=told,
    )


def _gvl(config: EvaluateConfig, dataset: LabelledDataset, told: Console) -> GvlResult:
    return gvl_baseline(
        dataset,
        episodes=sample_episodes(dataset, config.control_episodes),
        vlm=config.vlm_config,
        output=config.output,
        console=told,
    )


def as_json(dataset: LabelledDataset, found: Evaluation) -> dict[str, Any]:
    """Everything that was found as JSON can hold it; null where undefined."""
    known = {} if found.known is None else found.known.by_episode
    return {
        "version": __version__,
        "dataset": dataset.source.repo_id,
        "fingerprint": dataset.source.fingerprints.dataset,
        "provenance": plain(dataset.provenance),
        "groups": [
            {"name": group.name, "episodes": group.episodes, **plain(group.means)}
            for group in found.groups
        ],
        "success": plain(found.success),
        "controls": [{**plain(one), "verdict": verdict(one)} for one in found.controls],
        "debias": plain(found.debias),
        "gvl": plain(found.gvl),
        "controls_left_out": plain(found.left_out),
        "failed": plain(found.failed),
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
    print_controls(found.controls, console)
    if dataset.debias == "none":
        print_debias(found.debias, console)
    else:
        console.print("these labels are debiased; the curves above are those of the raw scores")
    print_gvl(found.gvl, console)
    for control, reason in found.left_out.items():
        console.print(f"control {control} was left out: {reason}", style="yellow")
    for episode, reason in found.failed.items():
        console.print(f"episode {episode} could not be scored: {reason}", style="yellow")
