"""Demonstrations, a share of them bad, and what the label pass says of their videos."""

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
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
from lerobot_topreward.vlm.identity import BUILTIN
from weighted_bc.images import encode_dataset

# The default demonstrations with their labels, as this script made them, without their videos: they
# take two cores half an hour.
_MADE = Path(__file__).parent / "demonstrations"
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

    demonstrations: Path  # holds the truth
    labelled: dict[str, Path]  # labeling -> dataset
    seen: Path | None  # the same with encoded images, for policies that see those
    curated: Sequence[int]  # episodes that curate's default rules keep
    good: Sequence[int]  # episodes that truly succeed; for the oracle alone


def prepare(
    work: Path,
    *,
    demonstrations: int,
    bad_share: float,
    vlm: str,
    labels: Collection[str],
    images: bool,
) -> Data:
    """Simulate, render, merge and label, each only if it is not there yet.

    Args:
        work: folder that keeps everything.
        demonstrations: how many, of every kind.
        bad_share: of them, 0..1: missed, wrong_place, undone and idle in turn; the others are good.
        vlm: the checkpoint that labels.
        labels: which labelings, of "task" and "paper".
        images: whether policies see images.
    """
    if not images and (demonstrations, bad_share, vlm, {*labels}) == (320, 0.5, BUILTIN, {"task"}):
        shutil.copytree(_MADE, work, dirs_exist_ok=True)
    of_each = max(1, round(demonstrations * bad_share / len(FAILING)))
    succeeding = demonstrations - of_each * len(FAILING)
    merged = work / "demonstrations"
    if not (merged / TRUTH_FILE).is_file():
        with ThreadPoolExecutor() as pool:
            good = pool.submit(_simulated, work / "good", _GOOD_SEED, succeeding, ("good",))
            bad = pool.submit(_simulated, work / "bad", _BAD_SEED, of_each, FAILING)
            _merge([good.result(), bad.result()], merged)
    truth = pd.read_parquet(merged / TRUTH_FILE).drop_duplicates("episode_index")
    labelled = {name: _label(merged, work, name, vlm) for name in labels}
    return Data(
        demonstrations=merged,
        labelled=labelled,
        seen=encode_dataset(merged, work) if images else None,
        curated=_curate(labelled["task"], work / "curated.txt"),
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


def _label(source: Path, work: Path, name: str, vlm: str) -> Path:
    """Label by a VLM, from the videos; then drop them, as policies see the state."""
    folder = work / f"state-{name}"
    if (folder / SIDECAR_NAME).is_file():
        return folder
    labeled = work / f"labelled-{name}"
    try:
        lerobot_topreward(
            [
                *("label", "--root", str(source), "--output", str(labeled)),
                *(*_LABELS[name], "--vlm", vlm),
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


def _curate(root: Path, episodes_file: Path) -> list[int]:
    """Take the list of episodes that `lerobot-topreward curate` writes with its default rules."""
    if not episodes_file.is_file():
        try:
            lerobot_topreward(
                [
                    *("curate", "--root", str(root), "--episodes-file", str(episodes_file)),
                    "--force-rules",
                ]
            )
        except SystemExit as done:
            if done.code != 0:
                raise
    return json.loads(episodes_file.read_text())
