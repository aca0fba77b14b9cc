"""The evaluate command: labels -> metrics, success, controls, baseline -> tables or JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.console import (
    make_console,
    print_json,
    print_next,
    spell_options,
    write_command,
)
from lerobot_topreward.data.success import read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.evaluate.config import EvaluateConfig
from lerobot_topreward.evaluate.gvl import gvl_baseline
from lerobot_topreward.evaluate.summary import (
    GroupSummary,
    GvlSummary,
    SuccessSummary,
    summarize,
    summarize_gvl,
    summarize_success,
)
from lerobot_topreward.evaluate.table import (
    print_controls,
    print_formulas,
    print_groups,
    print_gvl,
    print_recording,
    print_success,
    print_worst,
)
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.controls import ControlSummary, compare_controls, judge_control
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.findings import findings_to_json
from lerobot_topreward.judging.formulas import (
    FormulaComparison,
    compare_formulas,
    formulas_to_json,
)
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.judgment import (
    Judgment,
    judge_labels,
    judgment_to_json,
    print_judgment,
)
from lerobot_topreward.judging.kept_inspection import try_inspecting
from lerobot_topreward.records import EpisodeMetrics
from lerobot_topreward.rewards import Formula
from lerobot_topreward.scoring.control_scores import (
    ControlScores,
    read_baselines,
    read_controls,
    sample_episodes,
    score_controls,
)
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was found."""

    dataset: LabelledDataset
    metrics: Sequence[EpisodeMetrics]
    groups: Sequence[GroupSummary]
    truth: Mapping[int, bool]  # whether an episode succeeded, as far as it is known
    success: SuccessSummary | None
    controls: Sequence[ControlSummary]
    judgment: Judgment
    formulas: FormulaComparison
    left_out: Mapping[str, str]  # control -> why it could not be scored
    failed: Mapping[int, str]  # episode -> why its controls or baseline could not be scored
    gvl: GvlSummary | None  # where it was asked for
    recording: Inspection | UserError  # what it says of itself, or why it cannot be inspected


def evaluate(config: EvaluateConfig, *, console: Console) -> int:
    """Evaluate a labeled dataset and print what was found; returns the exit code.

    Raises:
        UserError: see `evaluate_dataset`.
    """
    progress = make_console(stderr=True) if config.json else console  # is not part of the JSON
    found = evaluate_dataset(config, console=progress)
    if config.json:
        print_json(console, to_json(found))
    else:
        print_evaluation(found, console)
        if found.judgment.usable:
            line = None if found.success is None else found.success.threshold
            limit = None if line is None else f"{line.value:.3f}"
            keep = write_command("curate", of=config, min_success=limit)
            print_next(console, "choose which ones to keep", keep)
    return 1 if found.failed else 0


def evaluate_dataset(config: EvaluateConfig, *, console: Console | None = None) -> Evaluation:
    """Evaluate a labeled dataset, as `lerobot-topreward evaluate` does.

    Args:
        config: the command's options; `json` is not used.
        console: where the progress of scoring is shown; nowhere by default.

    Raises:
        UserError: no such dataset, not labeled, or a control cannot be scored.
    """
    console = console or Console(quiet=True)
    dataset = open_labelled(
        repo_id=config.repo_id, root=config.root, revision=config.revision, labels=config.labels
    )
    if not dataset.scores:
        raise UserError(f"{dataset.labels} has no labeled episode; label some, then evaluate")
    success = read_success(dataset.source, config.success_file)
    truth = {} if success is None else success.by_episode
    metrics = episode_metrics(dataset.scores, dataset.rewards(), fps=dataset.fps)

    # Controls and baseline: score those that were asked for, or read what earlier runs scored.
    sample = sample_episodes(dataset, config.control_episodes)
    controls = None
    if config.control_names:
        controls = score_controls(
            dataset,
            controls=config.control_names,
            episodes=sample,
            vlm=config.vlm_config,
            swapped_instruction=config.swapped_instruction,
            output=config.output,
            console=console,
            server=config.server,
            reward_model=config.reward_model,
        )
    undebiased = Formula(dataset.formula.scale)
    gvl = None
    if config.baseline == "gvl":
        gvl = gvl_baseline(
            dataset, episodes=sample, vlm=config.vlm_config, output=config.output, console=console
        )

    # The judgment and the formulas take all that is stored, whatever was asked for now: other commands
    # know no more.
    stored = read_controls(dataset, output=config.output)
    controls = controls or ControlScores(real=dataset.scores, controls=stored)
    evidence = [scores for found in stored.values() for scores in found]
    evidence += read_baselines(dataset, output=config.output)
    return Evaluation(
        dataset=dataset,
        metrics=metrics,
        groups=summarize(metrics),
        truth=truth,
        success=None if success is None else summarize_success(metrics, success),
        controls=[
            compare_controls(controls.real, scores, formula=undebiased, success=truth)
            for scores in controls.controls.values()
            if scores
        ],
        judgment=judge_labels(dataset, controls=stored, success=success, metrics=metrics),
        formulas=compare_formulas(dataset.scores, evidence, success=truth),
        left_out=controls.reasons,
        failed={**controls.failed, **(gvl.failed if gvl else {})},
        gvl=None if gvl is None else summarize_gvl(gvl, dataset.scores),
        recording=try_inspecting(dataset.source, labels=dataset.labels),
    )


def to_json(found: Evaluation) -> dict[str, Any]:
    """Put everything that was found as JSON can hold it; null where undefined."""
    dataset = found.dataset
    recording: Mapping[str, Any]
    if isinstance(found.recording, UserError):
        recording = {"counts": None, "findings": [], "reason": spell_options(str(found.recording))}
    else:
        recording = {**findings_to_json(found.recording.findings, fps=dataset.fps), "reason": None}
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
        "controls": [
            {**plain(control), "verdict": spell_options(judge_control(control).text)}
            for control in found.controls
        ],
        "judgment": judgment_to_json(found.judgment),
        "formulas": formulas_to_json(found.formulas),
        "gvl": plain(found.gvl),
        "recording": recording,
        "controls_left_out": {name: spell_options(why) for name, why in found.left_out.items()},
        "failed": {str(episode): spell_options(why) for episode, why in found.failed.items()},
        "episodes": [
            {**plain(episode), "success": found.truth.get(episode.episode_index)}
            for episode in found.metrics
        ],
    }


def print_evaluation(found: Evaluation, console: Console) -> None:
    """Print everything that was found as tables."""
    dataset = found.dataset
    total = dataset.source.meta.total_episodes
    console.print(f"dataset  {dataset.source.repo_id}, {len(found.metrics)} of {total} labeled")
    console.print(f"labels   by {dataset.key.judge} on {dataset.key.camera}, in {dataset.labels}")
    by_episode = dataset.provenance.get("normalize") == "episode"
    console.print(
        f"progress here is {dataset.known_formula.words}, scaled per task so that episodes compare"
        + ("; the dataset's own columns are scaled per episode" if by_episode else "")
    )
    print_groups(found.groups, console)
    print_worst(found.metrics, found.truth, console)
    print_success(found.success, console)
    print_controls(found.controls, console)
    if dataset.formula.debias != "none":
        console.print("these labels are debiased; the curves above are those of the raw scores")
    print_formulas(found.formulas, console)
    print_gvl(found.gvl, console)
    print_recording(found.recording, console)
    print_judgment(found.judgment, console)
    for control, reason in found.left_out.items():
        console.print(f"control {control} was left out: {reason}", style="yellow")
    for episode, reason in found.failed.items():
        console.print(f"episode {episode} could not be scored: {reason}", style="yellow")
