"""Recordings made of arrays: an arm of six joints that reaches out and comes back, with noise."""

from collections.abc import Iterator, Sequence

import numpy as np

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.judging.inspection import Inspection, inspect_recording
from lerobot_topreward.records import EpisodeRecording, Finding, Signals

FPS = 20.0
JOINTS = ("pan", "lift", "elbow", "flex", "roll", "gripper")
SIGNALS = Signals(
    names=tuple(f"action.{j}" for j in JOINTS) + tuple(f"observation.state.{j}" for j in JOINTS),
    commands=tuple(range(6)),
    readings=tuple(range(6, 12)),
    pairs=tuple((i, i + 6) for i in range(6)),
    grippers=(5, 11),
)


def make_recording(
    episode: int, *, frames: int = 160, task: str = "pick up the cube", lag: int = 2
) -> EpisodeRecording:
    """An arm that moves smoothly between random poses; readings follow their commands."""
    rng = np.random.default_rng(episode)
    knots = rng.uniform(-40, 40, size=(6, 6))
    knots[:, 0] = 0  # every episode begins and ends near rest
    phase = np.linspace(0, 5, frames + lag)
    start = np.minimum(phase.astype(int), 4)
    smooth = (1 - np.cos(np.pi * (phase - start))) / 2
    path = knots[:, start] + (knots[:, start + 1] - knots[:, start]) * smooth
    noisy = (path + rng.normal(0, 0.05, path.shape)).T
    command, reading = noisy[lag:], (path + rng.normal(0, 0.05, path.shape)).T[:frames]
    return EpisodeRecording(
        episode_index=episode,
        task=task,
        declared=frames,
        timestamp=np.arange(frames) / FPS,
        frame_index=np.arange(frames),
        values=np.concatenate([command, reading], axis=1),
    )


def make_recordings(count: int = 12) -> list[EpisodeRecording]:
    return [make_recording(episode, frames=150 + 3 * (episode % 5)) for episode in range(count)]


def inspect(recordings: Sequence[EpisodeRecording], signals: Signals = SIGNALS) -> Inspection:
    def read() -> Iterator[tuple[int, EpisodeRecording | EpisodeError]]:
        return iter([(recording.episode_index, recording) for recording in recordings])

    return inspect_recording(read, signals, fps=FPS)


def of_episode(inspection: Inspection, episode: int) -> list[Finding]:
    return [found for found in inspection.findings if found.episode_index == episode]
