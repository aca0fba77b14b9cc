"""Which frames a run draws, and in which order."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from lerobot.datasets import EpisodeAwareSampler, compute_sampler_state
from torch.utils.data import BatchSampler

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.sampler import WeightedSampler

STARTS, STOPS = [0, 9, 21, 31], [9, 21, 31, 34]
OPTIONS: dict[str, Any] = {"shuffle": True, "seed": 3}


def weights_of(weight: np.ndarray, index: np.ndarray | None = None) -> FrameWeights:
    index = np.arange(len(weight)) if index is None else index
    values = weight.astype(np.float32)
    return FrameWeights(index, values, values, np.zeros(len(values), dtype=bool))


@pytest.fixture
def weight() -> np.ndarray:
    weight = np.random.default_rng(0).gamma(0.5, size=34)
    weight[9:15] = 0
    return weight


def epochs(sampler: EpisodeAwareSampler, count: int) -> list[list[int]]:
    return [list(sampler) for _ in range(count)]


def test_equal_weights_are_drawn_in_lerobots_order() -> None:
    more = OPTIONS | {"episode_indices_to_use": [2, 0, 3], "drop_n_last_frames": 4}
    stock = EpisodeAwareSampler(STARTS, STOPS, **more)
    ours = WeightedSampler(weights_of(np.full(34, 0.3)), STARTS, STOPS, **more)
    assert len(ours) == len(stock) == 5 + 6
    assert epochs(ours, 4) == epochs(stock, 4)


def test_frames_are_drawn_by_their_weight(weight: np.ndarray) -> None:
    sampler = WeightedSampler(weights_of(weight), STARTS, STOPS, **OPTIONS)
    expected = weight * 34 / weight.sum()
    assert len(sampler) == 34
    seen = epochs(sampler, 3000)
    for frames in seen[:50]:
        counts = np.bincount(frames, minlength=34)
        assert counts.sum() == 34
        assert (np.floor(expected) <= counts).all()
        assert (counts <= np.ceil(expected)).all()
    mean = np.mean([np.bincount(frames, minlength=34) for frames in seen], axis=0)
    # Five standard deviations of a count that is one of two neighbors.
    np.testing.assert_allclose(mean, expected, atol=5 * 0.5 / np.sqrt(3000))
    assert not mean[9:15].any()
    assert seen[0] != seen[1]


def test_the_last_frames_and_other_episodes_are_never_drawn(weight: np.ndarray) -> None:
    relative = {frame: row for row, frame in enumerate([*range(9), *range(21, 34)])}
    sampler = WeightedSampler(
        weights_of(weight[[*relative]] + 0.1, np.array([*relative])),
        STARTS,
        STOPS,
        episode_indices_to_use=[3, 0, 2],
        drop_n_last_frames=2,
        absolute_to_relative_idx=relative,
        **OPTIONS,
    )
    drawable = [*range(7), *range(21, 29), 31]
    assert len(sampler) == len(drawable)
    assert sampler.expected.sum() == pytest.approx(len(drawable))
    drawn = {frame for frames in epochs(sampler, 500) for frame in frames}
    assert drawn <= {relative[frame] for frame in drawable}
    assert len(drawn) == len(drawable)


def test_a_resumed_run_goes_on_where_it_stopped(weight: np.ndarray) -> None:
    weights = weights_of(weight)
    whole = list(chain(*epochs(WeightedSampler(weights, STARTS, STOPS, **OPTIONS), 3)))
    for step in (0, 3, 8, 9, 20):  # of batches of 4: nine of them are an epoch
        sampler = WeightedSampler(weights, STARTS, STOPS, **OPTIONS)
        state = compute_sampler_state(step, len(sampler), 4, 1)
        sampler.load_state_dict(state)
        done = state["epoch"] * 34 + state["start_index"]
        sampler.set_epoch(0)  # as accelerate does
        assert list(chain(*epochs(sampler, 3 - state["epoch"]))) == whole[done:]


def test_two_processes_share_what_is_drawn(weight: np.ndarray) -> None:
    weights = weights_of(weight)
    parts: list[Any] = []
    for process in (0, 1):
        sampler = WeightedSampler(weights, STARTS, STOPS, **OPTIONS)
        batches = BatchSampler(sampler, batch_size=4, drop_last=False)
        parts.append(list(BatchSamplerShard(batches, num_processes=2, process_index=process)))
    order = list(WeightedSampler(weights, STARTS, STOPS, **OPTIONS))
    dealt = [frame for pair in zip(*parts, strict=True) for batch in pair for frame in batch]
    assert dealt[:34] == order  # and then what makes their batches equally many


def test_no_frame_that_can_be_drawn_weighs_anything(weight: np.ndarray) -> None:
    weight = np.zeros(34)
    weight[[8, 20, 30, 33]] = 1
    with pytest.raises(UserError, match=r"none of the 30 frames .*`policy.drop_n_last_frames`"):
        WeightedSampler(weights_of(weight), STARTS, STOPS, drop_n_last_frames=1, **OPTIONS)
    with pytest.raises(ValueError, match="frame 5 can be drawn but has no weight"):
        WeightedSampler(weights_of(np.ones(5)), STARTS, STOPS, **OPTIONS)
