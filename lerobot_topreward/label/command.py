"""The label command: dataset -> clips -> log-probs -> store -> rewards -> sidecar and columns."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.config import as_json
from lerobot_topreward.console import EpisodeProgress, stop_on_signal
from lerobot_topreward.data.dataset import fetch_videos
from lerobot_topreward.files.atomic import output_lock
from lerobot_topreward.files.transaction import WORK_FOLDER, finish_interrupted
from lerobot_topreward.judging.metrics import mean_defined, rise, voc
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.publish.lineage import lineage_of
from lerobot_topreward.publish.push import Destination, PushResult, check_push, push
from lerobot_topreward.records import Clip, FrameRewards, PrefixScores
from lerobot_topreward.rewards import debias_static, label_rewards
from lerobot_topreward.scoring.job import (
    Job,
    fetch_job_videos,
    find_renumbered,
    missing,
    open_job,
    score_key,
    stored_scores,
    unusable,
    without_video,
)
from lerobot_topreward.scoring.run import load_scorer, score_episodes
from lerobot_topreward.storage.columns import check_output, write_columns
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, write_sidecar
from lerobot_topreward.storage.store import (
    ScoreKey,
    Store,
    lineage,
    open_store,
    read_run,
    write_run,
)
from lerobot_topreward.vlm.identity import VlmIdentity, identify, resolve_device
from lerobot_topreward.vlm.prompts import question


@dataclass(frozen=True, slots=True)
class StaticControl:
    """What the first frame repeated does, beside the real videos; nan where undefined."""

    real_voc: float  # mean over segments, -1..1
    static_voc: float  # mean over segments whose curve is not constant, -1..1
    share: float  # mean rise of static curves over mean rise of real ones; nan if these do not rise


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a run did, for the table at its end."""

    output: Path
    store: Store
    labelled: int  # episodes with rewards, those of earlier runs included
    scored: int  # episodes that went through the VLM in this run
    failed: Mapping[int, str]  # episode -> reason
    seconds: float
    interrupted: bool = False
    static: StaticControl | None = None  # where it was scored
    pushed: PushResult | None = None


def label(config: LabelConfig, *, console: Console) -> Labelled:
    """Label a dataset; see `LabelConfig`.

    Raises:
        UserError: something that the user can mend; whatever was scored is kept.
    """
    began = time.monotonic()
    resolve_device(config.vlm.device)
    job = open_job(config)
    if config.push_to_hub:
        check_push(_destination(job), ours=lineage_of(job.source))
    identity = identify(config.vlm)
    key = score_key(job, identity)
    with _claimed(job):
        job = fetch_job_videos(job)
        store = open_store(job.output, key, fps=job.fps)
        find_renumbered(job, store)
        todo = missing(job, store)
        if store.damaged:
            console.print(_damage(store.damaged))
        failed = unusable(job) | without_video(job, todo)
        todo = {episode: controls for episode, controls in todo.items() if episode not in failed}
        shown = _shown_before(store)

        def write_running() -> None:
            write_run(store, key, run=_run(job, failed=failed, state="running", shown=shown))

        write_running()
        scored, interrupted = 0, False
        if todo:
            scored, new, interrupted = _score(
                job,
                todo,
                identity,
                store,
                shown=shown,
                write_shown=write_running,
                console=console,
            )
            failed |= new
        scores, static = stored_scores(job, store), stored_scores(job, store, control="static")
        if config.debias == "static" and not interrupted:
            scores = with_static(scores, static, console=console)
        if scores and not interrupted:
            write_rewards(job, scores, static, key, shown=sorted(shown), console=console)
            if config.debias == "static":
                console.print(f"debiased             {debias_effect(scores, static)}")
        result = Labelled(
            output=job.output,
            store=store,
            labelled=len({score.segment.episode_index for score in scores}),
            scored=scored,
            failed=failed,
            seconds=time.monotonic() - began,
            interrupted=interrupted,
            static=static_summary(scores, static),
        )
        state = "interrupted" if interrupted else "complete"
        write_run(store, key, run=_run(job, failed=failed, state=state, shown=shown, result=result))
        if config.push_to_hub and scores and not interrupted:
            result = replace(result, pushed=_push(job, key, result))
    return replace(result, seconds=time.monotonic() - began)


def _damage(episodes: Collection[int]) -> str:
    names = ", ".join(map(str, sorted(episodes)[:5])) + (", ..." if len(episodes) > 5 else "")
    return f"the stored scores of episode {names} are damaged: scored again"


@contextmanager
def _claimed(job: Job) -> Iterator[None]:
    """Hold the output folder, once it is known to be ours and in one piece."""

    def check() -> None:
        check_output(
            job.source.root,
            job.output,
            fingerprint=job.fingerprints.dataset,
            dataset=job.source.repo_id,
            recordings=job.fingerprints.recordings,
            overwrite=job.config.overwrite,
        )

    if not (job.output / WORK_FOLDER).is_dir():
        check()  # before anything is made in what may be somebody else's folder
    with output_lock(job.output):
        finish_interrupted(job.output)
        check()
        yield


def static_summary(
    real: Sequence[PrefixScores], static: Sequence[PrefixScores]
) -> StaticControl | None:
    """Compare static videos with the real ones of the same segments; None without any."""
    segments = {one.segment for one in static}
    curves = [one.log_prob_true for one in real if one.segment in segments]
    still = [one.log_prob_true for one in static]
    if not curves:
        return None
    risen = float(np.mean([rise(curve) for curve in curves]))
    return StaticControl(
        real_voc=mean_defined([voc(curve) for curve in curves]),
        static_voc=mean_defined([voc(curve) for curve in still]),
        share=float(np.mean([rise(curve) for curve in still])) / risen
        if risen > 0
        else float("nan"),
    )


def _score(
    job: Job,
    todo: Mapping[int, Sequence[str]],
    identity: VlmIdentity,
    store: Store,
    *,
    shown: set[str],
    write_shown: Callable[[], object],
    console: Console,
) -> tuple[int, dict[int, str], bool]:
    scorer = load_scorer(job.config, identity)
    warned = False

    def look(clip: Clip) -> None:
        nonlocal warned
        (height, width), (of_height, of_width) = scorer.shown_size(clip), clip.frames.shape[1:3]
        size = f"{width}x{height} of {of_width}x{of_height}"
        if size not in shown:
            shown.add(size)
            write_shown()  # before any score that it belongs to
            console.print(f"images are shown at {size}")
        shrunk = height < of_height and (2 * height < of_height or min(height, width) < 128)
        if shrunk and not warned:
            warned = True
            console.print(
                f"small images: {len(clip.shown)} of episode {clip.segment.episode_index} share one "
                f"budget and are shown at {size}; --sample-fps or --max-images shows fewer, larger",
                style="yellow",
            )

    with EpisodeProgress(console, episodes=len(todo)) as progress, stop_on_signal(console) as stop:
        failed = score_episodes(job, todo, scorer, store, progress=progress, stop=stop, look=look)
    # Asked to stop when there was nothing left to do is not interrupted.
    interrupted = stop.asked and progress.done < len(todo)
    return progress.done - len(failed), failed, interrupted


def with_static(
    scores: Sequence[PrefixScores], static: Sequence[PrefixScores], *, console: Console
) -> list[PrefixScores]:
    """The scores of the episodes that can be debiased; says which ones are left out."""
    known = {one.segment for one in static}
    lacking = {one.segment.episode_index for one in scores if one.segment not in known}
    if lacking:
        console.print(
            f"left without rewards: {len(lacking)} of the episodes that earlier runs scored, which "
            "have no static control; run again without --episodes to score it"
        )
    return [one for one in scores if one.segment.episode_index not in lacking]


def debias_effect(scores: Sequence[PrefixScores], static: Sequence[PrefixScores]) -> str:
    """Say what debiasing does to the mean VOC of the real videos."""
    before = mean_defined([voc(one.log_prob_true) for one in scores])
    after = mean_defined([voc(curve) for curve in debias_static(scores, static)])
    return f"VOC {before:.2f} -> {after:.2f} of the real videos, their static curves subtracted"


def rewards_of(
    job: Job, scores: Sequence[PrefixScores], static: Sequence[PrefixScores]
) -> FrameRewards:
    """Turn raw scores into the rewards of every frame of the dataset."""
    return label_rewards(
        scores,
        job.frames.episode_index,
        horizon=job.horizon,
        normalize=job.config.normalize,
        scale=job.config.scale,
        static=static if job.config.debias == "static" else None,
    )


def write_rewards(
    job: Job,
    scores: Sequence[PrefixScores],
    static: Sequence[PrefixScores],
    key: ScoreKey,
    *,
    shown: Sequence[str] = (),
    console: Console,
) -> None:
    """Write the sidecar, the columns or both; `shown` are the sizes of the images, in words.

    Raises:
        UserError: the output cannot be written; the raw scores are kept.
    """
    rewards = rewards_of(job, scores, static)
    provenance = {
        "version": __version__,
        "dataset": job.source.repo_id,
        "revision": job.source.revision,
        "scoring": as_json(key),
        "normalize": job.config.normalize,
        "scale": job.config.scale,
        "debias": job.config.debias,
        "horizon_frames": job.horizon,
        "shown": list(shown),
        "episodes_labelled": len({score.segment.episode_index for score in scores}),
        "episodes_total": job.source.meta.total_episodes,
    }
    if job.config.write == "sidecar":
        path = job.output / SIDECAR_NAME
        write_sidecar(path, rewards, fingerprint=job.fingerprints.dataset, provenance=provenance)
        return
    if job.config.other_cameras and not _pushes_to_source(job):
        fetch_videos(job.source)
    write_columns(
        job.source.root,
        rewards,
        job.output,
        fingerprint=job.fingerprints.dataset,
        provenance=provenance,
        recordings=job.fingerprints.recordings,
        sidecar=job.config.write == "both",
        link_videos=job.config.link_videos,
        overwrite=job.config.overwrite,
        console=console,
    )


def _pushes_to_source(job: Job) -> bool:
    # Its videos are on the Hub already: nothing has to travel through here.
    return job.config.push_to_hub and _destination(job).repo_id == job.source.repo_id


def _destination(job: Job) -> Destination:
    config, source = job.config, job.source
    return Destination(
        repo_id=source.repo_id if config.hub_repo_id is None else config.hub_repo_id,
        source_repo_id=source.repo_id,
        source_revision=source.revision,
        branch=config.branch,
        private=config.private,
        create_pr=config.create_pr,
        option="--repo-id" if config.hub_repo_id is None else "--hub-repo-id",
    )


def _push(job: Job, key: ScoreKey, result: Labelled) -> PushResult:
    config, meta = job.config, job.source.meta
    facts = CardFacts(
        source_repo_id=job.source.repo_id,
        source_revision=job.source.revision,
        vlm=key.vlm,
        vlm_revision=key.vlm_revision,
        prompt=question("{instruction}"),
        camera=job.camera,
        schedule=key.schedule,
        normalize=config.normalize,
        scale=config.scale,
        debias=config.debias,
        horizon=job.horizon,
        fps=job.fps,
        version=__version__,
        labelled=result.labelled,
        failed=len(result.failed),
        total=meta.total_episodes,
    )
    return push(job.output, _destination(job), facts=facts)


def failure_lines(failed: Mapping[int, str]) -> list[str]:
    """Say which episodes failed and why, those of one reason on one line."""
    episodes: dict[str, list[int]] = defaultdict(list)
    for episode, reason in sorted(failed.items()):
        episodes[reason].append(episode)
    return [f"{_ranges(group)} failed: {reason}" for reason, group in episodes.items()]


def _ranges(episodes: Sequence[int]) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    runs: list[list[int]] = []
    for episode in episodes:
        if runs and episode == runs[-1][-1] + 1:
            runs[-1][1:] = [episode]
        else:
            runs.append([episode])
    return f"episodes {', '.join('..'.join(map(str, run)) for run in runs)}"


def _shown_before(store: Store) -> set[str]:
    """At which sizes earlier runs showed images, as their run.json says."""
    path = store.folder / "run.json"
    before = read_run(path).get("shown") if path.exists() else None
    return {size for size in before if isinstance(size, str)} if isinstance(before, list) else set()


def _run(
    job: Job,
    *,
    failed: Mapping[int, str],
    state: str,
    shown: set[str],
    result: Labelled | None = None,
) -> dict[str, Any]:
    return {
        **lineage(job.source.repo_id, job.fingerprints.dataset, job.fingerprints.recordings),
        "state": state,
        "revision": job.source.revision,
        "version": __version__,
        "python": sys.version.split()[0],
        "config": as_json(job.config),
        "shown": sorted(shown),
        "failed": {str(episode): reason for episode, reason in failed.items()},
        "labelled": None if result is None else result.labelled,
        "seconds": None if result is None else round(result.seconds, 3),
    }
