"""Score images or an episode in Python, with nothing read from or written to a store."""

from dataclasses import replace

import numpy as np
from jaxtyping import Real, UInt8
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import fetch_videos, segments, source_of
from lerobot_topreward.data.selection import resolve_camera
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, PrefixScores, Segment
from lerobot_topreward.scoring.scorer import Scorer, frames_wanted, score_clip
from lerobot_topreward.storage.key import ScoringConfig

_CLOCK = 1000.0  # Hz: times are given to the VLM with one decimal


def score_frames(
    scorer: Scorer,
    frames: UInt8[np.ndarray, "images height width 3"],
    *,
    times: Real[np.ndarray, " times"],
    instruction: str,
    control: str = "none",
) -> PrefixScores:
    """Score every prefix of some images: the reward of TOPReward (arXiv 2602.19313).

    Args:
        scorer: from `load_scorer`, or your own.
        frames: RGB images, at least one.
        times: of each image, ascending, seconds, >= 0.
        instruction: what may have been completed.
        control: "none" for the video itself, "static" or "reversed" for a control.

    Returns:
        One score per image, which is the last of its prefix; `frame_index` counts images.

    Raises:
        ValueError: images and times are not equally many, or times are not ascending.
        EpisodeError: these images cannot be scored.
    """
    times = np.asarray(times, dtype=np.float64)
    ticks = np.round(times * _CLOCK).astype(np.int64)
    if frames.ndim != 4 or len(frames) != len(times) or not len(times):
        raise ValueError(
            f"frames must be (images, height, width, 3) with a time each; got {frames.shape} and "
            f"{len(times)} times"
        )
    if ticks[0] < 0 or (np.diff(ticks) <= 0).any():
        raise ValueError("times must be >= 0 s and ascend by at least 1 ms")
    segment = Segment(0, 0, int(ticks[-1]) + 1, instruction)
    clip = Clip(segment, _CLOCK, frames, shown=np.arange(len(frames)), frame_indices=ticks)
    (scores,) = score_clip(clip, scorer, [control], None)
    images = np.arange(len(frames))
    return replace(
        scores,
        segment=Segment(0, 0, len(frames), instruction),
        prefix_length=images + 1,
        frame_index=images,
    )


def score_episode(
    scorer: Scorer,
    dataset: LeRobotDataset,
    episode: int,
    *,
    scoring: ScoringConfig | None = None,
    control: str = "none",
) -> list[PrefixScores]:
    """Score one episode of a LeRobot dataset as `lerobot-topreward label` does.

    Args:
        scorer: from `load_scorer`, or your own.
        dataset: as LeRobot opened it.
        episode: its index.
        scoring: camera, instruction and schedule.
        control: "none" for the video itself, "static" or "reversed" for a control.

    Returns:
        The scores of each segment (run of frames under one instruction), in the order of time.

    Raises:
        UserError: there is no such camera, or the videos cannot be fetched.
        EpisodeError: the episode cannot be read or scored.
    """
    scoring = scoring or ScoringConfig()
    source = source_of(dataset.meta)
    if not 0 <= episode < dataset.meta.total_episodes:
        raise EpisodeError(
            f"episode must be in 0..{dataset.meta.total_episodes - 1}; got {episode}"
        )
    camera = resolve_camera(source.meta, scoring.camera)
    fetch_videos(source, camera, [episode])
    parts = segments(source, [episode], instruction=scoring.instruction)[episode]
    if not parts:
        raise EpisodeError("it has no frames")
    scores: list[PrefixScores] = []
    for segment in parts:
        clip = read_clip(
            source,
            camera=camera,
            segment=segment,
            sample_fps=scoring.sample_fps,
            final_frame=scoring.final_frame,
            max_images=scoring.max_images,
            also=frames_wanted(scorer, scoring, segment.length, fps=source.meta.fps),
        )
        scores += score_clip(clip, scorer, [control], scoring.prefix_count)
    return scores
