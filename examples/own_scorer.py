"""Write a scorer of your own: anything that says how likely a growing video completes a task.

    python examples/own_scorer.py

This one has no VLM: it takes the share of the image that has changed since the start as evidence.
A poor judge, but it runs everywhere a scorer does.
"""

from collections.abc import Sequence

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward import ScoringConfig, label_rewards, score_episode
from lerobot_topreward.demo.command import DATASET
from lerobot_topreward.records import Clip, LogProbs


class ChangeScorer:
    """P(True) is the share of pixels that differ from the first image."""

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip: rows are instructions, columns are prefixes, in nats."""
        images = clip.frames[clip.shown].astype(np.float32)
        changed = [(np.abs(images[n - 1] - images[0]) > 30).any(axis=-1).mean() for n in prefixes]
        share = np.clip(np.array(changed, dtype=np.float32), 1e-4, 1 - 1e-4)
        rows = np.tile(share, (len(instructions), 1))
        return LogProbs(true=np.log(rows), false=np.log1p(-rows))


dataset = LeRobotDataset("local/demo", root=DATASET, episodes=[0])
scores = score_episode(ChangeScorer(), dataset, 0, scoring=ScoringConfig(sample_fps=2.0))
frames = sum(part.segment.length for part in scores)
rewards = label_rewards(scores, np.zeros(frames, dtype=np.int64), horizon=round(dataset.fps))
for frame in range(0, frames, max(1, frames // 8)):
    print(f"frame {frame:3d}  progress {rewards.progress[frame]:.2f}")
