"""The check command: meta/ and data/ -> findings -> a table, or JSON."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from rich.console import Console

from lerobot_topreward.check.config import CheckConfig
from lerobot_topreward.check.table import print_check
from lerobot_topreward.console import make_console, print_json, print_next, write_command
from lerobot_topreward.data.episodes import parse_episodes
from lerobot_topreward.data.locate import fetch_files, locate_dataset
from lerobot_topreward.data.prefetch import work_ahead
from lerobot_topreward.data.recording import RecordedDataset, open_recorded
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.judging.defects import CHECKS, Check, ClockCheck
from lerobot_topreward.judging.findings import LEVELS, findings_to_json, inspect_dataset
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.pictures import (
    PictureNumbers,
    find_bad_pictures,
    join_numbers,
    measure_pictures,
)
from lerobot_topreward.records import Clip, Finding, Segment
from lerobot_topreward.vlm.prompts import question

_PART_S = 30.0  # of an episode whose pictures are in memory at a time
FOUND = 3  # exit code


@dataclass(frozen=True)
class CheckResult:
    """What was looked at, and what was found."""

    dataset: RecordedDataset
    repo_id: str
    episodes: Sequence[int]
    inspection: Inspection  # its findings, and those of the pictures
    cameras: Sequence[str]  # whose pictures were looked at
    seconds: float

    def reaches(self, level: str) -> bool:
        """Whether anything was found at a level or above it."""
        serious = LEVELS[: LEVELS.index(level) + 1]
        return any(finding.level in serious for finding in self.inspection.findings)


def check(config: CheckConfig, *, console: Console) -> int:
    """Check a dataset and print what was found; returns the exit code.

    Raises:
        UserError: see `check_dataset`.
    """
    progress = make_console(stderr=True) if config.json else console
    result = check_dataset(config, console=progress)
    if config.json:
        print_json(console, to_json(result))
    else:
        print_check(
            result.inspection,
            name=result.repo_id,
            frames=sum(result.dataset.lengths[episode] for episode in result.episodes),
            episodes=len(result.episodes),
            fps=result.dataset.fps,
            cameras=result.cameras,
            seconds=result.seconds,
            console=console,
        )
        keep = write_command("curate", of=config, output="good")
        print_next(console, "a dataset without what is broken or idle, no VLM needed", keep)
        rewards = write_command("label", of=config, normalize="task")
        print_next(console, "let a VLM judge progress and success", rewards)
    return FOUND if result.reaches(config.fail_on) else 0


def check_dataset(
    config: CheckConfig, *, checks: Sequence[Check] = (), console: Console | None = None
) -> CheckResult:
    """Look for defects in a recording, as `lerobot-topreward check` does.

    Args:
        config: the command's options; `json` and `fail_on` are not used.
        checks: your own, beside ours.
        console: where progress is shown; nowhere by default.

    Raises:
        UserError: no such dataset, or an option does not fit it.
    """
    began = time.monotonic()
    console = console or Console(quiet=True)
    chunk_size = config.chunk_size
    if config.policy_path is not None:
        chunk_size = read_chunk_size(config.policy_path)
    place = locate_dataset(repo_id=config.repo_id, root=config.root, revision=config.revision)
    dataset = open_recorded(place.root, repo_id=place.repo_id, option=place.option)
    chosen = parse_episodes(config.episodes, total=len(dataset.lengths), max_episodes=None)
    fetch_files(place.root, place.repo_id, place.revision, dataset.files_of(chosen))
    ours = [
        replace(check, chunk_size=chunk_size) if isinstance(check, ClockCheck) else check
        for check in CHECKS
    ]
    inspection = inspect_dataset(dataset, chosen, checks=[*ours, *checks])
    cameras: list[str] = []
    if config.video:
        found, cameras = _check_pictures(config, chosen, inspection, console)
        inspection = inspection.with_findings(found)
    return CheckResult(
        dataset, place.repo_id, chosen, inspection, cameras, time.monotonic() - began
    )


def read_chunk_size(folder: Path) -> int:
    """Read how many frames a policy learns at once: ACT's chunk, or Diffusion's horizon.

    Raises:
        UserError: the folder holds no policy, or one that does not say.
    """
    file = folder.expanduser() / "config.json"
    if not file.is_file():
        raise UserError(
            f"`policy_path={folder}` must be the folder of a policy; there is no {file}. It is "
            "checkpoints/last/pretrained_model in the output of a training run"
        )
    content = read_json_object(file, advice="Give the size with `chunk_size`")
    size = content.get("chunk_size", content.get("horizon"))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(
            f"`policy_path={folder}` must say chunk_size or horizon, a number of frames; got {size!r}. "
            "Give the size with `chunk_size`"
        )
    return size


def to_json(result: CheckResult) -> Mapping[str, Any]:
    """What was found as JSON holds it."""
    tasks = dict.fromkeys(task for task in result.inspection.tasks.values() if task)
    return {
        "dataset": result.repo_id,
        "episodes": len(result.episodes),
        "fps": result.dataset.fps,
        "cameras": list(result.cameras),
        **findings_to_json(result.inspection.findings, fps=result.dataset.fps),
        "questions": {task: question(task) for task in tasks},
    }


def _check_pictures(
    config: CheckConfig, chosen: Sequence[int], inspection: Inspection, console: Console
) -> tuple[list[Finding], list[str]]:
    """Sample the pictures of every camera, a part of an episode at a time."""
    # Only now: LeRobot takes seconds to import, which the numbers need not wait for.
    from lerobot_topreward.data.dataset import fetch_videos, open_source
    from lerobot_topreward.data.selection import resolve_camera
    from lerobot_topreward.data.video import read_clip

    source = open_source(repo_id=config.repo_id, root=config.root, revision=config.revision)
    cameras = [key for key in source.meta.camera_keys if key not in source.meta.depth_keys]
    if config.camera is not None or not cameras:
        cameras = [resolve_camera(source.meta, config.camera)]
    length = max(2, round(_PART_S * source.meta.fps))
    readable = [episode for episode in chosen if episode in inspection.motions]
    frames = {episode: len(inspection.motions[episode].idle) for episode in readable}
    idle: Mapping[int, Bool[np.ndarray, " frames"]] = {
        episode: inspection.motions[episode].idle for episode in readable
    }
    findings: list[Finding] = []
    for camera in cameras:
        fetch_videos(source, camera, chosen)
        parts = [
            Segment(episode, start, min(length, frames[episode] - start), "")
            for episode in readable
            for start in range(0, frames[episode], length)
        ]
        numbers: dict[int, list[PictureNumbers]] = {}
        failed: dict[int, str] = {}
        last: np.ndarray | None = None

        def read(part: Segment, camera: str = camera) -> Clip:
            return read_clip(
                source,
                camera=camera,
                segment=part,
                sample_fps=config.sample_fps,
                final_frame=False,
            )

        for segment, clip in work_ahead(read, parts):
            if isinstance(clip, EpisodeError):
                failed.setdefault(segment.episode_index, str(clip))
                continue
            before = last if segment.start else None
            index = segment.start + clip.frame_indices
            numbers.setdefault(segment.episode_index, []).append(
                measure_pictures(clip.frames, index, before)
            )
            last = clip.frames[-1]
        for episode, why in failed.items():
            findings.append(Finding(episode, "broken", "unreadable", f"{camera}: {why}"))
        joined = {
            episode: join_numbers(found)
            for episode, found in numbers.items()
            if episode not in failed
        }
        name = camera.removeprefix("observation.images.")
        findings += find_bad_pictures(name, joined, idle, config.pictures, fps=source.meta.fps)
        console.print(f"looked at {len(joined)} episodes of {name}")
    return findings, cameras
