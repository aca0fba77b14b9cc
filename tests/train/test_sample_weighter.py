from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import make_train_eval_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.rewards.sarm.rabc import RABCWeights
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.sample_weighter import (
    TopRewardWeighter,
    chunk_frames,
    make_weighter,
    weigh_dataset,
)
from lerobot_topreward.train.schemes import Awr

RecordDataset = Callable[..., Path]
WriteLabels = Callable[..., Path]

CPU = torch.device("cpu")
LENGTHS = (9, 6, 8)
CHUNK = 3


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=LENGTHS, cameras=())


def act(chunk: int = CHUNK) -> ACTConfig:
    features = {
        OBS_STATE: PolicyFeature(FeatureType.STATE, (6,)),
        OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (2,)),
    }
    return ACTConfig(
        device="cpu",
        chunk_size=chunk,
        n_action_steps=1,
        dim_model=16,
        n_heads=2,
        input_features=features,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (6,))},
    )


def weighter_of(dataset: Any, *, chunk: int = CHUNK, **options: Any) -> TopRewardWeighter:
    return make_weighter(options, policy=act(chunk), dataset=dataset)


def weights_of(values: list[float], *, index: list[int] | None = None) -> FrameWeights:
    weight = np.array(values, dtype=np.float32)
    return FrameWeights(
        index=np.arange(len(values)) if index is None else np.array(index),
        raw=weight,
        weight=weight,
        capped=weight > 3,
    )


def test_a_batch_is_looked_up_by_global_index() -> None:
    weights = weights_of([0, 1, 2, 5], index=[2, 3, 7, 9])
    weighter = TopRewardWeighter(weights, WeightingConfig())
    batch: dict[str, Any] = {"index": torch.tensor([7, 2, 7])}
    found, stats = weighter.compute_batch_weights(batch)
    assert found.tolist() == [2, 0, 2]
    assert found.dtype == torch.float32
    assert stats == pytest.approx({"mean_weight": 4 / 3, "share_zero": 1 / 3, "max_weight": 2})
    assert all(type(value) is float for value in stats.values())
    assert not weighter.per_batch
    assert list(batch) == ["index"]


def test_normalised_per_batch() -> None:
    weights = weights_of([0, 1, 2, 5])
    weighter = TopRewardWeighter(weights, WeightingConfig(normalize="batch"))
    batch: dict[str, Any] = {"index": torch.tensor([1, 3])}
    found, stats = weighter.compute_batch_weights(batch)
    torch.testing.assert_close(found, torch.tensor([1 / 3, 5 / 3]))
    assert stats["mean_weight"] == 3.0
    assert weighter.per_batch
    assert list(batch) == ["index"]
    found, _ = weighter.compute_batch_weights({"index": torch.tensor([0, 0])})
    assert found.tolist() == [0, 0]


@pytest.mark.parametrize("asked", [[1, 4], [2, 1], [-1, 2], [10**9, 2]])
def test_frames_that_were_not_weighed(asked: list[int]) -> None:
    weights = weights_of([1, 1, 1], index=[2, 3, 5])
    weighter = TopRewardWeighter(weights, WeightingConfig())
    found, _ = weighter.compute_batch_weights({"index": torch.tensor(asked)})
    assert found.isnan().tolist() == [i not in (2, 3, 5) for i in asked]
    with pytest.raises(ValueError, match=r"must have the global 'index'.* it has: action"):
        weighter.compute_batch_weights({"action": torch.zeros(2, 6)})


def test_statistics_of_all_weights() -> None:
    config = WeightingConfig(apply="loss")
    weighter = TopRewardWeighter(weights_of([0, 0, 2, 6]), config)
    assert weighter.get_stats() == {
        "type": "awr",
        "apply": "loss",
        "num_frames": 4,
        "mean_weight": 2.0,
        "max_weight": 6.0,
        "share_zero": 0.5,
        "share_capped": 0.25,
        "effective_frames": pytest.approx(64 / 40),
    }


@pytest.mark.parametrize("chunk", [2, 5, 50])
def test_rabc_is_lerobots(recorded: Path, write_labels: WriteLabels, chunk: int) -> None:
    root = write_labels(recorded)
    dataset = LeRobotDataset("local/labelled", root=root)
    ours = weighter_of(dataset, chunk=chunk, scheme="rabc", kappa=0.3)
    lerobots = RABCWeights(root / SIDECAR_NAME, chunk_size=chunk, kappa=0.3, device=CPU)
    for seed in range(20):
        batch: dict[str, Any] = {
            "index": torch.randint(
                sum(LENGTHS), (8,), generator=torch.Generator().manual_seed(seed)
            )
        }
        found, stats = ours.compute_batch_weights(batch)
        expected, theirs = lerobots.compute_batch_weights(batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert stats["mean_weight"] == pytest.approx(theirs["mean_weight"], abs=1e-6)
        assert stats["share_zero"] == theirs["num_zero_weight"] / 8


def test_statistics_are_over_the_subset(recorded: Path, write_labels: WriteLabels) -> None:
    root = write_labels(recorded, unlabelled=[1])
    whole = write_labels(recorded)
    subset = LeRobotDataset("local/labelled", root=root, episodes=[2, 0])
    weighter = weighter_of(subset, scheme="awr", horizon=0.3)
    assert weighter.get_stats()["num_frames"] == 17
    everything: list[Any] = [subset[i] for i in range(len(subset))]
    index = torch.stack([sample["index"] for sample in everything])
    found, stats = weighter.compute_batch_weights({"index": index})
    assert sorted(index.tolist()) == [*range(9), *range(15, 23)]
    assert stats["mean_weight"] == pytest.approx(1, abs=1e-6)
    every = weighter_of(LeRobotDataset("local/labelled", root=whole), scheme="awr", horizon=0.3)
    other, _ = every.compute_batch_weights({"index": index})
    assert not torch.allclose(found, other)
    with pytest.raises(UserError, match="labeled frames alone: 6 of 23 frames have no"):
        weighter_of(LeRobotDataset("local/labelled", root=root))


def test_a_loop_of_your_own_gets_the_weights_of_the_train_command(
    recorded: Path, write_labels: WriteLabels
) -> None:
    root = write_labels(recorded)
    for episodes in (None, [0, 2]):
        dataset = LeRobotDataset("local/labelled", root=root, episodes=episodes)
        weights = weigh_dataset(dataset, Awr(beta=0.5), chunk=CHUNK)
        index = torch.tensor([int(row) for row in dataset.hf_dataset["index"]])
        assert weights.index.tolist() == index.tolist()  # row i is frame i of the dataset
        expected, _ = weighter_of(dataset, scheme="awr", beta=0.5).compute_batch_weights(
            {"index": index}
        )
        assert weights.weight.tolist() == expected.tolist()
        assert weights.weight.mean() == pytest.approx(1, abs=1e-6)
        assert np.ptp(weights.weight) > 0.1
    # A run of LeRobot's own trainer saves what the user wrote alone, so that never changes.
    dataset = LeRobotDataset("local/labelled", root=write_labels(recorded, normalize="task"))
    index = torch.arange(sum(LENGTHS))
    asked: Any = ((Awr(beta=0.5), {"baseline": "auto"}), (Awr(beta=0.5, baseline="mean"), {}))
    for scheme, options in asked:
        expected, _ = weighter_of(dataset, scheme="awr", beta=0.5, **options).compute_batch_weights(
            {"index": index}
        )
        found = weigh_dataset(dataset, scheme, chunk=CHUNK).weight
        assert found.tolist() == expected.tolist() != weights.weight.tolist()


def test_episodes_held_out_do_not_count(recorded: Path, write_labels: WriteLabels) -> None:
    root = write_labels(recorded)
    config = TrainPipelineConfig(
        dataset=DatasetConfig(repo_id="local/labelled", root=str(root), eval_split=0.3),
        policy=act(),
    )
    training, held_out = make_train_eval_datasets(config)
    sample: Any = held_out[0] if held_out else None
    weighter = weighter_of(training)
    assert weighter.get_stats()["num_frames"] == len(training) == 15
    unknown, _ = weighter.compute_batch_weights({"index": sample["index"][None]})
    assert unknown.isnan().all()


def test_the_horizon_is_the_policys_chunk() -> None:
    config = WeightingConfig()
    assert chunk_frames(ACTConfig(device="cpu", chunk_size=7, n_action_steps=7), config) == 7
    diffusion = DiffusionConfig(device="cpu", horizon=16, n_action_steps=8, down_dims=(8, 16))
    assert chunk_frames(diffusion, config) == 16
    assert chunk_frames(TDMPCConfig(device="cpu", horizon=5), config) == 5

    class NoChunk(ACTConfig):
        @property
        def type(self) -> str:
            return "reflex"

        action_delta_indices: Any = None

    nothing = NoChunk(device="cpu")
    with pytest.raises(UserError, match=r"policy 'reflex' has no action chunk.*horizon=SECONDS"):
        chunk_frames(nothing, config)
    assert chunk_frames(nothing, WeightingConfig(scheme=Awr(horizon=1.0))) == 1
