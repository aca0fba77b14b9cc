"""Score the episodes of a job, one after another, each into its shard as soon as it is done."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from lerobot_topreward.console import EpisodeProgress, StopRequest
from lerobot_topreward.data.video import read_clips
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.files.atomic import full_disk_reported
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import Clip, PrefixScores
from lerobot_topreward.scoring.job import Job, asked
from lerobot_topreward.scoring.scorer import Scorer, SizedScorer, score_clip_controls
from lerobot_topreward.storage.store import Store
from lerobot_topreward.vlm.identity import VlmIdentity


def load_scorer(config: LabelConfig, identity: VlmIdentity) -> SizedScorer:
    """Load the VLM; transformers is imported here, so that a re-run without scoring is quick."""
    from lerobot_topreward.vlm.loading import load_vlm
    from lerobot_topreward.vlm.one_pass import OnePassScorer
    from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

    vlm = load_vlm(config.vlm, identity)
    if config.engine == "per-prefix":
        return PerPrefixScorer(vlm, max_pixels=config.max_pixels)
    return OnePassScorer(vlm, chunk_tokens=config.chunk_tokens, max_pixels=config.max_pixels)


def score_episodes(
    job: Job,
    todo: Mapping[int, Sequence[str]],
    scorer: Scorer,
    store: Store,
    *,
    progress: EpisodeProgress,
    stop: StopRequest,
    swapped: Mapping[str, str] | None = None,
    look: Callable[[Clip], None] | None = None,
) -> dict[int, str]:
    """Score episodes one after another; each becomes a shard as soon as it is done.

    Args:
        job: the dataset and what is shown of it.
        todo: which controls of which episodes.
        scorer: who judges.
        store: where the shards go.
        progress: is told of every episode.
        stop: is asked after every episode.
        swapped: the other instruction that the control "swapped" asks, by the dataset's own.
        look: is shown every clip before it is scored.

    Returns:
        The reason for every episode that failed.

    Raises:
        UserError: the disk is full; every shard so far is kept.
    """
    failed: dict[int, str] = {}
    shards: dict[str, list[PrefixScores]] = {}
    clips = read_clips(
        job.source,
        camera=job.camera,
        segments=[part for episode in todo for part in job.parts(episode)],
        sample_fps=job.config.sample_fps,
        final_frame=job.config.final_frame,
        max_images=job.config.max_images,
    )
    with closing(clips):
        for segment, clip in clips:
            episode = segment.episode_index
            if segment.start == 0:
                shards = {control: [] for control in todo[episode]}
            try:
                if episode not in failed:
                    count = job.config.prefix_count
                    if look is not None and isinstance(clip, Clip):
                        look(clip)
                    for one in score_clip_controls(
                        clip, scorer, list(shards), count, swapped=swapped
                    ):
                        shards[one.control].append(one)
            except EpisodeError as error:
                failed[episode] = str(error)
            parts = job.parts(episode)
            if segment != parts[-1]:
                continue
            if episode not in failed:
                _keep(job, store, shards, episode=episode, swapped=swapped)
            progress.episode_done(sum(part.length for part in parts))
            if stop.asked:
                break
    return failed


def _keep(
    job: Job,
    store: Store,
    shards: Mapping[str, Sequence[PrefixScores]],
    *,
    episode: int,
    swapped: Mapping[str, str] | None,
) -> None:
    with full_disk_reported(store.folder):
        for control, scores in shards.items():
            store.write(
                scores,
                fingerprint=job.fingerprints.episodes[episode],
                video=job.videos.get(episode),
                asked=asked(job.parts(episode), control, swapped),
            )
