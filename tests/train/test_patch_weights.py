"""What weights do to the training of LeRobot's own `train()`."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from patched_runs import DESCENT, FRAMES, WEIGHTED, Runs, TableWeighter, table
from torch import Tensor
from torch.testing import assert_close

from lerobot_topreward.errors import UserError
from lerobot_topreward.policies.act import PerSampleACTPolicy
from lerobot_topreward.policies.diffusion import PerSampleDiffusionPolicy
from lerobot_topreward.train.lerobot_patch import patch_trainer


@pytest.mark.parametrize("policy", ["act", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_uniform_weights_train_what_lerobot_trains(runs: Runs, policy: str) -> None:
    more = (*DESCENT, "--steps=4")
    runs.train("stock", *more, policy=policy)
    with patch_trainer(TableWeighter(torch.ones(FRAMES))):
        runs.train("ours", *more, *WEIGHTED, policy=policy)
        runs.train("without", *more, policy=policy)
    stock = runs.parameters("stock")
    assert_close(runs.parameters("ours"), stock, atol=1e-6, rtol=1e-5)
    assert_close(runs.parameters("without"), stock, atol=0, rtol=0)
    for file in runs.saved("ours").glob("*.json"):
        assert file.name == "train_config.json" or "topreward" not in file.read_text()


@pytest.mark.parametrize("per_batch", [False, True])
@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_a_step_minimises_the_mean_of_the_weighted_losses(
    runs: Runs, policy: str, per_batch: bool
) -> None:
    weighter = TableWeighter(table(), per_batch=per_batch)
    seen: dict[str, Any] = {}

    def remember(_: int, batch: dict[str, Tensor], weights: Tensor) -> None:
        seen.update(
            policy=copy.deepcopy(runs.policies[-1]),
            batch=dict(batch),
            weights=weights,
            random=torch.get_rng_state(),
        )

    weighter.on_step = remember
    with patch_trainer(weighter):
        runs.train("run", *DESCENT, "--steps=1", *WEIGHTED, policy=policy)

    own, weights = seen["policy"].train(), seen["weights"]
    assert isinstance(own, PerSampleACTPolicy | PerSampleDiffusionPolicy)
    assert weighter.params == {"beta": 0.5}
    torch.set_rng_state(seen["random"])
    losses, _ = own.forward(seen["batch"], reduction="none")
    if per_batch:  # LeRobot's own quotient
        loss = (losses * weights).sum() / (weights.sum() + 1e-6)
    else:
        loss = (losses * weights).mean()
    loss.backward()
    expected = {name: p - 0.01 * p.grad for name, p in own.named_parameters() if p.grad is not None}
    found = runs.parameters("run")
    assert_close({name: found[name] for name in expected}, expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_a_batch_of_weight_zero_teaches_nothing(runs: Runs, policy: str) -> None:
    weighter = TableWeighter(torch.zeros(FRAMES))
    before: dict[str, Tensor] = {}

    def remember(step: int, *_: Any) -> None:
        if step == 1:
            before.update(copy.deepcopy(runs.policies[-1]).state_dict())

    weighter.on_step = remember
    with patch_trainer(weighter):
        runs.train("run", *DESCENT, "--steps=2", *WEIGHTED, policy=policy)
    found = runs.parameters("run")
    assert_close(found, {name: before[name] for name in found}, atol=0, rtol=0)


def test_mixed_precision(runs: Runs) -> None:
    with patch_trainer(TableWeighter(torch.ones(FRAMES))):
        half = ("--policy.use_amp=true", *DESCENT, "--steps=3")
        runs.train("stock", *half, policy="act")
        runs.train("ours", *half, *WEIGHTED, policy="act")
    assert_close(runs.parameters("ours"), runs.parameters("stock"), atol=1e-3, rtol=1e-2)


def test_the_weighter_is_given_the_dataset_that_is_trained_on(runs: Runs) -> None:
    weighter = TableWeighter(table())
    seen: list[int] = []
    weighter.on_step = lambda _, batch, __: seen.extend(batch["index"].tolist())
    with patch_trainer(weighter):
        runs.train("run", "--steps=5", *WEIGHTED, "--dataset.episodes=[2,0]", policy="act")
    assert weighter.dataset is not None
    assert weighter.dataset.root == runs.root
    assert weighter.dataset.episodes == [2, 0]
    assert set(seen) <= {*range(9), *range(21, 31)}


def test_a_policy_without_per_sample_loss_fails_before_anything_is_read(runs: Runs) -> None:
    elsewhere = replace(runs, root=runs.folder / "missing")
    with (
        patch_trainer(TableWeighter(table())),
        pytest.raises(UserError, match="'vqbet' has no per"),
    ):
        elsewhere.train("run", "--policy.type=vqbet", *WEIGHTED, policy=None)


def test_a_policy_that_returns_one_loss_is_refused(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_loss(self: Any, batch: dict[str, Tensor], reduction: str) -> tuple[Tensor, None]:
        return self.model.action_head.weight.mean(), None

    monkeypatch.setattr(PerSampleACTPolicy, "forward", one_loss)
    with (
        patch_trainer(TableWeighter(table())),
        pytest.raises(RuntimeError, match=r"one loss per sample, shape \(4,\); got \(\)"),
    ):
        runs.train("run", "--steps=1", *WEIGHTED, policy="act")
