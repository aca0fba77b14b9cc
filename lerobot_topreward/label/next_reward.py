"""``next.reward`` and ``next.success``, made of progress."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.metrics import TAIL
from lerobot_topreward.judging.rules import DEFAULT_FINAL_PROGRESS
from lerobot_topreward.records import (
    NEXT_FEATURES,
    FrameRewards,
    NextRewards,
    PrefixScores,
    is_own_feature,
)


def check_next_reward(features: Mapping[str, Any]) -> None:
    """Refuse to replace what the dataset itself says of rewards and success.

    Raises:
        UserError: it has such a column, and `label` did not write it.
    """
    theirs = [
        name for name in NEXT_FEATURES if name in features and not is_own_feature(features[name])
    ]
    if theirs:
        raise UserError(
            f"`next_reward` writes {' and '.join(NEXT_FEATURES)}, and the dataset has its own "
            f"{' and '.join(theirs)}, which is kept: leave out `next_reward`"
        )


def make_next_rewards(rewards: FrameRewards, scores: Sequence[PrefixScores]) -> NextRewards:
    """Make rewards and success of progress p.

    ``reward[t] = p[t + 1] - p[t]``, 0 on the last frame of a subtask: what the action at t gained, as
    a share of the task, -1..1. Over an episode of one subtask it sums to the progress at its end, less
    that at its start (potential-based shaping without discount: Ng, Harada and Russell 1999, eq. 2).

    ``success`` is true on the last frame of an episode whose final progress, the mean after its last
    three prefixes, is at least 0.8, as `curate` asks by default; false on every other frame.

    Both are 0 where there is no label.

    Args:
        rewards: every frame of the dataset, normalized per task.
        scores: every segment of every labeled episode, control "none".
    """
    reward = np.zeros_like(rewards.progress)
    success = np.zeros(len(reward), dtype=bool)
    first = dict(zip(*np.unique(rewards.episode_index, return_index=True), strict=True))
    ends: dict[int, list[int]] = {}
    for part in sorted(scores, key=lambda part: part.segment.start):
        start = first[part.segment.episode_index] + part.segment.start
        stop = start + part.segment.length
        reward[start : stop - 1] = np.diff(rewards.progress[start:stop])
        prefixes = start + part.prefix_length - 1
        ends.setdefault(part.segment.episode_index, []).extend(prefixes.tolist())
    for episode, rows in ends.items():
        last = first[episode] + int(np.sum(rewards.episode_index == episode)) - 1
        success[last] = np.mean(rewards.progress[rows[-TAIL:]]) >= DEFAULT_FINAL_PROGRESS
    return NextRewards(reward, success)
