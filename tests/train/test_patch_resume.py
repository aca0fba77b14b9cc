"""Weighted runs that go on from a checkpoint."""

import pytest
import torch
from patched_runs import DESCENT, FRAMES, WEIGHTED, Runs, TableWeighter
from torch.testing import assert_close

from lerobot_topreward.train.lerobot_patch import patch_trainer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_resuming_goes_on_as_lerobot_does(runs: Runs, policy: str) -> None:
    weighter = TableWeighter(torch.ones(FRAMES))
    with patch_trainer(weighter):
        for name, more in (("stock", ()), ("ours", WEIGHTED)):
            runs.train(name, *DESCENT, *more, "--steps=2", policy=policy)
            weighter.params = {}
            runs.resume(name, "--steps=4")
    assert weighter.params == {"beta": 0.5}
    ours, stock = runs.parameters("ours"), runs.parameters("stock")
    assert_close(ours, stock, atol=1e-6, rtol=1e-5)


def test_fine_tuning_a_stock_checkpoint(runs: Runs) -> None:
    runs.train("stock", "--steps=1", policy="act")
    path = f"--policy.path={runs.saved('stock')}"
    with patch_trainer(TableWeighter(torch.zeros(FRAMES))):
        runs.train("tuned", path, *DESCENT, "--steps=1", *WEIGHTED, policy=None)
    assert_close(runs.parameters("tuned"), runs.parameters("stock"), atol=0, rtol=0)
