"""What labeling writes: rewards as sidecar and columns, and what the Hub is told of them."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from lerobot_topreward import __version__
from lerobot_topreward.data.dataset import fetch_videos
from lerobot_topreward.files.atomic import replace_file, require_space
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.label.job import Job
from lerobot_topreward.publish.push import Destination
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import label_rewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.sidecar import ROW_BYTES, SIDECAR_NAME, write_sidecar


def write_rewards(
    config: LabelConfig,
    job: Job,
    key: ScoreKey,
    scores: Sequence[PrefixScores],
    static: Sequence[PrefixScores],
    *,
    shown: Sequence[str],
    console: Console,
) -> dict[str, Any]:
    """Turn scores into the rewards of every frame; write the sidecar, the columns or both; `shown` are sizes in words.

    Returns:
        How the rewards were made, as it is stored with them.

    Raises:
        UserError: the output cannot be written; the raw scores are kept.
    """
    source = job.source
    rewards = label_rewards(
        scores,
        source.frames.episode_index,
        horizon=job.horizon,
        normalize=config.normalize,
        scale=config.scale,
        static=static if config.debias == "static" else None,
    )
    provenance: dict[str, Any] = {
        "version": __version__,
        "dataset": source.repo_id,
        "revision": source.revision,
        "scoring": key.to_json(),
        "normalize": config.normalize,
        "scale": config.scale,
        "debias": config.debias,
        "horizon_frames": job.horizon,
        "shown": list(shown),
        "episodes_labelled": len({score.segment.episode_index for score in scores}),
        "episodes_total": source.meta.total_episodes,
    }
    fingerprint = source.fingerprints.dataset
    if config.write == "sidecar":
        path = job.output / SIDECAR_NAME
        needed = ROW_BYTES * len(rewards.index)
        with require_space(job.output, needed=needed), replace_file(path) as draft:
            write_sidecar(draft, rewards, fingerprint=fingerprint, provenance=provenance)
        return provenance
    # What is pushed to the source itself needs no videos: they are on the Hub already.
    to_source = (
        config.push.push_to_hub and choose_destination(config, job).repo_id == source.repo_id
    )
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
    return provenance


def choose_destination(config: LabelConfig, job: Job) -> Destination:
    """Say where the labels go on the Hub."""
    return Destination(
        repo_id=job.source.repo_id if config.push.hub_repo_id is None else config.push.hub_repo_id,
        source_repo_id=job.source.repo_id,
        source_revision=job.source.revision,
        branch=config.push.branch,
        private=config.push.private,
        create_pr=config.push.create_pr,
        option="repo_id" if config.push.hub_repo_id is None else "hub_repo_id",
    )
