"""Labels of frames, made by hand."""

from collections.abc import Sequence

import numpy as np

from lerobot_topreward.train.records import FrameLabels


def labels_of(
    *episodes: Sequence[float] | np.ndarray,
    tasks: Sequence[int] | np.ndarray | None = None,
    unlabelled: Sequence[int] = (),
    prefixes: Sequence[int] | None = None,
    fps: float = 10.0,
) -> FrameLabels:
    """Labels of episodes by their progress; `unlabelled` are episodes, `prefixes` are rows."""
    lengths = [len(episode) for episode in episodes]
    episode_index = np.repeat(np.arange(len(episodes)), lengths)
    labelled = ~np.isin(episode_index, unlabelled)
    progress = np.where(labelled, np.concatenate(episodes), 0).astype(np.float32)
    task_index = np.repeat([0] * len(episodes) if tasks is None else tasks, lengths)
    return FrameLabels(
        index=np.arange(len(progress)),
        episode_index=episode_index,
        task_index=task_index.astype(np.int64),
        progress=progress,
        log_prob=np.where(labelled, 4 * progress - 5, 0).astype(np.float32),
        labelled=labelled,
        prefix_end=None if prefixes is None else np.isin(np.arange(len(progress)), prefixes),
        tasks={0: "pick", 1: "place"},
        fps=fps,
    )
