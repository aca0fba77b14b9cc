"""Training in two processes: run by every job, as no check of signatures sees what is wrong there."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lerobot.configs.train import TrainPipelineConfig
from patched_runs import DESCENT, WEIGHTED, Runs
from programs import TWO_PROCESSES, run_python
from torch.testing import assert_close

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAIN = """
import os
import sys

import torch
from accelerate import Accelerator
from lerobot.scripts import lerobot_train
from patched_runs import FRAMES, TableWeighter

from lerobot_topreward.errors import TrainingError
from lerobot_topreward.train.lerobot_patch import patch_trainer

what = sys.argv.pop(1)
weighter = TableWeighter(torch.ones(FRAMES))


def on_step(step, batch, weights):
    if what == "spoil" and step == 3 and os.environ["RANK"] == "1":
        print("spoilt:", int(batch["index"][0]))
        batch["action"][0] = float("nan")


def end_training(accelerator, end=Accelerator.end_training):
    group = torch.distributed.group.WORLD
    end(accelerator)
    if what == "late":
        # A thread of gloo's is left with a tensor of Python's. To free it, it needs the
        # interpreter's lock, which this thread, returning from train(), gives to nobody.
        sys.setswitchinterval(1000)
        group.allreduce([torch.ones(1)])


weighter.on_step = on_step
Accelerator.end_training = end_training
with patch_trainer(weighter):
    try:
        lerobot_train.train()
    except TrainingError as stopped:
        print(f"process {os.environ['RANK']}: {stopped}")
    else:
        print(f"process {os.environ['RANK']}: trained")
"""

# Accelerate shards parameters over anything but CPUs, so it is told that these are something else;
# and gathered parameters are copied, which moving them from a GPU does, or those that have an odd
# number of rows are views that LeRobot cannot save.
SHARD_ON_CPUS = """
import os

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from lerobot.distributed import checkpoint

prepare = PartialState._prepare_backend


def prepare_backend(self, *arguments):
    backend, kind = prepare(self, *arguments)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend)
    return backend, DistributedType.MULTI_XPU


def copy_gathered(module, gather=checkpoint.full_model_state_dict):
    return {name: values.clone() for name, values in gather(module).items()}


os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
PartialState._prepare_backend = prepare_backend
checkpoint.full_model_state_dict = copy_gathered
"""
SHARDED = "--parallelism.dp_shard=2"


def train_by_two(runs: Runs, name: str, *more: str) -> str:
    script = runs.folder / "script.py"
    script.write_text(SHARD_ON_CPUS + TRAIN if SHARDED in more else TRAIN)
    options = runs.options(name, *DESCENT, "--steps=4", *more, policy="act")
    env = {"PYTHONPATH": str(Path(__file__).parents[1])}  # where these tests can be imported
    ran = run_python(*TWO_PROCESSES, script, name, *options, env=env)
    return ran.stdout + ran.stderr


def test_they_train_what_lerobot_trains(runs: Runs) -> None:
    assert re.search(r"loss:\d", train_by_two(runs, "ours", *WEIGHTED))
    train_by_two(runs, "stock")
    stock = runs.parameters("stock")
    assert_close(runs.parameters("ours"), stock, atol=1e-6, rtol=1e-5)

    printed = train_by_two(runs, "spoil", *WEIGHTED)
    index = re.findall(r"spoilt: (\d+)", printed)
    assert len(index) == 1  # in one process, but both stop, and say the same
    for process in (0, 1):
        assert re.search(rf"process {process}: step 3: the loss .* index\): {index[0]}\.", printed)
    assert_close(runs.parameters("spoil"), runs.parameters("spoil", "000002"), atol=0, rtol=0)


@pytest.mark.skipif(
    "parallelism" not in TrainPipelineConfig.__dataclass_fields__,
    reason="the installed LeRobot has no option that shards parameters (FSDP2)",
)
def test_they_share_the_parameters(runs: Runs) -> None:
    train_by_two(runs, "copied", *WEIGHTED)
    printed = train_by_two(runs, "shared", *WEIGHTED, "--save_freq=2", SHARDED)
    assert runs.saved("shared").is_dir(), printed
    assert_close(runs.parameters("shared"), runs.parameters("copied"), atol=1e-6, rtol=1e-5)

    printed = train_by_two(runs, "spoil", *WEIGHTED, SHARDED)
    for process in (0, 1):
        assert re.search(rf"process {process}: step 3: .* after step 2 is saved", printed), printed
    stopped = runs.parameters("spoil", "000002")
    assert_close(stopped, runs.parameters("shared", "000002"), atol=0, rtol=0)


def test_they_end_though_gloo_is_not_done(runs: Runs) -> None:
    printed = train_by_two(runs, "late", *WEIGHTED)
    assert sorted(re.findall(r"process (\d): trained", printed)) == ["0", "1"], printed


@pytest.mark.parametrize("apply", ["loss", "sampling"])
def test_the_train_command(runs: Runs, write_labels: Callable[..., Path], apply: str) -> None:
    labeled = replace(runs, root=write_labels(runs.root))
    options = labeled.options("run", "--steps=3", f"--weighting.apply={apply}", policy="act")
    ran = run_python(*TWO_PROCESSES, "-m", "lerobot_topreward", "train", *options)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("effective sample size") == 1
    assert re.search(r"Effective batch size: 4 x 2\b.* = 8\b", ran.stderr)
    assert labeled.saved("run").is_dir()
