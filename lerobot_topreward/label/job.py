"""What is to be labeled, where the labels go, and how rewards become labels: all but scoring."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.console import spell_options
from lerobot_topreward.data.dataset import Source, fetch_videos, find_video, open_source, segments
from lerobot_topreward.data.episodes import parse_episodes
from lerobot_topreward.data.selection import resolve_camera
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.files.atomic import WORK_FOLDER, output_lock, replace_file, require_space
from lerobot_topreward.files.transaction import finish_interrupted
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.publish.push import Destination
from lerobot_topreward.records import FrameRewards, PrefixScores, Segment
from lerobot_topreward.rewards import Formula, label_rewards
from lerobot_topreward.storage.blank import list_blanks
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.labels import explain_edit
from lerobot_topreward.storage.output import check_output
from lerobot_topreward.storage.reader import default_output
from lerobot_topreward.storage.sidecar import (
    ROW_BYTES,
    SIDECAR_NAME,
    dataset_of,
    fingerprint_of,
    write_sidecar,
)
from lerobot_topreward.storage.store import Shard, Store, list_shards


@dataclass(frozen=True, slots=True)
class Job:
    """A dataset, what of it is to be labeled, and where the labels go."""

    source: Source
    camera: str  # feature key
    segments: Mapping[int, list[Segment]]  # of the episodes asked for
    output: Path
    horizon: int  # the advantage's span, in frames of the dataset, at least one
    destination: Destination  # of a push


def open_job(config: LabelConfig) -> Job:
    """Open the dataset, choose camera, episodes and output.

    Raises:
        UserError: what was asked for does not exist or cannot be used.
    """
    source = open_source(repo_id=config.repo_id, root=config.root, revision=config.revision)
    camera = resolve_camera(source.meta, config.scoring.camera)
    total = source.meta.total_episodes
    episodes = parse_episodes(config.episodes, total=total, max_episodes=config.max_episodes)
    cut = segments(source, episodes, instruction=config.scoring.instruction)
    if config.output is None and not config.in_place and source.revision is None:
        # What was recorded into a labeled copy: a copy of the copy would know no scores.
        sidecar = source.root / SIDECAR_NAME
        made_for, name = fingerprint_of(sidecar), dataset_of(sidecar)
        own = (None, source.fingerprints.dataset)
        if made_for not in own and name not in (None, source.repo_id):
            raise UserError(
                f"{explain_edit(source, sidecar)}. To score this folder anew all the same, name an "
                "`output`"
            )
    output = default_output(source)
    if config.in_place:
        output = source.root
    elif config.output is not None:
        output = config.output.expanduser().absolute()
        if output.exists() and output.samefile(source.root):
            raise UserError(
                f"`output={config.output}` is the dataset itself; use `in_place` to label it there"
            )
    horizon = max(1, round(config.horizon * float(source.meta.fps)))
    destination = Destination(
        repo_id=source.repo_id if config.push.hub_repo_id is None else config.push.hub_repo_id,
        source_repo_id=source.repo_id,
        source_revision=source.revision,
        branch=config.push.branch,
        private=config.push.private,
        create_pr=config.push.create_pr,
        option="repo_id" if config.push.hub_repo_id is None else "hub_repo_id",
    )
    return Job(source, camera, cut, output, horizon, destination)


@contextmanager
def claim_output(job: Job, *, overwrite: bool) -> Iterator[None]:
    """Hold the output folder, once it is known to be ours and in one piece.

    Raises:
        UserError: it is somebody else's, in use, or cannot be written to.
    """

    def check() -> None:
        check_output(
            job.source.root,
            job.output,
            fingerprint=job.source.fingerprints.dataset,
            dataset=job.source.repo_id,
            recordings=job.source.fingerprints.recordings,
            overwrite=overwrite,
        )

    if not (job.output / WORK_FOLDER).is_dir():
        check()  # before anything is made in what may be somebody else's folder
    with output_lock(job.output):
        finish_interrupted(job.output)
        check()
        yield


@dataclass(frozen=True, slots=True)
class Work:
    """What a job still has to do."""

    todo: list[Shard]  # of episodes
    blanks: list[Shard]  # gray videos
    failed: dict[int, str]  # episodes that cannot be scored, and why


def list_work(
    config: LabelConfig,
    job: Job,
    store: Store,
    *,
    others: Mapping[str, Mapping[str, str]],
    prints: Mapping[int, str],
    fetched: bool = True,
) -> Work:
    """List what the store lacks of what is asked for; writes nothing.

    Args:
        config: the command's options.
        job: what is to be labeled.
        store: which may not exist yet.
        others: by control, the other instructions that it asks, see `list_shards`.
        prints: of the videos that are here, by episode.
        fetched: the videos that are to be scored were fetched; else those of the Hub may be missing.
    """
    scored = config.debias_scored
    controls = ["none", *(["static"] if "static" in scored else [])]
    controls += others if "contrast" in scored else []
    wanted = list_shards(
        job.segments,
        controls,
        fingerprints=job.source.fingerprints.episodes,
        videos=prints,
        asked=others,
    )
    asked = {part.instruction for parts in job.segments.values() for part in parts}
    blanks = list_blanks(job.source, store.key, asked) if "blank" in scored else []
    todo = [shard for shard in wanted if config.force or store.read(shard) is None]
    failed = find_unusable(job, todo if fetched or job.source.revision is None else [])
    return Work(
        todo=[shard for shard in todo if shard.episode not in failed],
        blanks=[shard for shard in blanks if config.force or store.read(shard) is None],
        failed=failed,
    )


def find_unusable(job: Job, todo: Sequence[Shard]) -> dict[int, str]:
    """Find the episodes that have no frames or no video, before a VLM is loaded."""
    found = {episode: "it has no frames" for episode, cut in job.segments.items() if not cut}
    if job.camera in job.source.meta.video_keys:
        for episode in dict.fromkeys(shard.episode for shard in todo):
            try:
                find_video(job.source, job.camera, episode)
            except EpisodeError as error:
                found[episode] = str(error)
    return found


def write_rewards(
    config: LabelConfig,
    job: Job,
    key: ScoreKey,
    scores: Sequence[PrefixScores],
    controls: Sequence[PrefixScores],
    *,
    formula: Formula,
    why: str | None,
    shown: Sequence[str],
    console: Console,
) -> tuple[dict[str, Any], FrameRewards]:
    """Turn scores into the rewards of every frame; write the sidecar, the columns or both.

    Args:
        config: the command's options.
        job: where from, and where to.
        key: of the scores.
        scores: of every episode that gets rewards, control "none".
        controls: what the formula subtracts.
        formula: what progress is made of.
        why: it was chosen, where nobody said so.
        shown: sizes of images, in words.
        console: where remarks are shown.

    Returns:
        How the rewards were made, as it is stored with them, and the rewards.

    Raises:
        UserError: the output cannot be written; the raw scores are kept.
    """
    source = job.source
    rewards = label_rewards(
        scores,
        source.frames.episode_index,
        horizon=job.horizon,
        normalize=config.normalize,
        formula=formula,
        controls=controls,
    )
    provenance: dict[str, Any] = {
        "version": __version__,
        "dataset": source.repo_id,
        "revision": source.revision,
        "scoring": key.to_json(),
        "normalize": config.normalize,
        "scale": formula.scale,
        "debias": formula.debias,
        "horizon_frames": job.horizon,
        "shown": list(shown),
        "episodes_labelled": len({score.segment.episode_index for score in scores}),
        "episodes_total": source.meta.total_episodes,
    }
    if formula.debias == "contrast":
        provenance["contrast"] = config.contrast
    if why is not None:
        provenance["formula"] = {"option": config.formula, "why": spell_options(why)}
    fingerprint = source.fingerprints.dataset
    if config.write == "sidecar":
        path = job.output / SIDECAR_NAME
        needed = ROW_BYTES * len(rewards.index)
        with require_space(job.output, needed=needed), replace_file(path) as draft:
            write_sidecar(draft, rewards, fingerprint=fingerprint, provenance=provenance)
        return provenance, rewards
    # What is pushed to the source itself needs no videos: they are on the Hub already.
    to_source = config.push.push_to_hub and job.destination.repo_id == source.repo_id
    if config.other_cameras and not to_source:
        fetch_videos(source)
    write_columns(
        source.root,
        rewards,
        job.output,
        fingerprint=fingerprint,
        provenance=provenance,
        recordings=source.fingerprints.recordings,
        sidecar=config.write == "both",
        link_videos=config.link_videos,
        overwrite=config.overwrite,
        console=console,
    )
    return provenance, rewards


def failure_lines(failed: Mapping[int, str]) -> list[str]:
    """Say which episodes failed and why, those of one reason on one line."""
    episodes: dict[str, list[int]] = defaultdict(list)
    for episode, reason in sorted(failed.items()):
        episodes[reason].append(episode)
    lines = []
    for reason, members in episodes.items():
        runs: list[list[int]] = []
        for episode in members:
            if runs and episode == runs[-1][-1] + 1:
                runs[-1][1:] = [episode]
            else:
                runs.append([episode])
        ranges = ", ".join("..".join(map(str, run)) for run in runs)
        lines.append(f"episode{'s' if len(members) > 1 else ''} {ranges} failed: {reason}")
    return lines
