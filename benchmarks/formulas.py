"""Which formula is right for the demo's VLM, for one with a clock, and what each of them costs.

Labels the demo's 40 episodes with every control, and prints the table of `evaluate`. Then a clock is
added to every score, of both answers and of all controls alike: a reward that grows with the number
of images by once and ten times the range that progress has. Last, the time of one pass that asks
several instructions over that of one.

    python benchmarks/formulas.py
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console

from lerobot_topreward.console import make_console
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import UserError
from lerobot_topreward.evaluate.table import print_formulas
from lerobot_topreward.judging.formulas import compare_formulas
from lerobot_topreward.label.command import label_dataset
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.scoring.control_scores import read_baselines, score_controls
from lerobot_topreward.scoring.other_instructions import NEUTRAL
from lerobot_topreward.scoring.run import load_scorer
from lerobot_topreward.simulation.truth import read_truth
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.vlm.identity import VlmConfig

DATASET = Path("lerobot_topreward/demo/assets/dataset")
RANGE = 4.0  # nats, of the progress in the demo's log P(True)
LONGEST = 35  # images of the longest episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is judged, and by whom."""

    dataset: Path = DATASET  # simulated
    vlm: str = "builtin:so101-demo"  # checkpoint
    clocks: tuple[float, ...] = (0, 1, 10)  # times the range of progress
    sizes: tuple[int, ...] = (1, 2, 3)  # times the dataset's image size, whose cost is measured
    repeats: int = 3  # of every timing
    threads: int = 1  # of torch: tiny tensors gain nothing from more


def with_clock(scores: Sequence[PrefixScores], strength: float) -> list[PrefixScores]:
    """Let the number of images raise both answers; every image ends a prefix here."""
    changed = []
    for part in scores:
        clock = strength * RANGE * (np.arange(1, len(part.prefix_length) + 1) / LONGEST - 1)
        changed.append(
            replace(
                part,
                log_prob_true=(part.log_prob_true + clock).astype(np.float32),
                log_prob_false=(part.log_prob_false + clock).astype(np.float32),
            )
        )
    return changed


def score_everything(config: Config, output: Path) -> tuple[LabelledDataset, list[PrefixScores]]:
    """Label with every control, and read it all."""
    vlm = VlmConfig(vlm=config.vlm, device="cpu")
    label_dataset(LabelConfig(root=config.dataset, output=output, vlm=vlm, control="all"))
    dataset = open_labelled(repo_id=None, root=output, revision=None)
    found = score_controls(
        dataset,
        controls=["static", "reversed"],
        episodes=dataset.episodes,
        vlm=vlm,
        swapped_instruction=None,
        output=None,
        console=Console(quiet=True),
    )
    controls = [part for scores in found.controls.values() for part in scores]
    return dataset, [*controls, *read_baselines(dataset)]


def print_costs(config: Config, dataset: LabelledDataset, console: Console) -> None:
    """Time one pass with 1 + N instructions over one with one, in turn, on the same clips."""
    scorer = load_scorer(VlmConfig(vlm=config.vlm, device="cpu"), dataset.key)
    tasks = list(dict.fromkeys(part.segment.instruction for part in dataset.scores))
    clips = [
        read_clip(
            dataset.source,
            camera=dataset.key.camera,
            segment=part.segment,
            sample_fps=dataset.key.sample_fps,
            final_frame=True,
        )
        for part in dataset.scores[:6]
    ]
    console.print("\ntime of 1 + N instructions over that of one: median, and the extremes")
    for size in config.sizes:
        shown = [
            replace(clip, frames=clip.frames.repeat(size, axis=1).repeat(size, axis=2))
            for clip in clips
        ]
        height, width = shown[0].frames.shape[1:3]
        for others in (1, 2, 3):
            ratios = []
            for clip in shown:
                own = clip.segment.instruction
                asked = [own, *[task for task in [*tasks, NEUTRAL] if task != own][:others]]
                prefixes = range(1, len(clip.shown) + 1)
                seconds = {1: np.inf, len(asked): np.inf}
                for _ in range(config.repeats):
                    for count in seconds:
                        began = time.perf_counter()
                        scorer.score(clip, prefixes, asked[:count])
                        seconds[count] = min(seconds[count], time.perf_counter() - began)
                ratios.append(seconds[len(asked)] / seconds[1])
            console.print(
                f"  {width}x{height}, N = {others}: {np.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


def main() -> int:
    """Score, compare, print."""
    config = tyro.cli(Config, description=__doc__)
    torch.set_num_threads(config.threads)
    console = make_console()
    try:
        success = {i: found.success for i, found in read_truth(config.dataset).items()}
        with tempfile.TemporaryDirectory() as folder:
            dataset, controls = score_everything(config, Path(folder) / "labels")
            for strength in config.clocks:
                console.print(f"\na clock of {strength:g} times the range of progress")
                real = with_clock(dataset.scores, strength)
                changed = with_clock(controls, strength)
                print_formulas(compare_formulas(real, changed, success=success), console)
                blind = compare_formulas(real, changed, success={})
                console.print(f"without outcomes: {blind.sentence}")
            print_costs(config, dataset, console)
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}", style="red")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
