"""Does curation find bad demonstrations that nobody has seen?

Simulates and renders fresh episodes, half of them bad in four ways, labels their video with the
demo's VLM, and drops episodes by the default rules of `lerobot-topreward curate`. The simulator's
truth says how right that was; beside it stand what people do today. Run it again to go on.

    python benchmarks/curation.py --work curation
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from jaxtyping import Bool
from rich.console import Console

from lerobot_topreward.console import make_console
from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.curate.plan import make_plan
from lerobot_topreward.curate.table import describe_rules
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.thresholds import precision_recall
from lerobot_topreward.label.command import label_dataset
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.simulation.tasks import KINDS, SUCCEEDING
from lerobot_topreward.simulation.truth import TRUTH_FILE
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig

# The VLM was trained below 100,000 and judged on seeds from there; 200,000 are the bundled episodes,
# on which the default rules were chosen; 300,000 and 310,000 are the proof's.
_FIRST_SEED = 400_000
_LONGEST = 0.2  # of the episodes: a rule that sees only how long they are drops these


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is judged."""

    work: Path = Path("curation")  # keeps the recorded and labeled episodes
    episodes: int = 56  # fresh ones; of each of the eight kinds as many
    first_seed: int = _FIRST_SEED  # the one that the episodes begin with

    def __post_init__(self) -> None:
        """Refuse a number that does not hold every kind."""
        if self.episodes < len(KINDS):
            raise UserError(f"`episodes` must be at least {len(KINDS)}; got {self.episodes}")


def recorded(config: Config) -> Path:
    """Simulate and render, unless that is done."""
    folder = config.work / f"recorded-{config.first_seed}-{config.episodes}"
    if not (folder / TRUTH_FILE).is_file():  # written last
        shutil.rmtree(folder, ignore_errors=True)
        seeds = f"{config.first_seed}:{config.first_seed + config.episodes}"
        # A process of its own: how to render is decided when MuJoCo is imported.
        command = (sys.executable, "-m", "lerobot_topreward.simulation.simulate")
        subprocess.run([*command, "--output", str(folder), "--seeds", seeds], check=True)
    return folder


def label(source: Path) -> Path:
    """Label as the demo does, unless that is done."""
    options = LabelConfig(
        root=source,
        output=source.with_name(source.name.replace("recorded", "labelled")),
        vlm=VlmConfig(vlm=BUILTIN, device="cpu"),
        normalize="task",
        scale="prob",  # it was trained to say how far the task is
    )
    return label_dataset(options, console=Console()).output


def longest(lengths: np.ndarray) -> Bool[np.ndarray, " episodes"]:
    """Mark the longest fifth."""
    drop = np.zeros(len(lengths), dtype=bool)
    drop[np.argsort(-lengths, kind="stable")[: round(_LONGEST * len(lengths))]] = True
    return drop


def print_table(drops: Mapping[str, np.ndarray], *, kinds: np.ndarray, bad: np.ndarray) -> None:
    """Print how right each way of dropping is, and whom it drops."""
    print("| | precision | recall | F1 | " + " | ".join(KINDS) + " |")
    print("|---" * (4 + len(KINDS)) + "|")
    for name, drop in drops.items():
        precision, recall, f1 = precision_recall(drop, bad)
        counts = [
            f"{int(drop[kinds == kind].sum())}/{int((kinds == kind).sum())}" for kind in KINDS
        ]
        shown = ["-" if np.isnan(precision) else f"{precision:.2f}", f"{recall:.2f}", f"{f1:.2f}"]
        print(f"| {' | '.join([name, *shown, *counts])} |")


def main() -> int:
    """Record, label, judge and print."""
    try:
        config = tyro.cli(Config, description=__doc__)
        folder = recorded(config)
        plan = make_plan(CurateConfig(root=label(folder)))
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}", style="red")
        return 2
    truth = pd.read_parquet(folder / TRUTH_FILE).drop_duplicates("episode_index")
    kinds = truth["kind"].to_numpy()
    bad = ~truth["success"].to_numpy(dtype=bool)
    lengths = np.array([episode.frames for episode in plan.metrics])
    seeds = f"{config.first_seed} to {config.first_seed + config.episodes - 1}"
    print(f"\n{len(bad)} episodes (seeds {seeds}), {int(bad.sum())} of them bad:")
    print(f"all but the kinds {', '.join(SUCCEEDING)}. Dropped of each kind:\n")
    reward, idle, broken = (
        np.isin(np.arange(len(bad)), [*plan.drops[name]])
        for name in ("min_final_progress", "max_idle", "drop_broken")
    )
    print_table(
        {
            f"curate: {'; '.join(describe_rules(plan))}": np.array(
                [not v.keep for v in plan.verdicts]
            ),
            "the reward alone": reward,
            "the recording alone": idle | broken,
            "drop the longest fifth": longest(lengths),
            "keep everything": np.zeros(len(bad), dtype=bool),
        },
        kinds=kinds,
        bad=bad,
    )
    finals = np.array([episode.final_progress for episode in plan.metrics])
    print(
        f"\nfinal progress: bad at most {finals[bad].max():.2f}, good at least {finals[~bad].min():.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
