"""A Rerun recording: for every episode what the camera saw, with progress and advantage over time."""

import importlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lerobot_topreward.data.dataset import find_video
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.report.media import Footage

_CLOCK = "episode_time"  # s since the episode began


def check_rerun() -> None:
    """Refuse early where Rerun is missing.

    Raises:
        UserError: says how to install it.
    """
    if find_spec("rerun") is None:
        raise UserError(
            "`rerun` needs Rerun, which is not installed: pip install 'lerobot-topreward[viz]'"
        )


def write_recording(
    path: Path,
    footage: Footage,
    rewards: FrameRewards,
    *,
    name: str,
    sample_fps: float,
) -> None:
    """Write a recording with a tab for every episode.

    Args:
        path: a new file.
        footage: of the episodes, its videos at hand; one without a video has curves alone.
        rewards: of the same episodes.
        name: of the recording.
        sample_fps: pictures per second where the dataset holds images instead of videos, Hz.

    Raises:
        UserError: Rerun is missing.
        OSError: it cannot be written.
    """
    check_rerun()
    # By name: type checkers need not have what only this extra installs.
    rr, rrb = (importlib.import_module(f"rerun{part}") for part in ("", ".blueprint"))
    fps = float(footage.source.meta.fps)
    episodes = np.unique(rewards.episode_index[rewards.labelled]).tolist()
    recording = rr.RecordingStream("lerobot-topreward", recording_id=name)
    recording.save(path, default_blueprint=_blueprint(rrb, episodes))
    videos: dict[Path, str] = {}
    for episode in episodes:
        reward, entity = rewards.episode(episode), _entity(episode)
        times = rr.TimeColumn(_CLOCK, duration=np.arange(len(reward.progress)) / fps)
        for what in ("progress", "advantage"):
            values = getattr(reward, what).astype(np.float64)
            recording.send_columns(f"{entity}/{what}", [times], rr.Scalars.columns(scalars=values))
        if footage.camera in footage.source.meta.video_keys:
            _log_video(rr, recording, footage, episode, times=times, videos=videos)
        else:
            _log_images(rr, recording, footage, episode, sample_fps=sample_fps)
    recording.disconnect()  # which finishes the file


def _blueprint(rrb: Any, episodes: Sequence[int]) -> object:
    tabs = []
    for episode in episodes:
        entity = _entity(episode)
        curves = [f"{entity}/progress", f"{entity}/advantage"]
        tabs.append(
            rrb.Vertical(
                rrb.Spatial2DView(origin=f"{entity}/camera", name="camera"),
                rrb.TimeSeriesView(origin=entity, contents=curves, name="rewards"),
                row_shares=[3, 2],
                name=f"episode {episode}",
            )
        )
    return rrb.Blueprint(rrb.Tabs(*tabs), collapse_panels=True)


def _log_video(
    rr: Any,
    recording: Any,
    footage: Footage,
    episode: int,
    *,
    times: object,
    videos: dict[Path, str],
) -> None:
    """Refer to the episode's frames in its file, which episodes share and which is logged once."""
    meta = footage.source.meta
    try:
        path, start, _ = find_video(footage.source, footage.camera, episode)
    except EpisodeError:
        return  # the report says why
    if path not in videos:
        videos[path] = f"videos/{len(videos)}"
        recording.log(videos[path], rr.AssetVideo(path=path), static=True)
    # A little after each frame's time, which rounding could put before it.
    stamps = start + (np.arange(footage.frames(episode)) + 0.25) / meta.fps
    recording.send_columns(
        f"{_entity(episode)}/camera",
        [times],
        rr.VideoFrameReference.columns(
            timestamp=[rr.components.VideoTimestamp(seconds=stamp) for stamp in stamps.tolist()],
            video_reference=[videos[path]] * len(stamps),
        ),
    )


def _log_images(
    rr: Any, recording: Any, footage: Footage, episode: int, *, sample_fps: float
) -> None:
    try:
        for frame, picture in footage.read(episode, sample_fps=sample_fps):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=85)
            recording.set_time(_CLOCK, duration=frame / footage.source.meta.fps)
            image = rr.EncodedImage(contents=buffer.getvalue(), media_type="image/jpeg")
            recording.log(f"{_entity(episode)}/camera", image)
    except EpisodeError:
        return  # the report says why


def _entity(episode: int) -> str:
    return f"episode_{episode:06d}"
