"""What is to be labeled, and where the labels go."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lerobot_topreward.console import name_episodes
from lerobot_topreward.data.dataset import Source, open_source, segments
from lerobot_topreward.data.episodes import parse_episodes
from lerobot_topreward.data.selection import resolve_camera
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import WORK_FOLDER, output_lock
from lerobot_topreward.files.transaction import finish_interrupted
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.publish.push import Destination
from lerobot_topreward.records import Segment
from lerobot_topreward.storage.labels import explain_edit
from lerobot_topreward.storage.output import check_output
from lerobot_topreward.storage.reader import default_output
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, dataset_of, fingerprint_of


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
def claim_output(job: Job, *, overwrite: bool, wait_s: float = 0) -> Iterator[None]:
    """Hold the output folder, once it is known to be ours and in one piece.

    It waits so many seconds for another run to end.

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
    with output_lock(job.output, wait_s=wait_s):
        finish_interrupted(job.output)
        check()
        yield


def failure_lines(failed: Mapping[int, str]) -> list[str]:
    """Say which episodes failed and why, those of one reason on one line."""
    episodes: dict[str, list[int]] = defaultdict(list)
    for episode, reason in sorted(failed.items()):
        episodes[reason].append(episode)
    lines = []
    for reason, members in episodes.items():
        lines.append(f"{name_episodes(members)} failed: {reason}")
    return lines
