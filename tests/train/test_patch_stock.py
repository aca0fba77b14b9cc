"""LeRobot's own weightings, its own command and its several processes, with the trainer patch."""

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from patched_runs import DESCENT, FRAMES, WEIGHTED, Runs, TableWeighter, table
from programs import TWO_PROCESSES, run_python
from torch.testing import assert_close

from lerobot_topreward.train.lerobot_patch import patch_trainer

LENGTHS = (9, 12, 10)


def write_progress(path: Path) -> Path:
    """Write a sidecar in LeRobot's form, in which the second episode loses what it had."""
    episodes = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    frames = np.concatenate([np.arange(length) for length in LENGTHS])
    progress = np.where(episodes == 1, 0.5 - frames / 40, frames / 12).astype(np.float32)
    columns = {"index": np.arange(FRAMES), "episode_index": episodes, "frame_index": frames}
    pq.write_table(pa.table({**columns, "progress_sparse": progress}), path)
    return path


def test_lerobots_own_weighters_work_with_act(runs: Runs) -> None:
    sidecar = write_progress(runs.folder / "topreward_progress.parquet")
    more = (*DESCENT, "--steps=4")
    with patch_trainer(TableWeighter(table())):
        runs.train("stock", *more, policy="act")
        runs.train("uniform", *more, "--sample_weighting.type=uniform", policy="act")
        runs.train(
            "rabc",
            *more,
            "--dataset.episodes=[1]",
            "--sample_weighting.type=rabc",
            f"--sample_weighting.progress_path={sidecar}",
            policy="act",
        )
        runs.train("stock-1", *more, "--dataset.episodes=[1]", policy="act")
    uniform, stock = runs.parameters("uniform"), runs.parameters("stock")
    assert_close(uniform, stock, atol=1e-6, rtol=1e-5)
    rabc, stock = runs.parameters("rabc"), runs.parameters("stock-1")
    assert not torch.equal(rabc["model.action_head.bias"], stock["model.action_head.bias"])


def run_program(*arguments: str | Path) -> str:
    """Run Python where these tests can be imported, and return what it printed."""
    ran = run_python(*arguments, env={"PYTHONPATH": str(Path(__file__).parents[1])})
    return ran.stdout + ran.stderr


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


def train_by_two(runs: Runs, name: str, *more: str) -> str:
    script = runs.folder / "script.py"
    script.write_text(TRAIN)
    options = runs.options(name, *DESCENT, "--steps=4", *more, policy="act")
    return run_program(*TWO_PROCESSES, script, name, *options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes(runs: Runs) -> None:
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


@pytest.mark.slow
def test_two_processes_end_though_gloo_is_not_done(runs: Runs) -> None:
    printed = train_by_two(runs, "late", *WEIGHTED)
    assert sorted(re.findall(r"process (\d): trained", printed)) == ["0", "1"], printed


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_stock_lerobot_train_with_the_plugin(runs: Runs) -> None:
    sidecar = write_progress(runs.folder / "progress.parquet")
    plugin = "--policy.discover_packages_path=lerobot_topreward.policies"

    def launch(name: str, *more: str) -> str:
        script = Path(sys.executable).with_name("lerobot-train")
        return run_program(script, *runs.options(name, "--steps=2", *more, policy="act"))

    assert "Unknown sample weighting type: 'topreward'" in launch("unknown", *WEIGHTED)
    rabc = ("--sample_weighting.type=rabc", f"--sample_weighting.progress_path={sidecar}")
    params = f"--sample_weighting.extra_params={{scheme: awr, beta: 0.5, sidecar: {sidecar}}}"
    drawn = params.replace("{", "{apply: sampling, ")
    runs_of = {"awr": (WEIGHTED[0], params), "drawn": (WEIGHTED[0], drawn), "rabc": rabc}
    for name, weighting in runs_of.items():
        printed = launch(name, plugin, *weighting)
        assert "sample_weight_mean_weight" in printed, printed
    more = (f"--config_path={runs.saved('awr')}", "--resume=true", "--steps=3", plugin)
    printed = run_program("-m", "lerobot.scripts.lerobot_train", *more)  # as the main module
    assert runs.saved("awr", "000003").is_dir(), printed
