"""LeRobot's sampler, with frames drawn in proportion to their weight instead of once each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lerobot.datasets import EpisodeAwareSampler

from lerobot_topreward.train.draws import draw_counts, expected_counts
from lerobot_topreward.train.records import FrameWeights


class WeightedSampler(EpisodeAwareSampler):
    """Draws as many frames per epoch as LeRobot's sampler, each in proportion to its weight.

    Which frames an epoch draws is a pure function of (seed, epoch), as LeRobot's order is, so that
    every process draws the same and a resumed run goes on as if it had not been stopped. LeRobot's
    sampler still decides the order, the length, the epoch and where a resumed one begins: it lists
    the frames of a shuffled epoch, and each of them is replaced by the one that was drawn for its
    place. With equal weights every frame is drawn once, and the order is LeRobot's.
    """

    def __init__(
        self,
        weights: FrameWeights,
        dataset_from_indices: Sequence[int],
        dataset_to_indices: Sequence[int],
        *,
        episode_indices_to_use: Sequence[int] | None = None,
        drop_n_last_frames: int = 0,
        absolute_to_relative_idx: Mapping[int, int] | None = None,
        **options: Any,
    ) -> None:
        """Take what LeRobot's trainer gives its sampler, and weights by the frames' global index.

        Raises:
            UserError: no frame that can be drawn weighs anything.
            ValueError: a frame that can be drawn has no weight.
        """
        sampler: Any = super().__init__
        sampler(
            dataset_from_indices,
            dataset_to_indices,
            episode_indices_to_use=episode_indices_to_use,
            drop_n_last_frames=drop_n_last_frames,
            absolute_to_relative_idx=absolute_to_relative_idx,
            **options,
        )
        # The frames before they are shuffled: `indices`, which takes seconds for a million of them.
        first = np.asarray(dataset_from_indices, dtype=np.int64)
        last = np.asarray(dataset_to_indices, dtype=np.int64) - drop_n_last_frames
        used = range(len(first)) if episode_indices_to_use is None else episode_indices_to_use
        frames = np.concatenate([np.arange(first[i], last[i]) for i in sorted({*used})])
        if len(frames) != len(self):
            raise RuntimeError(f"LeRobot's sampler draws {len(self)} frames, not {len(frames)}")
        table = np.full(int(max(frames[-1], weights.index[-1])) + 1, np.nan)
        table[weights.index] = weights.weight
        chosen = table[frames]
        if np.isnan(chosen).any():
            raise ValueError(f"frame {frames[np.isnan(chosen)][0]} can be drawn but has no weight")
        self.expected = expected_counts(chosen)
        if absolute_to_relative_idx is not None:
            known = absolute_to_relative_idx
            frames = np.array([known[i] for i in frames.tolist()], dtype=np.int64)
        self._frames = frames
        self._place = np.zeros(int(frames.max()) + 1, dtype=np.int64)
        self._place[frames] = np.arange(len(frames))

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: epochs are counted by going through them, from where a run was resumed.

        accelerate sets the epoch before each of them, counting from 0 in a resumed run too, by which
        LeRobot's own sampler deals the first epoch again.
        """

    def __iter__(self) -> Iterator[int]:
        """Go through an epoch, or what is left of a resumed one."""
        offset = np.random.default_rng([self.seed, self.state_dict()["epoch"]]).random()
        drawn = np.repeat(self._frames, draw_counts(self.expected, offset))
        order = super().__iter__()  # which sets the state to the next epoch
        return (int(drawn[self._place[frame]]) for frame in order)
