"""A job: a dataset, what of it is to be labelled, and what its store already holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lerobot_topreward.data.dataset import (
    Source,
    fetch_videos,
    find_video,
    open_source,
    segments,
)
from lerobot_topreward.data.fingerprints import Fingerprints
from lerobot_topreward.data.frames import FrameTable
from lerobot_topreward.data.selection import parse_episodes, resolve_camera
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.files.atomic import full_disk_reported
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.storage.labels import explain_edit
from lerobot_topreward.storage.reader import default_output
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, dataset_of, fingerprint_of
from lerobot_topreward.storage.store import ScoreKey, Store, read_run
from lerobot_topreward.vlm.identity import VlmIdentity
from lerobot_topreward.vlm.prompts import question


@dataclass(frozen=True, slots=True)
class Job:
    """A dataset, what of it is to be labelled, and where the labels go."""

    config: LabelConfig
    source: Source
    camera: str  # feature key
    frames: FrameTable
    segments: Mapping[int, list[Segment] | EpisodeError]  # of the episodes asked for
    fingerprints: Fingerprints
    output: Path
    videos: Mapping[int, str] = field(default_factory=dict)  # prints, see `fetch_job_videos`

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

    def read(
        self, store: Store, parts: Sequence[Segment], control: str
    ) -> list[PrefixScores] | None:
        """The stored scores of an episode under a control; None where none fit it."""
        episode = parts[0].episode_index
        return store.read(
            parts,
            control,
            fingerprint=self.fingerprints.episodes[episode],
            video=self.videos.get(episode),
        )


def open_job(config: LabelConfig) -> Job:
    """Open the dataset and find out everything that needs neither its videos nor a VLM.

    Raises:
        UserError: what was asked for does not exist or cannot be used.
    """
    source = open_source(repo_id=config.repo_id, root=config.root, revision=config.revision)
    camera = resolve_camera(source.meta, config.camera)
    total = source.meta.total_episodes
    episodes = parse_episodes(config.episodes, total=total, max_episodes=config.max_episodes)
    cut = segments(source, episodes, instruction=config.instruction)
    if config.output is None and not config.in_place and source.revision is None:
        _refuse_edited_copy(source)
    return Job(
        config=config,
        source=source,
        camera=camera,
        frames=source.frames,
        segments=cut,
        fingerprints=source.fingerprints,
        output=_output(config, source),
    )


def _refuse_edited_copy(source: Source) -> None:
    """Refuse what was recorded into a labelled copy: a copy of the copy would know no scores."""
    sidecar = source.root / SIDECAR_NAME
    made_for = fingerprint_of(sidecar)
    if made_for in (None, source.fingerprints.dataset) or dataset_of(sidecar) in (
        None,
        source.repo_id,
    ):
        return
    raise UserError(
        f"{explain_edit(source, sidecar)}. To score this folder anew all the same, name an --output"
    )


def fetch_job_videos(job: Job) -> Job:
    """Fetch the videos of a job and take their prints: a replaced video has other scores.

    Raises:
        UserError: the Hub refuses or is out of reach.
    """
    fetch_videos(job.source, job.camera, list(job.segments))
    everyone = range(job.source.meta.total_episodes)
    prints = video_prints(job.source, camera=job.camera, episodes=everyone)
    return replace(job, videos=prints)


def _output(config: LabelConfig, source: Source) -> Path:
    if config.in_place:
        return source.root
    if config.output is not None:
        output = config.output.expanduser().absolute()
        if output.exists() and output.samefile(source.root):
            raise UserError(
                f"--output {config.output} is the dataset itself; use --in-place to label it there"
            )
        return output
    return default_output(source)


def find_renumbered(job: Job, store: Store) -> None:
    """Look in a store for episodes of a dataset that has changed since, under other numbers.

    Raises:
        UserError: the disk is full.
    """
    run = store.folder / "run.json"
    if run.is_file() and read_run(run).get("fingerprint") != job.fingerprints.dataset:
        with full_disk_reported(store.folder):
            store.renumber(job.fingerprints.episodes, job.videos)


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
        max_images=config.max_images,
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


def without_video(job: Job, episodes: Iterable[int]) -> dict[int, str]:
    """Why episodes that are to be scored have no video, known before a VLM is loaded."""
    found = {}
    for episode in episodes if job.camera in job.source.meta.video_keys else ():
        try:
            find_video(job.source, job.camera, episode)
        except EpisodeError as error:
            found[episode] = str(error)
    return found


def missing(job: Job, store: Store) -> dict[int, tuple[str, ...]]:
    """The controls that each episode asked for still lacks, episodes that lack none left out."""
    todo = {}
    for episode, parts in job.segments.items():
        if isinstance(parts, EpisodeError):
            continue
        controls = tuple(
            control
            for control in job.config.controls
            if job.config.force or job.read(store, parts, control) is None
        )
        if controls:
            todo[episode] = controls
    return todo


def stored_scores(job: Job, store: Store, *, control: str = "none") -> list[PrefixScores]:
    """Every usable score of the dataset, of episodes that earlier runs labelled too."""
    everything = segments(
        job.source,
        [i for i in range(job.source.meta.total_episodes) if store.path(i, control).exists()],
        instruction=job.config.instruction,
    )
    found: list[PrefixScores] = []
    for parts in everything.values():
        if not isinstance(parts, EpisodeError):
            found += job.read(store, parts, control) or []
    return found
