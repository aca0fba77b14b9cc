"""Weighted training under gradient accumulation, where LeRobot has it (0.6.2 and later)."""

import pytest
import torch
from lerobot.configs.train import TrainPipelineConfig
from patched_runs import DESCENT, WEIGHTED, Runs, TableWeighter, table
from safetensors.torch import load_file
from torch.testing import assert_close

from lerobot_topreward.errors import TrainingError
from lerobot_topreward.train.lerobot_patch import patch_trainer

pytestmark = [
    pytest.mark.skipif(
        "accelerator" not in TrainPipelineConfig.__dataclass_fields__,
        reason="the installed LeRobot does not accumulate gradients",
    ),
    # LeRobot's own order, in the first half of a batch.
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning"),
]
# A chunk of 1 has no padding, by which LeRobot's own loss depends on what else is in a batch.
PLAIN = (
    *DESCENT, *WEIGHTED, "--policy.dropout=0", "--policy.use_vae=false", "--policy.chunk_size=1",
    "--policy.n_action_steps=1",
)  # fmt: skip
TWICE = "--accelerator.gradient_accumulation.steps=2"


def test_two_half_batches_are_one_batch(runs: Runs) -> None:
    with patch_trainer(TableWeighter(table())):
        runs.train("once", *PLAIN, "--steps=3", "--batch_size=8", policy="act")
        runs.train("twice", *PLAIN, "--steps=6", TWICE, policy="act")
        runs.train("start", *PLAIN, "--steps=1", "--optimizer.lr=0", policy="act")
    once, twice, start = (runs.parameters(name) for name in ("once", "twice", "start"))
    assert_close(twice, once, atol=1e-6, rtol=0)
    moved = max(float((once[name] - start[name]).abs().max()) for name in once)
    assert moved > 1e-3


def test_what_is_not_finite_in_the_second_half_stops_before_the_update(runs: Runs) -> None:
    weighter = TableWeighter(table())

    def spoil(step: int, batch: dict[str, torch.Tensor], _: torch.Tensor) -> None:
        if step == 4:
            batch["action"][1, 0, 0] = float("nan")

    weighter.on_step = spoil
    with patch_trainer(weighter):
        with pytest.raises(TrainingError, match=r"step 4: .* after step 3 is saved"):
            runs.train("broken", *PLAIN, "--steps=6", TWICE, policy="act")
        weighter.on_step = lambda *_: None
        runs.train("whole", *PLAIN, "--steps=2", TWICE, policy="act")
        assert_close(runs.parameters("broken"), runs.parameters("whole"), atol=0, rtol=0)
        runs.resume("broken")


def test_the_moving_average_of_a_run_that_stopped(runs: Runs) -> None:
    averaged = (*PLAIN, "--steps=4", "--ema.enable=true", "--ema.decay=0.5")
    weighter = TableWeighter(table())

    def check_average(name: str, *states: tuple[str, int]) -> None:
        """It is the first of the parameters at first, and goes half the way to each later ones."""
        live = [runs.parameters(of, f"{step:06d}") for of, step in states]
        expected = dict(live[0])
        for later in live[1:]:
            expected = {key: (expected[key] + later[key]) / 2 for key in expected}
        folder = runs.saved(name).with_name("pretrained_model_ema")
        assert_close(load_file(folder / "model.safetensors"), expected, atol=1e-6, rtol=0)

    def spoil(step: int, batch: dict[str, torch.Tensor], _: torch.Tensor) -> None:
        if step == 3:
            batch["action"].fill_(float("nan"))

    with patch_trainer(weighter):
        runs.train("whole", *averaged, "--save_freq=1", policy="act")
        check_average("whole", *[("whole", step) for step in (1, 2, 3, 4)])
        weighter.on_step = spoil
        with pytest.raises(TrainingError, match=r"moving average \(--ema\) is not: resuming"):
            runs.train("lost", *averaged, policy="act")
        with pytest.raises(TrainingError, match=r"000002\. Look for NaN"):
            runs.train("kept", *averaged, "--save_freq=2", policy="act")
        weighter.on_step = lambda *_: None
        for name in ("lost", "kept"):
            stopped = runs.parameters(name)
            assert_close(stopped, runs.parameters("whole", "000002"), atol=0, rtol=0)
            runs.resume(name, "--save_freq=1")
        check_average("lost", ("lost", 3), ("lost", 4))
        check_average("kept", ("whole", 1), *[("kept", step) for step in (2, 3, 4)])
