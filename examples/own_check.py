"""Find a defect of your own in a recording: episodes that end before the arm is at rest.

    python examples/own_check.py [DATASET_FOLDER]

A check sees the arrays of one episode, and `lerobot-topreward check` brings its own beside it. It
needs no VLM and no GPU, and takes seconds.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lerobot_topreward import CheckConfig, check_dataset
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.judging.profile import Profile
from lerobot_topreward.records import EpisodeRecording, Finding


class RestCheck:
    def find(self, recording: EpisodeRecording, profile: Profile) -> Iterator[Finding]:
        # Speeds jump from frame to frame; joints do not.
        positions = profile.step < 0.1 * profile.range
        joints = [i for i in profile.signals.readings if positions[i]]
        last = recording.values[-profile.frames(0.3) :, joints]
        moved = np.ptp(last, axis=0) / profile.range[joints]
        if moved.max(initial=0) > 0.05:
            name = profile.signals.names[joints[int(moved.argmax())]]
            text = f"{name} still moves by {moved.max():.0%} of its range in the last 0.3 s"
            yield Finding(recording.episode_index, "suspect", "ends in motion", text)


root = Path(sys.argv[1]) if len(sys.argv) > 1 else DATASET
result = check_dataset(CheckConfig(root=root), checks=[RestCheck()])
for finding in result.inspection.findings:
    if finding.defect in ("ends in motion", "idle"):
        print(f"episode {finding.episode_index}: {finding.defect}: {finding.text}")
