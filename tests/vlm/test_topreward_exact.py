"""The scorer as a reward model of LeRobot's: found by its rules, equal to LeRobot's TOPReward."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import parser
from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards.factory import (
    get_reward_model_class,
    make_reward_model,
    make_reward_model_config,
    make_reward_pre_post_processors,
)
from reward_models import CAMERA, build_topreward

TYPE = "topreward_exact"
TASKS = ["pick up the cube", "open the drawer"]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    parser.load_plugin("lerobot_topreward.reward_model")  # as --reward_model.discover_packages_path


def config_of(kind: str, vlm: Path, **options: Any) -> RewardModelConfig:
    given = {"vlm_name": str(vlm), "torch_dtype": "float32", "device": "cpu", "image_key": CAMERA}
    return make_reward_model_config(kind, **given | options)


@pytest.fixture(scope="module")
def ours(tiny_vlm: Path) -> Any:
    return make_reward_model(config_of(TYPE, tiny_vlm))


@pytest.fixture(scope="module")
def theirs(tiny_vlm: Path) -> Any:
    return make_reward_model(config_of("topreward", tiny_vlm))


def batch_of(images: int, *, seed: int, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shape = (2, images, 3, *(int(32 * side) for side in rng.integers(1, 4, 2)))
    return {CAMERA: torch.from_numpy(rng.random(shape, dtype=np.float32)), "task": TASKS, **options}


def ask(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Through the pre-processor that LeRobot finds for it."""
    preprocess, _ = make_reward_pre_post_processors(model.config)
    return model.compute_reward(preprocess(dict(batch)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("images", [1, 2, 5, 20])
def test_the_reward_is_lerobots(ours: Any, theirs: Any, images: int, seed: int) -> None:
    batch = batch_of(images, seed=seed)
    expected = ask(theirs, batch)
    found = ask(ours, batch)
    assert found.shape == (2,)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert found[0] != found[1]
    as_bytes = (batch[CAMERA] * 255).to(torch.uint8).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(ask(ours, batch | {CAMERA: as_bytes}), expected, atol=1e-4, rtol=0)


def test_a_single_image_and_a_task_for_all(ours: Any, theirs: Any) -> None:
    batch = batch_of(1, seed=9, task=TASKS[0])
    batch[CAMERA] = batch[CAMERA][:, 0]
    torch.testing.assert_close(ask(ours, batch), ask(theirs, batch), atol=1e-4, rtol=0)


def test_every_prefix_in_one_pass(ours: Any) -> None:
    batch = batch_of(7, seed=3)
    found = ours.score_prefixes(batch)
    assert found.shape == (2, 7)
    for shown in range(1, 8):
        prefix = batch | {CAMERA: batch[CAMERA][:, :shown]}
        torch.testing.assert_close(
            ours.compute_reward(prefix), found[:, shown - 1], atol=1e-4, rtol=0
        )


def test_success_is_above_a_threshold(tiny_vlm: Path, ours: Any) -> None:
    batch = batch_of(3, seed=1)
    rewards = ours.compute_reward(batch)
    limit = float(rewards.mean())
    judge = make_reward_model(config_of(TYPE, tiny_vlm, success_threshold=limit))
    assert judge.compute_reward(batch).tolist() == (rewards > limit).float().tolist()


def test_a_checkpoint_is_its_configuration(tiny_vlm: Path, ours: Any, tmp_path: Path) -> None:
    config = config_of(TYPE, tiny_vlm, max_frames=3, default_task=TASKS[1])
    kind = get_reward_model_class(TYPE)
    kind(config).save_pretrained(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["config.json"]
    read = RewardModelConfig.from_pretrained(str(tmp_path / "saved"))
    assert read == config
    read.pretrained_path = str(tmp_path / "saved")
    batch = batch_of(5, seed=2)
    last = batch | {CAMERA: batch[CAMERA][:, -3:], "task": TASKS[1]}
    expected = ours.compute_reward(last)
    del batch["task"]
    for model in (kind.from_pretrained(tmp_path / "saved"), make_reward_model(read)):
        assert not model.is_trainable
        assert not model.training
        torch.testing.assert_close(model.compute_reward(batch), expected, atol=1e-5, rtol=0)
    other = build_topreward(tmp_path / "other", tiny_vlm)
    with pytest.raises(TypeError, match="must hold a reward model of the type topreward_exact"):
        kind.from_pretrained(other)


def test_what_cannot_be_scored(tiny_vlm: Path, ours: Any) -> None:
    batch = batch_of(2, seed=0)
    with pytest.raises(KeyError, match=r"must be in the batch; it has task"):
        ours.compute_reward({"task": "x"})
    with pytest.raises(KeyError, match="task_key"):
        ours.compute_reward({CAMERA: batch[CAMERA]})
    for shape in ((2, 2, 4, 8, 8), (3, 8, 8), (2, 0, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"must be \(batch, time, 3, height, width\)"):
            ours.compute_reward(batch | {CAMERA: torch.zeros(shape)})
    for tasks in (["a", "b", "c"], [1, 2]):
        with pytest.raises(ValueError, match="a task for each of 2 videos"):
            ours.compute_reward(batch | {"task": tasks})
    for wrong in ({"fps": 0.0}, {"max_frames": 0}, {"torch_dtype": "int8"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be|not available"):
            config_of(TYPE, tiny_vlm, **wrong)
