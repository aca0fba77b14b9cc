"""The label command: dataset -> clips -> log-probs -> store -> rewards -> sidecar and columns."""

import errno
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.utils.constants import HF_LEROBOT_HOME
from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.card import CardFacts
from lerobot_topreward.clips import read_clips
from lerobot_topreward.config import LabelConfig, as_json
from lerobot_topreward.console import EpisodeProgress, StopRequest, stop_on_signal
from lerobot_topreward.dataset import check_output, write_columns
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.fingerprints import dataset_fingerprint, episode_fingerprints
from lerobot_topreward.prompts import question
from lerobot_topreward.push import PushResult, push
from lerobot_topreward.records import Clip, FrameRewards, PrefixScores, Segment
from lerobot_topreward.rewards import assemble, label_rewards
from lerobot_topreward.scoring import Scorer, images_shown, prefix_lengths, static_control
from lerobot_topreward.selection import parse_episodes, resolve_camera
from lerobot_topreward.sidecar import SIDECAR_NAME, write_sidecar
from lerobot_topreward.source import (
    FrameTable,
    Source,
    fetch_all_videos,
    fetch_videos,
    frame_table,
    open_source,
    segments,
)
from lerobot_topreward.store import ScoreKey, Store, open_store, output_lock, write_run
from lerobot_topreward.transaction import finish_interrupted
from lerobot_topreward.vlm.identity import VlmIdentity, identify, resolve_device


@dataclass(frozen=True, slots=True)
class Job:
    """A dataset, what of it is to be labelled, and where the labels go."""

    config: LabelConfig
    source: Source
    camera: str  # feature key
    frames: FrameTable
    segments: Mapping[int, list[Segment] | EpisodeError]  # of the episodes asked for
    fingerprint: str  # of the dataset
    fingerprints: Mapping[int, str]  # of its episodes, as this camera shows them
    output: Path


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a run did, for the table at its end."""

    output: Path
    store: Path
    labelled: int  # episodes with rewards, those of earlier runs included
    scored: int  # episodes that went through the VLM in this run
    failed: Mapping[int, str]  # episode -> reason
    seconds: float
    interrupted: bool = False
    pushed: PushResult | None = None


def label(config: LabelConfig, *, console: Console) -> Labelled:
    """Label a dataset; see `LabelConfig`.

    Raises:
        UserError: something that the user can mend; whatever was scored is kept.
    """
    began = time.monotonic()
    resolve_device(config.vlm.device)
    job = open_job(config)
    with output_lock(job.output):
        finish_interrupted(job.output)
        check_output(
            job.source.root,
            job.output,
            fingerprint=job.fingerprint,
            dataset=job.source.repo_id,
        )
        identity = identify(config.vlm)
        key = score_key(job, identity)
        store = open_store(job.output, key, dataset=job.source.repo_id)
        failed = {
            episode: str(parts)
            for episode, parts in job.segments.items()
            if isinstance(parts, EpisodeError)
        }
        todo = missing(job, store)
        write_run(store, key, run=_run(job, failed=failed, state="running"))
        scored, interrupted = 0, False
        if todo:
            scored, new, interrupted = _score(job, todo, identity, store, console=console)
            failed |= new
        scores = stored_scores(job, store)
        result = Labelled(
            output=job.output,
            store=store.folder,
            labelled=len({score.segment.episode_index for score in scores}),
            scored=scored,
            failed=failed,
            seconds=time.monotonic() - began,
            interrupted=interrupted,
        )
        state = "interrupted" if interrupted else "complete"
        if scores and not interrupted:
            write_rewards(job, scores, key)
        write_run(store, key, run=_run(job, failed=failed, state=state, result=result))
        if config.push_to_hub and scores and not interrupted:
            result = replace(result, pushed=_push(job, key, result))
    return replace(result, seconds=time.monotonic() - began)


def open_job(config: LabelConfig) -> Job:
    """Open the dataset and find out everything that needs neither its videos nor a VLM.

    Raises:
        UserError: what was asked for does not exist or cannot be used.
    """
    source = open_source(repo_id=config.repo_id, root=config.root, revision=config.revision)
    camera = resolve_camera(source.meta, config.camera)
    total = source.meta.total_episodes
    episodes = parse_episodes(config.episodes, total=total, max_episodes=config.max_episodes)
    frames = frame_table(source)
    return Job(
        config=config,
        source=source,
        camera=camera,
        frames=frames,
        segments=segments(source, frames, episodes, instruction=config.instruction),
        fingerprint=dataset_fingerprint(source, frames),
        fingerprints=episode_fingerprints(source, frames, camera=camera),
        output=_output(config, source),
    )


def _output(config: LabelConfig, source: Source) -> Path:
    if config.in_place:
        return source.root
    if config.output is not None:
        return config.output.expanduser().absolute()
    if source.revision is None:
        return source.root.with_name(f"{source.root.name}_topreward")
    return HF_LEROBOT_HOME / f"{source.repo_id}_topreward"


def score_key(job: Job, identity: VlmIdentity) -> ScoreKey:
    """Name everything that the raw scores depend on."""
    config = job.config
    return ScoreKey(
        vlm=identity.name,
        vlm_revision=identity.revision,
        dtype=identity.dtype,
        quantize=identity.quantize,
        engine=config.engine,
        prompt=question(""),
        camera=job.camera,
        instruction=config.instruction,
        sample_fps=config.sample_fps,
        final_frame=config.final_frame,
        prefixes=config.prefix_count,
        max_pixels=config.max_pixels,
    )


def missing(job: Job, store: Store) -> dict[int, tuple[str, ...]]:
    """The controls that each episode asked for still lacks, episodes that lack none left out."""
    todo = {}
    for episode, parts in job.segments.items():
        if isinstance(parts, EpisodeError):
            continue
        fingerprint = job.fingerprints[episode]
        controls = tuple(
            control
            for control in job.config.controls
            if job.config.force or store.read(parts, control, fingerprint=fingerprint) is None
        )
        if controls:
            todo[episode] = controls
    return todo


def stored_scores(job: Job, store: Store, *, control: str = "none") -> list[PrefixScores]:
    """Every usable score of the dataset, of episodes that earlier runs labelled too."""
    everything = segments(
        job.source,
        job.frames,
        [i for i in job.fingerprints if store.path(i, control).exists()],
        instruction=job.config.instruction,
    )
    found: list[PrefixScores] = []
    for episode, parts in everything.items():
        if not isinstance(parts, EpisodeError):
            fingerprint = job.fingerprints[episode]
            found += store.read(parts, control, fingerprint=fingerprint) or []
    return found


def load_scorer(config: LabelConfig, identity: VlmIdentity) -> Scorer:
    """Load the VLM; transformers is imported here, so that a re-run without scoring is quick."""
    from lerobot_topreward.vlm.loading import load_vlm
    from lerobot_topreward.vlm.one_pass import OnePassScorer
    from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

    vlm = load_vlm(config.vlm, identity)
    if config.engine == "per-prefix":
        return PerPrefixScorer(vlm, max_pixels=config.max_pixels)
    return OnePassScorer(vlm, chunk_tokens=config.chunk_tokens, max_pixels=config.max_pixels)


def _score(
    job: Job,
    todo: Mapping[int, Sequence[str]],
    identity: VlmIdentity,
    store: Store,
    *,
    console: Console,
) -> tuple[int, dict[int, str], bool]:
    scorer = load_scorer(job.config, identity)
    fetch_videos(job.source, job.camera, list(todo))
    with EpisodeProgress(console, episodes=len(todo)) as progress, stop_on_signal(console) as stop:
        failed = score_episodes(job, todo, scorer, store, progress=progress, stop=stop)
    # Asked to stop when there was nothing left to do is not interrupted.
    interrupted = stop.asked and progress.done < len(todo)
    return progress.done - len(failed), failed, interrupted


def score_episodes(
    job: Job,
    todo: Mapping[int, Sequence[str]],
    scorer: Scorer,
    store: Store,
    *,
    progress: EpisodeProgress,
    stop: StopRequest,
) -> dict[int, str]:
    """Score episodes one after another; each becomes a shard as soon as it is done.

    Returns:
        The reason for every episode that failed.

    Raises:
        UserError: the disk is full; every shard so far is kept.
    """
    failed: dict[int, str] = {}
    partial: dict[str, list[PrefixScores]] = {}
    parts = [part for episode in todo for part in _parts(job, episode)]
    clips = read_clips(
        job.source,
        camera=job.camera,
        segments=parts,
        sample_fps=job.config.sample_fps,
        final_frame=job.config.final_frame,
    )
    try:
        for segment, clip in clips:
            episode = segment.episode_index
            if segment.start == 0:
                partial = {control: [] for control in todo[episode]}
            try:
                if episode not in failed:
                    for control, scores in partial.items():
                        scores.append(score_clip(clip, scorer, control, job.config.prefix_count))
            except EpisodeError as error:
                failed[episode] = str(error)
            if segment != _parts(job, episode)[-1]:
                continue
            if episode not in failed:
                _keep(store, partial, fingerprint=job.fingerprints[episode], fps=clip_fps(job))
            progress.episode_done(sum(part.length for part in _parts(job, episode)))
            if stop.asked:
                break
    finally:
        clips.close()
    return failed


def _parts(job: Job, episode: int) -> list[Segment]:
    parts = job.segments[episode]
    if isinstance(parts, EpisodeError):
        raise parts
    return parts


def clip_fps(job: Job) -> float:
    """The dataset's clock, Hz."""
    return float(job.source.meta.fps)


def _keep(
    store: Store,
    shards: Mapping[str, Sequence[PrefixScores]],
    *,
    fingerprint: str,
    fps: float,
) -> None:
    try:
        for scores in shards.values():
            store.write(scores, fingerprint=fingerprint, fps=fps)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of {store.folder} is full; every episode scored so far is kept. Make room "
            "and run the same command again"
        ) from error


def score_clip(
    clip: Clip | EpisodeError, scorer: Scorer, control: str, count: int | None
) -> PrefixScores:
    """Score the prefixes of one clip under one control.

    Args:
        clip: what is shown, or why there is nothing to show.
        scorer: who judges.
        control: "none" or "static".
        count: prefixes to ask about, None for one per shown image.

    Raises:
        EpisodeError: there is no clip, or it cannot be scored.
    """
    if isinstance(clip, EpisodeError):
        raise clip
    segment = clip.segment
    lengths = prefix_lengths(segment.length, clip.frame_indices, count=count)
    shown = images_shown(lengths, clip.frame_indices)
    # Prefixes that show the same images have the same reward: ask once.
    distinct, which = np.unique(shown, return_inverse=True)
    seen = static_control(clip) if control == "static" else clip
    answers = scorer.score(seen, distinct.tolist(), [segment.instruction])
    return PrefixScores(
        segment=segment,
        control=control,
        prefix_length=lengths,
        frame_index=segment.start + clip.frame_indices[shown - 1],
        log_prob_true=answers.true[0][which].astype(np.float32),
        log_prob_false=answers.false[0][which].astype(np.float32),
    )


def rewards_of(job: Job, scores: Sequence[PrefixScores]) -> FrameRewards:
    """Turn raw scores into the rewards of every frame of the dataset."""
    horizon = horizon_frames(job)
    episodes = label_rewards(scores, horizon=horizon, normalize=job.config.normalize)
    frames = job.frames
    return assemble(frames.index, frames.episode_index, frames.frame_index, episodes)


def horizon_frames(job: Job) -> int:
    """The advantage's span, in frames of the dataset, at least one."""
    return max(1, round(job.config.horizon * clip_fps(job)))


def write_rewards(job: Job, scores: Sequence[PrefixScores], key: ScoreKey) -> None:
    """Write the sidecar, the columns or both.

    Raises:
        UserError: the output cannot be written; the raw scores are kept.
    """
    rewards = rewards_of(job, scores)
    provenance = {
        "version": __version__,
        "dataset": job.source.repo_id,
        "revision": job.source.revision,
        "scoring": as_json(key),
        "normalize": job.config.normalize,
        "horizon_frames": horizon_frames(job),
        "episodes_labelled": len({score.segment.episode_index for score in scores}),
        "episodes_total": job.source.meta.total_episodes,
    }
    if job.config.write == "sidecar":
        path = job.output / SIDECAR_NAME
        write_sidecar(path, rewards, fingerprint=job.fingerprint, provenance=provenance)
        return
    if job.config.other_cameras and not _pushes_to_source(job):
        fetch_all_videos(job.source)
    write_columns(
        job.source.root, rewards, job.output, fingerprint=job.fingerprint, provenance=provenance
    )


def _pushes_to_source(job: Job) -> bool:
    # Its videos are on the Hub already: nothing has to travel through here.
    target = job.config.hub_repo_id or job.source.repo_id
    return job.config.push_to_hub and target == job.source.repo_id


def _push(job: Job, key: ScoreKey, result: Labelled) -> PushResult:
    config, meta = job.config, job.source.meta
    last = " and the last frame" if key.final_frame else ""
    prefixes = "every one of them" if key.prefixes is None else f"{key.prefixes} prefixes"
    facts = CardFacts(
        source_repo_id=job.source.repo_id,
        source_revision=job.source.revision,
        vlm=key.vlm,
        vlm_revision=key.vlm_revision,
        prompt=question("{instruction}"),
        camera=job.camera,
        schedule=f"{key.sample_fps:g} per second{last}; asked after {prefixes}",
        normalize=config.normalize,
        horizon=horizon_frames(job),
        fps=clip_fps(job),
        version=__version__,
        labelled=result.labelled,
        failed=len(result.failed),
        total=meta.total_episodes,
    )
    return push(
        job.output,
        repo_id=config.hub_repo_id or job.source.repo_id,
        facts=facts,
        branch=config.branch,
        private=config.private,
        create_pr=config.create_pr,
        option="--repo-id" if config.hub_repo_id is None else "--hub-repo-id",
    )


def _run(
    job: Job, *, failed: Mapping[int, str], state: str, result: Labelled | None = None
) -> dict[str, Any]:
    return {
        "state": state,
        "dataset": job.source.repo_id,
        "revision": job.source.revision,
        "fingerprint": job.fingerprint,
        "version": __version__,
        "python": sys.version.split()[0],
        "config": as_json(job.config),
        "failed": {str(episode): reason for episode, reason in failed.items()},
        "labelled": None if result is None else result.labelled,
        "seconds": None if result is None else round(result.seconds, 3),
    }
