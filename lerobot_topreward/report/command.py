"""The report command: a labeled dataset becomes one HTML page, and perhaps a Rerun recording."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import nan

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lerobot_topreward import __version__
from lerobot_topreward.console import print_next, spell_options, write_command
from lerobot_topreward.data.dataset import Source, fetch_videos
from lerobot_topreward.data.selection import resolve_camera
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import open_draft
from lerobot_topreward.files.jsonable import read_index
from lerobot_topreward.judging.controls import compare_controls
from lerobot_topreward.judging.decisions import Note, check_decisions, read_decisions
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.judgment import judge_labels, judgment_to_json
from lerobot_topreward.judging.kept_inspection import try_inspecting
from lerobot_topreward.judging.metrics import roc_auc
from lerobot_topreward.judging.rules import RULES, find_drops
from lerobot_topreward.report.config import ReportConfig
from lerobot_topreward.report.content import (
    EpisodeContent,
    Findings,
    episode_contents,
    page_metrics,
    recording_content,
)
from lerobot_topreward.report.media import EpisodeMedia, Footage, read_strips
from lerobot_topreward.report.others import read_others
from lerobot_topreward.report.page import Page, render
from lerobot_topreward.report.recording import check_rerun, write_recording
from lerobot_topreward.report.signals import read_signals
from lerobot_topreward.report.weights import WeightsContent, weights_content
from lerobot_topreward.rewards import Formula
from lerobot_topreward.scoring.control_scores import read_controls
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.storage.store import read_run
from lerobot_topreward.storage.weights import read_weights

_BASE64 = 3 / 4  # bytes of pictures in a byte of text
_EPISODE_BYTES = 120  # of text: that an episode has no pictures
_SIGNALS_SHARE = 0.2  # of the page, for commands and readings
_WEIGHTS_SHARE = 0.1  # for weights in training


def report(config: ReportConfig, *, console: Console) -> int:
    """Make the page; returns the exit code.

    Raises:
        UserError: no such dataset, not labeled, or the page cannot be written.
    """
    began = time.monotonic()
    with ExitStack() as drafts:
        page_draft = drafts.enter_context(open_draft(config.output, option="output"))
        rerun_draft = None
        if config.rerun is not None:
            check_rerun()
            rerun_draft = drafts.enter_context(open_draft(config.rerun, option="rerun"))
        dataset = open_labelled(
            repo_id=config.repo_id, root=config.root, revision=config.revision, labels=config.labels
        )
        if not dataset.scores:
            raise UserError(f"{dataset.labels} has no labeled episode; label some, then report")
        known = read_success(dataset.source, config.success_file)
        weights = None if config.weights is None else _read_weights(config, dataset)
        page, findings = _make_page(config, dataset, known, weights)
        parts = {episode.index: episode.parts for episode in page.episodes}
        footage = Footage(dataset.source, page.camera, parts)
        if config.videos == "strip" or rerun_draft is not None:
            try:
                fetch_videos(footage.source, footage.camera, list(footage.episodes))
            except UserError as error:
                raise UserError(f"{error}. To do without pictures: `videos=none`") from error
        signals = read_signals(
            dataset.source.root,
            repo_id=dataset.source.repo_id,
            episodes=[*parts],
            budget=int(_SIGNALS_SHARE * config.max_mb * 1e6),
        )
        media: Mapping[int, EpisodeMedia] = {}
        others: dict[str, Mapping[int, EpisodeMedia]] = {}
        if config.videos == "strip":
            text = render(page, {}, signals=signals, weights=weights)
            taken = len(text) + _EPISODE_BYTES * len(parts)
            budget = max(0, int((config.max_mb * 1e6 - taken) * _BASE64))
            extra = _other_cameras(dataset.source, page.camera) if config.all_cameras else []
            order = [episode.index for episode in sorted(page.episodes, key=_concern)]
            # Half of the room for the camera that matters most, the rest for the others alike.
            rooms = [budget // 2, *[budget // (2 * len(extra))] * len(extra)] if extra else [budget]
            for camera, room in zip([page.camera, *extra], rooms, strict=True):
                seen = replace(footage, camera=camera)
                if extra:
                    fetch_videos(seen.source, camera, list(seen.episodes))
                with _count_frames(seen, console) as done:
                    strips = read_strips(
                        seen,
                        sample_fps=dataset.key.sample_fps,
                        budget=room,
                        done=done,
                        first=order,
                    )
                others[camera] = strips
            media = others.pop(page.camera)
        with page_draft.writing() as path:
            text = render(page, media, others=others, signals=signals, weights=weights)
            size = path.write_bytes(text.encode("utf-8", "replace"))
        if rerun_draft is not None:
            with rerun_draft.writing() as path:
                write_recording(
                    path,
                    footage,
                    findings.rewards,
                    name=page.title,
                    sample_fps=dataset.key.sample_fps,
                )
    if page.recording.reason is not None:
        console.print(f"recording not checked: {page.recording.reason}", style="yellow")
    without: dict[str, list[int]] = {}
    for episode, shown in sorted(media.items()):
        if shown.reason is not None:
            without.setdefault(shown.reason, []).append(episode)
    for reason, episodes in without.items():
        who = (
            f"episode {episodes[0]} has" if len(episodes) == 1 else f"{len(episodes)} episodes have"
        )
        console.print(f"{who} no pictures: {reason}", style="yellow")
    if size > config.max_mb * 1e6:
        console.print(f"the curves alone take more than `max_mb={config.max_mb:g}`", style="yellow")
    if config.rerun is not None:
        console.print(f"rerun   {config.rerun} ({config.rerun.stat().st_size / 1e6:.1f} MB)")
    seconds = time.monotonic() - began
    console.print(f"report  {config.output} ({size / 1e6:.1f} MB, {seconds:.1f} s)")
    keep = write_command("curate", of=config, decisions="decisions.json")
    print_next(console, "open it in a browser, mark episodes and save the decisions; then", keep)
    return 0


def _other_cameras(source: Source, camera: str) -> list[str]:
    """Name the color cameras but the one whose pictures come first."""
    meta = source.meta
    return [key for key in meta.camera_keys if key != camera and key not in meta.depth_keys]


def _concern(episode: EpisodeContent) -> tuple[bool, float]:
    """Order episodes: those that a rule drops, then those with the lowest success scores."""
    return not episode.drops, episode.metrics["success_score"]


def _read_weights(config: ReportConfig, dataset: LabelledDataset) -> WeightsContent:
    frames, fingerprint = dataset.source.frames, dataset.source.fingerprints.dataset
    assert config.weights is not None
    path = config.weights.expanduser()
    found = read_weights(path, fingerprint=fingerprint, frames=len(frames.index))
    budget = int(_WEIGHTS_SHARE * config.max_mb * 1e6)
    return weights_content(found, frames, episodes=dataset.episodes, budget=budget)


def _make_page(
    config: ReportConfig,
    dataset: LabelledDataset,
    known: Success | None,
    weights: WeightsContent | None,
) -> tuple[Page, Findings]:
    """Put everything but the pictures together, controls in the store included."""
    camera = resolve_camera(dataset.source.meta, config.camera or dataset.key.camera)
    rewards = dataset.rewards()
    metrics = episode_metrics(dataset.scores, rewards, fps=dataset.fps)
    recording = try_inspecting(dataset.source, labels=dataset.labels)
    inspection = recording if isinstance(recording, Inspection) else None
    judges, others = read_others(dataset)
    findings = Findings(
        scores=dataset.scores,
        rewards=rewards,
        metrics=metrics,
        drops=find_drops(metrics, config.rules.with_default(inspection), inspection),
        success={} if known is None else known.by_episode,
        controls=read_controls(dataset),
        horizon=dataset.horizon,
        recording=recording,
        others=others,
        weights=None if weights is None else weights.means,
    )
    decisions: Mapping[int, bool] = {}
    notes: Mapping[int, Note] = {}
    if config.rules.decisions is not None:
        earlier = read_decisions(config.rules.decisions)
        check_decisions(earlier, dataset.source)
        decisions, notes = earlier.by_episode, earlier.notes
    run = dataset.store.folder / "run.json"
    failed = read_run(run).get("failed") if run.is_file() else None
    reasons = {
        read_index(name): str(why)
        for name, why in (failed.items() if isinstance(failed, dict) else ())
    }
    static = findings.controls.get("static")
    judged = [found for found in metrics if found.episode_index in findings.success]
    # How the dataset's own progress differs from the page's, which lets episodes compare.
    normalize = dataset.provenance.get("normalize")
    columns = ["scaled within each episode"] if normalize == "episode" else []
    formula = dataset.formula if normalize == "task" else dataset.known_formula
    if formula != dataset.formula:
        columns.append(f"made of {dataset.formula.words}")
    rules = {
        name: limit
        for name, limit in config.rules.with_default(inspection).in_force.items()
        if inspection is not None or not RULES[name].of_recording
    }
    page = Page(
        title=config.title or dataset.source.repo_id,
        dataset=dataset.source.repo_id,
        fingerprint=dataset.source.fingerprints.dataset,
        version=__version__,
        made=time.strftime("%Y-%m-%d %H:%M"),
        vlm=dataset.key.judge,
        camera=camera,
        scored_camera=dataset.key.camera,
        fps=dataset.fps,
        horizon=dataset.horizon / dataset.fps,
        made_of=formula.words,
        columns=" and ".join(columns) or None,
        rules=rules,
        rule_texts={name: RULES[name].describe(limit) for name, limit in rules.items()},
        command=_spell_curate(config, dataset),
        metrics=page_metrics(findings),
        success_origin=None if known is None else spell_options(known.origin),
        success_auc=roc_auc(
            np.array([found.success_score for found in judged]),
            np.array([findings.success[found.episode_index] for found in judged], dtype=bool),
        ),
        judgment=judgment_to_json(
            judge_labels(dataset, controls=findings.controls, success=known, metrics=metrics)
        ),
        static_share=nan
        if static is None
        else compare_controls(dataset.scores, static, formula=Formula(dataset.formula.scale)).share,
        episodes=episode_contents(findings),
        recording=recording_content(recording),
        unlabelled={
            episode: reasons.get(episode)
            for episode in sorted(
                {*range(dataset.source.meta.total_episodes)} - {*dataset.episodes}
            )
        },
        decisions={episode: "keep" if keep else "drop" for episode, keep in decisions.items()},
        notes=notes,
        judges=judges,
    )
    return page, findings


def _spell_curate(config: ReportConfig, dataset: LabelledDataset) -> str:
    """Spell the command that curates this dataset, without the rules: the page adds those."""
    partly = len(dataset.episodes) < dataset.source.meta.total_episodes
    command = write_command(
        "curate",
        of=config,
        success_file=config.success_file,
        unlabelled="keep" if partly else None,
    )
    return spell_options(command)


@contextmanager
def _count_frames(footage: Footage, console: Console) -> Iterator[Callable[[int], None]]:
    """Count frames: a bar on a terminal, a line elsewhere."""
    columns = (TextColumn("reading pictures"), BarColumn(), TimeRemainingColumn())
    if not console.is_terminal:
        console.print(f"reading the pictures of {len(footage.episodes)} episodes")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(footage.frames(i) for i in footage.episodes))
        yield lambda frames: bar.update(task, advance=frames)
