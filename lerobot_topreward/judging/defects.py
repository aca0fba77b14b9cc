"""What is wrong with a recording: one check per subject, each over the arrays of one episode.

A check that compares episodes stands in `judging.inspection`. To add one: a class with a method
`find`, its defects in DEFECTS, and the class in CHECKS.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from lerobot_topreward.judging.motion import fill_gaps
from lerobot_topreward.judging.profile import Profile
from lerobot_topreward.records import EpisodeRecording, Finding

# What to do about each defect, in the order in which tables list them.
DEFECTS: Mapping[str, str] = {
    "unreadable": "copy or download the dataset again, or delete the episode",
    "missing frames": "copy or download the dataset again, or delete the episode",
    "short video": "delete the episode; record with a quicker encoder",
    "time repeats": "delete the episode, or write its timestamps again",
    "gap in time": "delete the episode, or cut it at the gap",
    "wrong frame rate": "correct fps in meta/info.json, or record again",
    "too short": "delete the episode, or train with shorter chunks",
    "not finite": "delete the episode",
    "frozen recording": "delete the episode",
    "dead joint": "delete the episode; check the motor's cable",
    "jump": "look at it; delete the episode if the arm did not jump",
    "out of step": "check how commands and readings were synchronized",
    "saturated command": "calibrate the leader arm again",
    "unused dimension": "nothing, if the robot has no such joint",
    "idle": "trim it, or delete it if the task was not done",
    "odd length": "look at it",
    "jerky": "look at it",
    "long way": "look at it: it often holds a second attempt",
    "restless": "look at it",
    "gripper unused": "look at it: nothing was grasped, or nothing released",
    "frozen camera": "delete the episode; check the camera's cable",
    "dark": "light the scene",
    "overexposed": "lower the exposure",
    "low contrast": "clean or focus the camera",
    "blurred": "clean or focus the camera",
    "no task": "name it with lerobot-edit-dataset",
    "placeholder task": "name it with lerobot-edit-dataset",
    "task spelled twice": "merge the spellings with lerobot-edit-dataset",
    "copy": "delete one of the two",
    "not compared": "nothing; it takes eight episodes",
    "coverage": "record where there are gaps",
}


@runtime_checkable
class Check(Protocol):
    """Looks for defects in one episode."""

    def find(self, recording: EpisodeRecording, profile: Profile) -> Iterable[Finding]:
        """Report what is wrong with an episode.

        Args:
            recording: what was recorded of it.
            profile: how the dataset's signals usually behave.
        """
        ...


@dataclass(frozen=True)
class ClockCheck:
    """Times that repeat, gaps, another frame rate, frames that are missing."""

    max_gap: float = 1.5  # frames from one timestamp to the next
    # Frames that a video may lack: some recorders give the time of the last frame as its end.
    max_lacking: float = 1.5
    far_lacking: float = 0.05  # share of the episode's frames from which on it is broken
    max_drift: float = 0.1  # share by which the median step may differ from a frame
    chunk_size: int | None = None  # frames that a policy learns at once

    def find(self, recording: EpisodeRecording, profile: Profile) -> Iterator[Finding]:
        """Compare the times of an episode with the dataset's clock."""
        episode, frames = recording.episode_index, len(recording.timestamp)
        expected = np.arange(frames)
        if frames != recording.declared:
            yield Finding(
                episode,
                "broken",
                "missing frames",
                f"has {frames} frames; meta/episodes says {recording.declared}",
            )
        elif (recording.frame_index != expected).any():
            first = int(np.flatnonzero(recording.frame_index != expected)[0])
            yield Finding(
                episode,
                "broken",
                "missing frames",
                f"frame_index must count 0, 1, 2, ...; row {first} has "
                f"{recording.frame_index[first]}",
                (first, first),
            )
        for camera, seconds in recording.video_s.items():
            lacking = frames - seconds * profile.fps
            if lacking > self.max_lacking:
                yield Finding(
                    episode,
                    "broken" if lacking > self.far_lacking * frames else "suspect",
                    "short video",
                    f"{camera} lacks {lacking:.0f} of its {frames} frames by the times in "
                    "meta/episodes: later pictures do not belong to their rows",
                )
        if self.chunk_size is not None and 0 < frames < self.chunk_size:
            yield Finding(
                episode,
                "suspect",
                "too short",
                f"has {frames} frames, fewer than a chunk of {self.chunk_size}",
            )
        steps = np.diff(recording.timestamp)
        if not np.isfinite(recording.timestamp).all():
            bad = int(np.flatnonzero(~np.isfinite(recording.timestamp))[0])
            yield Finding(
                episode,
                "broken",
                "not finite",
                f"timestamp is not finite at frame {bad}",
                (bad, bad),
            )
            return
        back = np.flatnonzero(steps <= 0)
        if len(back):
            yield Finding(
                episode,
                "broken",
                "time repeats",
                f"time stands still or runs back {len(back)} times, first at frame {back[0] + 1} "
                f"({recording.timestamp[back[0]]:.3f} s)",
                (int(back[0]), int(back[-1]) + 1),
            )
        # After a time that repeats, the next one catches up.
        catches_up = np.concatenate([[False], steps[:-1] <= 0])[: len(steps)]
        gaps = np.flatnonzero((steps * profile.fps > self.max_gap) & ~catches_up)
        median = float(np.median(steps)) * profile.fps if frames > 1 else 1.0
        drifts = abs(median - 1) > self.max_drift
        if drifts:
            yield Finding(
                episode,
                "broken",
                "wrong frame rate",
                f"its frames are {median / profile.fps * 1000:.1f} ms apart; "
                f"{profile.fps:g} fps would be {1000 / profile.fps:.1f} ms",
            )
        elif len(gaps):
            worst = int(gaps[np.argmax(steps[gaps])])
            yield Finding(
                episode,
                "broken",
                "gap in time",
                f"{len(gaps)} gaps, the longest {steps[worst]:.3f} s after frame {worst} "
                f"(a frame takes {1 / profile.fps:.3f} s)",
                (worst, worst + 1),
            )


@dataclass(frozen=True)
class ValueCheck:
    """Values that are not finite, and jumps."""

    max_jump: float = 0.5  # of a signal's range, from one frame to the next

    def find(self, recording: EpisodeRecording, profile: Profile) -> Iterator[Finding]:
        """Look at every value of an episode."""
        episode, values, names = recording.episode_index, recording.values, profile.signals.names
        wrong = ~np.isfinite(values)
        if wrong.any():
            rows = np.flatnonzero(wrong.any(axis=1))
            columns = [names[i] for i in np.flatnonzero(wrong.any(axis=0))]
            more = f" and {len(columns) - 3} more" if len(columns) > 3 else ""
            yield Finding(
                episode,
                "broken",
                "not finite",
                f"{', '.join(columns[:3])}{more} not finite in {len(rows)} frames, first in frame "
                f"{rows[0]}",
                (int(rows[0]), int(rows[-1])),
            )
        joints = [
            i
            for i in (*profile.signals.commands, *profile.signals.readings)
            if i not in profile.signals.grippers and not profile.two_valued[i]
        ]
        steps = np.abs(np.diff(fill_gaps(values), axis=0))
        for i in joints:
            limit = self.max_jump * profile.range[i]
            # A speed, or a command that is a difference, jumps in every episode.
            if limit <= 0 or profile.usual_step[i] > limit / 2:
                continue
            jumps = np.flatnonzero(steps[:, i] > limit)
            if len(jumps):
                worst = int(jumps[np.argmax(steps[jumps, i])])
                yield Finding(
                    episode,
                    "suspect",
                    "jump",
                    f"{names[i]} jumps by {steps[worst, i]:.4g} from frame {worst} to the next; its "
                    f"range is {profile.range[i]:.4g}",
                    (worst, worst + 1),
                )


@dataclass(frozen=True)
class JointCheck:
    """Joints whose reading does not follow their command; grippers that never move."""

    least_command: float = 0.01  # of a command's range, that a living joint follows
    constant: float = 0.001  # of a command's range, that a constant reading covers at most
    least_grip: float = 0.1  # of a gripper's range, that a grasp covers

    def find(self, recording: EpisodeRecording, profile: Profile) -> Iterator[Finding]:
        """Compare readings with commands over an episode."""
        episode = recording.episode_index
        values = recording.values[np.isfinite(recording.values).all(axis=1)]
        if len(values) < 2:
            return
        names, span = profile.signals.names, np.ptp(values, axis=0)
        for command, reading in profile.signals.pairs:
            own = profile.range[command]
            moves = span[command] > max(self.least_command * own, 6 * profile.noise[command])
            if own > 0 and moves and span[reading] <= self.constant * own:
                yield Finding(
                    episode,
                    "broken",
                    "dead joint",
                    f"{names[reading]} stays at {values[0, reading]:.4g} while its command moves by "
                    f"{span[command]:.4g} ({span[command] / own:.0%} of its range)",
                    (0, len(recording.values) - 1),
                )
        for gripper in profile.signals.grippers:
            if (
                profile.range[gripper] > 0
                and span[gripper] < self.least_grip * profile.range[gripper]
            ):
                yield Finding(
                    episode,
                    "suspect",
                    "gripper unused",
                    f"{names[gripper]} moves by {span[gripper]:.4g} of a range of "
                    f"{profile.range[gripper]:.4g}",
                )
                return


CHECKS: tuple[Check, ...] = (ClockCheck(), ValueCheck(), JointCheck())
