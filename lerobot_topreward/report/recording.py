"""A Rerun recording: for every episode what the camera saw, with progress and advantage over time."""

import importlib
import io
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
    path: Path, footage: Footage, rewards: FrameRewards, *, name: str, sample_fps: float
) -> None:
    """Write a recording with a tab for every episode; one without pictures has curves alone.

    Args:
        path: a new file.
        footage: of the episodes, its videos at hand.
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
    entities = {
        episode: f"episode_{episode:06d}"
        for episode in np.unique(rewards.episode_index[rewards.labelled]).tolist()
    }
    tabs = [
        rrb.Vertical(
            rrb.Spatial2DView(origin=f"{entity}/camera", name="camera"),
            rrb.TimeSeriesView(
                origin=entity,
                contents=[f"{entity}/progress", f"{entity}/advantage"],
                name="rewards",
            ),
            row_shares=[3, 2],
            name=f"episode {episode}",
        )
        for episode, entity in entities.items()
    ]
    blueprint = rrb.Blueprint(rrb.Tabs(*tabs), collapse_panels=True)
    recording = rr.RecordingStream("lerobot-topreward", recording_id=name)
    recording.save(path, default_blueprint=blueprint)
    videos: dict[Path, str] = {}
    for episode, entity in entities.items():
        reward = rewards.episode(episode)
        times = rr.TimeColumn(_CLOCK, duration=np.arange(len(reward.progress)) / fps)
        for what in ("progress", "advantage"):
            values = getattr(reward, what).astype(np.float64)
            recording.send_columns(f"{entity}/{what}", [times], rr.Scalars.columns(scalars=values))
        if footage.camera not in footage.source.meta.video_keys:
            _log_images(rr, recording, footage, episode, entity=entity, sample_fps=sample_fps)
            continue
        try:
            video, start, _ = find_video(footage.source, footage.camera, episode)
        except EpisodeError:
            continue  # the report says why
        # Episodes share a file, which is logged once; each refers to its own frames in it.
        if video not in videos:
            videos[video] = f"videos/{len(videos)}"
            recording.log(videos[video], rr.AssetVideo(path=video), static=True)
        # A little after each frame's time, which rounding could put before it.
        stamps = start + (np.arange(footage.frames(episode)) + 0.25) / fps
        frames = rr.VideoFrameReference.columns(
            timestamp=[rr.components.VideoTimestamp(seconds=stamp) for stamp in stamps.tolist()],
            video_reference=[videos[video]] * len(stamps),
        )
        recording.send_columns(f"{entity}/camera", [times], frames)
    recording.disconnect()  # which finishes the file


def _log_images(
    rr: Any, recording: Any, footage: Footage, episode: int, *, entity: str, sample_fps: float
) -> None:
    try:
        for frame, picture in footage.read(episode, sample_fps=sample_fps):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=85)
            recording.set_time(_CLOCK, duration=frame / footage.source.meta.fps)
            image = rr.EncodedImage(contents=buffer.getvalue(), media_type="image/jpeg")
            recording.log(f"{entity}/camera", image)
    except EpisodeError:
        return  # the report says why
