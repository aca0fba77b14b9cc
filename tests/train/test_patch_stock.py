"""LeRobot's own weightings and its own command, with the trainer patch."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from patched_runs import DESCENT, FRAMES, WEIGHTED, Runs, TableWeighter, table
from programs import run_python
from torch.testing import assert_close

from lerobot_topreward.train.lerobot_patch import patch_trainer

pytestmark = pytest.mark.slow

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
