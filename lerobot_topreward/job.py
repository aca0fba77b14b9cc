"""A job: a dataset, what of it is to be labelled, and what its store already holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot_topreward.config import LabelConfig
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.fingerprints import dataset_fingerprint, episode_fingerprints
from lerobot_topreward.labelled import default_output
from lerobot_topreward.prompts import question
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.selection import parse_episodes, resolve_camera
from lerobot_topreward.source import FrameTable, Source, frame_table, open_source, segments
from lerobot_topreward.store import ScoreKey, Store
from lerobot_topreward.vlm.identity import VlmIdentity


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

    @property
    def fps(self) -> float:
        """The dataset's clock, Hz."""
        return float(self.source.meta.fps)

    @property
    def horizon(self) -> int:
        """The advantage's span, in frames of the dataset, at least one."""
        return max(1, round(self.config.horizon * self.fps))

    def parts(self, episode: int) -> list[Segment]:
        """The segments of an episode.

        Raises:
            EpisodeError: it has none.
        """
        parts = self.segments[episode]
        if isinstance(parts, EpisodeError):
            raise parts
        return parts


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
    return default_output(source)


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


def unusable(job: Job) -> dict[int, str]:
    """Why episodes asked for cannot be labelled, known before they are read."""
    return {i: str(why) for i, why in job.segments.items() if isinstance(why, EpisodeError)}


def asked(
    parts: Sequence[Segment], control: str, swapped: Mapping[str, str] | None
) -> list[str] | None:
    """What a control asks of each segment, where that is not its own instruction."""
    if control != "swapped" or swapped is None:
        return None
    return [swapped[part.instruction] for part in parts]


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
