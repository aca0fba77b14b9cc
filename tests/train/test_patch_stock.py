"""LeRobot's own weightings, its own command and its several processes, with the trainer patch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from patched_runs import DESCENT, FRAMES, WEIGHTED, Runs, TableWeighter, table
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
    run = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.stdout


TWO_PROCESSES = """
import os
import sys

import torch
from accelerate import Accelerator
from lerobot.scripts import lerobot_train
from patched_runs import FRAMES, TableWeighter

from lerobot_topreward.errors import TrainingError
from lerobot_topreward.train.lerobot_patch import patch_trainer

# When train() returns, DDP's reducer is freed, and with it gloo's process group, which joins a
# thread that may be waiting for the interpreter's lock (PyTorch 2.11).
Accelerator.end_training = lambda accelerator: os._exit(0)
spoil = sys.argv.pop(1) == "spoil"
weighter = TableWeighter(torch.ones(FRAMES))


def on_step(step, batch, weights):
    if spoil and step == 3 and os.environ["RANK"] == "1":
        print("spoilt:", int(batch["index"][0]))
        batch["action"][0] = float("nan")


weighter.on_step = on_step
with patch_trainer(weighter):
    try:
        lerobot_train.train()
    except TrainingError as stopped:
        print(f"process {os.environ['RANK']}: {stopped}")
        os._exit(0)
"""


@pytest.mark.slow
def test_two_processes(runs: Runs) -> None:
    script = runs.folder / "script.py"
    script.write_text(TWO_PROCESSES)

    def launch(name: str, *more: str) -> str:
        return run_program(
            "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, name,
            *runs.options(name, *DESCENT, "--steps=4", *more, policy="act"),
        )  # fmt: skip

    assert re.search(r"loss:\d", launch("ours", *WEIGHTED))
    launch("stock")
    stock = runs.parameters("stock")
    assert_close(runs.parameters("ours"), stock, atol=1e-6, rtol=1e-5)

    printed = launch("spoil", *WEIGHTED)
    index = re.findall(r"spoilt: (\d+)", printed)
    assert len(index) == 1  # in one process, but both stop, and say the same
    for process in (0, 1):
        assert re.search(rf"process {process}: step 3: the loss .* index\): {index[0]}\.", printed)
    assert_close(runs.parameters("spoil"), runs.parameters("spoil", "000002"), atol=0, rtol=0)


@pytest.mark.slow
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
