"""Demonstrations, half of them bad, and what the label pass says of their videos."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from lerobot.datasets.dataset_tools import merge_datasets, remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.cli import main as lerobot_topreward
from lerobot_topreward.simulation.simulate import CAMERA
from lerobot_topreward.simulation.tasks import FAILING, KINDS
from lerobot_topreward.simulation.truth import TRUTH_FILE
from lerobot_topreward.storage.sidecar import SIDECAR_NAME

SPREAD = 0.3  # of the table, see PickPlaceEnv: the simplest variant that is still pick-and-place
# The VLM was trained on seeds below 100,000 and judged on others; these are nobody's.
_GOOD_SEED = 310_000
_BAD_SEED = 300_000
_LABELS = {
    "task": ["--normalize", "task", "--scale", "prob"],
    "paper": ["--config", "paper"],
}


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on: the same episodes under two labellings, without their videos."""

    demonstrations: Path  # as recorded, with the truth
    labelled: dict[str, Path]  # labeling -> dataset
    good: Sequence[int]  # episodes that truly succeed; for the oracle alone


def prepare(work: Path, *, demonstrations: int) -> Data:
    """Simulate, render, merge and label, each only if it is not there yet.

    Args:
        work: folder that keeps everything.
        demonstrations: half of them good; the others missed, wrong_place, undone and idle in turn.
    """
    half = demonstrations // 2
    merged = work / "demonstrations"
    if not (merged / TRUTH_FILE).is_file():
        with ThreadPoolExecutor() as pool:
            good = pool.submit(_simulated, work / "good", _GOOD_SEED, half, ("good",))
            bad = pool.submit(_simulated, work / "bad", _BAD_SEED, half // len(FAILING), FAILING)
            _merge([good.result(), bad.result()], merged)
    truth = pd.read_parquet(merged / TRUTH_FILE).drop_duplicates("episode_index")
    return Data(
        demonstrations=merged,
        labelled={name: _label(merged, work, name) for name in _LABELS},
        good=truth["episode_index"][truth["success"]].tolist(),
    )


def _simulated(folder: Path, first: int, of_each: int, kinds: Sequence[str]) -> Path:
    if not (folder / TRUTH_FILE).is_file():  # written last
        shutil.rmtree(folder, ignore_errors=True)
        # A process of its own: how to render is decided when MuJoCo is imported.
        subprocess.run(
            [
                *(sys.executable, "-m", "lerobot_topreward.simulation.simulate"),
                *("--output", str(folder), "--repo-id", f"local/{folder.name}"),
                *("--seeds", f"{first}:{first + of_each * len(KINDS)}", "--kinds", *kinds),
                *("--spread", str(SPREAD)),
            ],
            check=True,
        )
    return folder


def _merge(parts: Sequence[Path], merged: Path) -> None:
    shutil.rmtree(merged, ignore_errors=True)
    datasets = [LeRobotDataset(f"local/{part.name}", root=part) for part in parts]
    merge_datasets(datasets, output_repo_id=f"local/{merged.name}", output_dir=merged)
    tables, offset = [], 0
    for part, dataset in zip(parts, datasets, strict=True):
        table = pd.read_parquet(part / TRUTH_FILE)
        table["episode_index"] += offset
        offset += dataset.num_episodes
        tables.append(table)
    pd.concat(tables).to_parquet(merged / TRUTH_FILE, index=False)


def _label(source: Path, work: Path, name: str) -> Path:
    """Label by the demo's VLM, from the videos; then drop them, as policies see the state."""
    folder = work / f"state-{name}"
    if (folder / SIDECAR_NAME).is_file():
        return folder
    labeled = work / f"labelled-{name}"
    try:
        lerobot_topreward(
            [
                *("label", "--root", str(source), "--output", str(labeled)),
                *(*_LABELS[name], "--vlm", "builtin:so101-demo"),
            ]
        )
    except SystemExit as done:
        if done.code != 0:
            raise
    shutil.rmtree(folder, ignore_errors=True)
    dataset = LeRobotDataset(f"local/{labeled.name}", root=labeled)
    remove_feature(dataset, [CAMERA], output_dir=folder, repo_id=f"local/{folder.name}")
    # Its fingerprint leaves pixels out, so it still belongs.
    shutil.copyfile(labeled / SIDECAR_NAME, folder / SIDECAR_NAME)
    return folder
