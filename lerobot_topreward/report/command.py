"""The report command: a labelled dataset becomes one HTML page, and perhaps a Rerun recording."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lerobot_topreward import __version__
from lerobot_topreward.data.dataset import fetch_videos
from lerobot_topreward.data.selection import resolve_camera
from lerobot_topreward.data.success import Success, read_success
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import drafted
from lerobot_topreward.files.jsonable import read_index
from lerobot_topreward.judging.decisions import check_decisions, read_decisions
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.rules import RulesConfig, judge
from lerobot_topreward.records import Segment
from lerobot_topreward.report.config import ReportConfig
from lerobot_topreward.report.content import (
    Findings,
    controls,
    episode_contents,
    success_auc,
    unlabelled,
)
from lerobot_topreward.report.media import EpisodeMedia, Footage, NoPictures, read_strips
from lerobot_topreward.report.page import Page, render
from lerobot_topreward.report.recording import check_rerun, write_recording
from lerobot_topreward.report.video import read_videos
from lerobot_topreward.scoring.control_scores import stored_controls
from lerobot_topreward.scoring.scorer import CONTROLS
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.storage.run_record import read_run

_NAMED = 5  # episodes without pictures that the terminal lists
_BASE64 = 3 / 4  # bytes of pictures in a byte of text
_EPISODE_BYTES = 800  # of text around the pictures of an episode


def report(config: ReportConfig, *, console: Console) -> int:
    """Make the page; returns the exit code.

    Raises:
        UserError: no such dataset, not labelled, or the page cannot be written.
    """
    began = time.monotonic()
    with ExitStack() as drafts:
        page_draft = drafts.enter_context(drafted(config.output, option="--output"))
        rerun_draft = None
        if config.rerun is not None:
            check_rerun()
            rerun_draft = drafts.enter_context(drafted(config.rerun, option="--rerun"))
        dataset = open_labelled(
            repo_id=config.repo_id, root=config.root, revision=config.revision, labels=config.labels
        )
        if not dataset.scores:
            raise UserError(f"{dataset.labels} has no labelled episode; label some, then report")
        camera = resolve_camera(dataset.source.meta, config.camera or dataset.key.camera)
        known = read_success(dataset.source, config.success_file)
        findings = find(dataset, config.rules, known)
        footage = Footage(dataset.source, camera, _parts(findings))
        page = make_page(dataset, findings, known, config=config, camera=camera)
        media = read_media(footage, dataset, config=config, page=page, console=console)
        with page_draft.writing() as path:
            size = path.write_bytes(render(page, media).encode("utf-8", "replace"))
        if rerun_draft is not None:
            _fetch(footage)
            with rerun_draft.writing() as path:
                write_recording(
                    path,
                    footage,
                    findings.rewards,
                    name=page.title,
                    sample_fps=dataset.key.sample_fps,
                )
    _print_missing(media, console)
    if size > config.max_mb * 1e6:
        console.print(f"the curves alone take more than --max-mb {config.max_mb:g}", style="yellow")
    if config.rerun is not None:
        console.print(f"rerun   {config.rerun} ({config.rerun.stat().st_size / 1e6:.1f} MB)")
    seconds = time.monotonic() - began
    console.print(f"report  {config.output} ({size / 1e6:.1f} MB, {seconds:.1f} s)")
    return 0


def find(dataset: LabelledDataset, rules: RulesConfig, known: Success | None) -> Findings:
    """Gather what is known of the labelled episodes, controls in the store included."""
    rewards = dataset.rewards()
    metrics = episode_metrics(dataset.scores, rewards, fps=dataset.fps)
    return Findings(
        scores=dataset.scores,
        rewards=rewards,
        metrics=metrics,
        verdicts=judge(metrics, rules),
        success={} if known is None else known.by_episode,
        controls=stored_controls(dataset, controls=CONTROLS),
        horizon=dataset.horizon,
        scale=dataset.scale,
    )


def make_page(
    dataset: LabelledDataset,
    findings: Findings,
    known: Success | None,
    *,
    config: ReportConfig,
    camera: str,
) -> Page:
    """Put everything but the pictures together."""
    decisions = _decisions(config.rules, dataset)
    run = dataset.store.folder / "run.json"
    failed = read_run(run).get("failed") if run.is_file() else None
    by_task = dataset.provenance.get("normalize") == "task"
    debiased = dataset.debias == "static" and (bool(dataset.static) or by_task)
    return Page(
        title=config.title or dataset.source.repo_id,
        dataset=dataset.source.repo_id,
        fingerprint=dataset.fingerprint,
        version=__version__,
        made=time.strftime("%Y-%m-%d %H:%M"),
        vlm=dataset.key.vlm,
        camera=camera,
        scored_camera=dataset.key.camera,
        fps=dataset.fps,
        horizon=dataset.horizon / dataset.fps,
        scale=dataset.scale,
        debiased=debiased,
        columns=_columns(dataset, debiased=debiased),
        rules=config.rules.in_force().named,
        success_origin=None if known is None else known.origin,
        success_auc=success_auc(findings),
        controls=controls(findings),
        episodes=episode_contents(findings),
        unlabelled=unlabelled(
            dataset.episodes,
            total=dataset.source.meta.total_episodes,
            failed={
                episode: str(why)
                for name, why in (failed.items() if isinstance(failed, dict) else ())
                if (episode := read_index(name)) is not None
            },
        ),
        decisions={episode: "keep" if keep else "drop" for episode, keep in decisions.items()},
    )


def _columns(dataset: LabelledDataset, *, debiased: bool) -> str | None:
    """How the dataset's own progress differs from the page's, which lets episodes compare."""
    differs = []
    if dataset.provenance.get("normalize") == "episode":
        differs.append("scaled within each episode")
    if dataset.debias == "static" and not debiased:
        differs.append("beyond what the first frame repeated earns")
    return " and ".join(differs) or None


def read_media(
    footage: Footage,
    dataset: LabelledDataset,
    *,
    config: ReportConfig,
    page: Page,
    console: Console,
) -> dict[int, EpisodeMedia]:
    """Read the pictures of all episodes, as good as the size of the page allows.

    Args:
        footage: whose.
        dataset: which the footage is of.
        config: how, and how large the page may be.
        page: what else it holds.
        console: where the progress is shown.

    Raises:
        UserError: the Hub refuses or is out of reach.
    """
    if config.videos == "none":
        return {}
    _fetch(footage)
    left = config.max_mb * 1e6 - len(render(page, {})) - _EPISODE_BYTES * len(page.episodes)
    room = max(0, int(left * _BASE64))
    with _progress(footage, console) as done:
        if config.videos == "strip":
            return read_strips(footage, sample_fps=dataset.key.sample_fps, room=room, done=done)
        return read_videos(footage, room=room, done=done)


def _fetch(footage: Footage) -> None:
    try:
        fetch_videos(footage.source, footage.camera, list(footage.episodes))
    except UserError as error:
        raise UserError(f"{error}. To do without pictures: --videos none") from error


@contextmanager
def _progress(footage: Footage, console: Console) -> Iterator[Callable[[int], None]]:
    """Count frames: a bar on a terminal, a line elsewhere."""
    columns = (TextColumn("reading pictures"), BarColumn(), TimeRemainingColumn())
    if not console.is_terminal:
        console.print(f"reading the pictures of {len(footage.episodes)} episodes")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(footage.frames(i) for i in footage.episodes))
        yield lambda frames: bar.update(task, advance=frames)


def _parts(findings: Findings) -> dict[int, list[Segment]]:
    parts: dict[int, list[Segment]] = defaultdict(list)
    for one in findings.scores:
        parts[one.segment.episode_index].append(one.segment)
    return dict(parts)


def _decisions(rules: RulesConfig, dataset: LabelledDataset) -> Mapping[int, bool]:
    if rules.decisions is None:
        return {}
    decisions = read_decisions(rules.decisions)
    check_decisions(decisions, dataset)
    return decisions.by_episode


def _print_missing(media: Mapping[int, EpisodeMedia], console: Console) -> None:
    missing: Sequence[tuple[int, str]] = [
        (episode, one.pictures.reason)
        for episode, one in sorted(media.items())
        if isinstance(one.pictures, NoPictures)
    ]
    for episode, reason in missing[:_NAMED]:
        console.print(f"episode {episode} has no pictures: {reason}", style="yellow")
    if len(missing) > _NAMED:
        console.print(f"and {len(missing) - _NAMED} more have none", style="yellow")
