"""LeRobot's trainer draws frames by their weight."""

import numpy as np
import pytest
import torch
from patched_runs import DESCENT, FRAMES, WEIGHTED, Runs, TableWeighter, table
from torch import Tensor
from torch.testing import assert_close

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.lerobot_patch import patch_trainer
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.sample_weighter import make_weighter

pytestmark = pytest.mark.slow

SAMPLED = (WEIGHTED[0], "--sample_weighting.extra_params={apply: sampling}")


class DrawingWeighter(TableWeighter):
    """Frames are drawn by the table, their losses count alike; remembers what was drawn."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(torch.ones(FRAMES))
        weight = values.numpy()
        self.drawn = FrameWeights(np.arange(FRAMES), weight, weight, weight > 5)
        self.seen: list[int] = []
        self.on_step = lambda _, batch, __: self.seen.extend(batch["index"].tolist())


@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_frames_that_weigh_nothing_are_never_drawn(runs: Runs, policy: str) -> None:
    values = table()
    weighter = DrawingWeighter(values)
    with patch_trainer(weighter):
        runs.train("run", "--steps=16", *SAMPLED, policy=policy)
    dropped = {"act": 0, "diffusion": 7}[policy]  # drop_n_last_frames
    last = [end - 1 - i for end in (9, 21, 31) for i in range(dropped)]
    left = values.clone()
    left[last] = 0
    counts = np.bincount(weighter.seen, minlength=FRAMES)
    assert len(weighter.seen) >= 2 * (FRAMES - len(last))
    assert not counts[left.numpy() == 0].any()
    assert counts[left.numpy() > 1].all()


def test_resuming_draws_what_an_undisturbed_run_draws(runs: Runs) -> None:
    weighter = DrawingWeighter(table())
    # Nothing else is random: a new data loader draws from torch's generator.
    options = (*DESCENT, *SAMPLED, "--policy.dropout=0", "--policy.use_vae=false")
    with patch_trainer(weighter):
        runs.train("whole", *options, "--steps=20", policy="act")
        whole = weighter.seen
        weighter.seen = []
        runs.train("parts", *options, "--steps=11", policy="act")
        runs.resume("parts", "--steps=20")  # an epoch is eight steps
    assert weighter.params == {"apply": "sampling"}
    assert weighter.seen == whole
    parts = runs.parameters("parts")
    assert_close(parts, runs.parameters("whole"), atol=1e-6, rtol=1e-5)


def test_some_episodes_are_drawn_from(runs: Runs) -> None:
    weighter = DrawingWeighter(table())
    with patch_trainer(weighter):
        runs.train("run", "--steps=10", *SAMPLED, "--dataset.episodes=[2,0]", policy="act")
    drawn = {frame for frame in [*range(9), *range(21, 31)] if table()[frame] > 0}
    assert set(weighter.seen) <= drawn
    assert max(weighter.seen) > 20 > min(weighter.seen)


def test_equal_weights_are_stock_training(runs: Runs) -> None:
    runs.train("stock", *DESCENT, "--steps=9", policy="act")
    with patch_trainer(DrawingWeighter(torch.ones(FRAMES))):
        runs.train("ours", *DESCENT, "--steps=9", *SAMPLED, policy="act")
    assert_close(runs.parameters("ours"), runs.parameters("stock"), atol=1e-6, rtol=1e-5)


def test_a_policy_needs_no_loss_per_sample(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ACT as if it had none: the same as with one."""
    with patch_trainer(DrawingWeighter(table())):
        runs.train("with", *DESCENT, "--steps=3", *SAMPLED, policy="act")
        monkeypatch.setattr(
            "lerobot_topreward.train.lerobot_patch.has_per_sample_loss", lambda _: False
        )
        runs.train("without", *DESCENT, "--steps=3", *SAMPLED, policy="act")
    assert_close(runs.parameters("without"), runs.parameters("with"), atol=1e-6, rtol=1e-5)


def test_a_streamed_dataset_is_refused(runs: Runs) -> None:
    with (
        patch_trainer(make_weighter),
        pytest.raises(UserError, match=r"sampling.* streamed .*`weighting.apply=loss`"),
    ):
        runs.train(
            "run", "--steps=1", *SAMPLED, "--dataset.streaming=true", "--num_workers=1",
            policy="act",
        )  # fmt: skip
