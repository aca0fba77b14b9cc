"""What is NaN or infinite stops a weighted run, after saving the last good state."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from patched_runs import WEIGHTED, Runs, TableWeighter, table
from torch import Tensor
from torch.testing import assert_close

from lerobot_topreward.errors import TrainingError
from lerobot_topreward.train.lerobot_patch import patch_trainer

pytestmark = pytest.mark.slow


def spoil_loss(step: int, batch: dict[str, Tensor], _: Tensor) -> None:
    if step == 3:
        batch["action"][1, 0, 0] = float("nan")


def spoil_weight(step: int, batch: dict[str, Tensor], weights: Tensor) -> None:
    if step == 3:
        weights[1] = float("inf")


@pytest.mark.parametrize(
    ("policy", "spoil", "what"),
    [
        pytest.param("act", spoil_loss, "loss", id="act-loss"),
        pytest.param("diffusion", spoil_weight, "weight", id="diffusion-weight"),
    ],
)
def test_what_is_not_finite_stops_training_after_saving(
    runs: Runs,
    policy: str,
    spoil: Callable[[int, dict[str, Tensor], Tensor], None],
    what: str,
) -> None:
    weighter = TableWeighter(table())
    seen: list[int] = []

    def on_step(step: int, batch: dict[str, Tensor], weights: Tensor) -> None:
        seen.append(int(batch["index"][1]))
        spoil(step, batch, weights)

    weighter.on_step = on_step
    more = ("--steps=5", *WEIGHTED)
    with patch_trainer(weighter):
        with pytest.raises(TrainingError) as stopped:
            runs.train("broken", *more, policy=policy)
        assert str(stopped.value).startswith(
            f"step 3: the {what} of these frames is NaN or infinite (global index): {seen[-1]}. "
            f"The state after step 2 is saved in {runs.saved('broken', '000002').parent}."
        )
        weighter.on_step = lambda *_: None
        runs.train("whole", *more, "--save_freq=2", policy=policy)
        assert_close(runs.parameters("broken"), runs.parameters("whole", "000002"), atol=0, rtol=0)
        runs.resume("broken")
    broken, whole = (runs.parameters(name, "000005") for name in ("broken", "whole"))
    assert broken.keys() == whole.keys()


def test_a_first_step_that_is_not_finite(runs: Runs) -> None:
    weighter = TableWeighter(table())
    weighter.on_step = lambda _, batch, __: batch["action"].fill_(float("nan"))
    with patch_trainer(weighter):
        with pytest.raises(TrainingError, match=r"step 1: .* after step 0 is saved"):
            runs.train("run", "--steps=2", *WEIGHTED, policy="act")
        weighter.on_step = lambda *_: None
        runs.resume("run")
        weighter.on_step = spoil_loss
        with pytest.raises(TrainingError, match="as --save_checkpoint=false asks"):
            runs.train("unsaved", "--steps=5", *WEIGHTED, "--save_checkpoint=false", policy="act")
    assert not (runs.folder / "unsaved" / "checkpoints").exists()


def test_parameters_that_are_not_finite_are_not_saved(runs: Runs) -> None:
    weighter = TableWeighter(table())

    def break_policy(step: int, *_: Any) -> None:
        if step == 3:
            next(runs.policies[-1].parameters()).data.fill_(float("nan"))

    weighter.on_step = break_policy
    with patch_trainer(weighter), pytest.raises(TrainingError, match="parameters are not finite"):
        runs.train("run", "--steps=5", *WEIGHTED, "--save_freq=1", policy="act")
    assert os.readlink(runs.folder / "run" / "checkpoints" / "last") == "000002"
