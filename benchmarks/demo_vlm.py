"""How well the demo's VLM judges episodes that nobody trained on.

Simulates fresh seeds (or takes a simulated dataset), scores every prefix as `label` does, once as
it is and once with the first frame repeated, and prints the numbers as they are.

    python benchmarks/demo_vlm.py
    python benchmarks/demo_vlm.py --dataset lerobot_topreward/demo/assets/dataset
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from lerobot_topreward.console import make_console
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.demo.evaluation import evaluate
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.metrics import rise, success_score, voc
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import score_clip
from lerobot_topreward.simulation.simulate import CAMERA
from lerobot_topreward.simulation.tasks import (
    EVALUATION_SEEDS,
    FIRST_HELD_OUT_SEED,
    KINDS,
    SUCCEEDING,
    instruction,
    parse_seeds,
)
from lerobot_topreward.simulation.training_data import FPS, Sample, prepare_samples
from lerobot_topreward.simulation.truth import Truth, read_truth
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is judged, and by whom."""

    vlm: str = "builtin:so101-demo"  # checkpoint
    seeds: Annotated[str, tyro.conf.arg(metavar="A:B")] = EVALUATION_SEEDS  # fresh episodes
    dataset: Path | None = None  # a simulated dataset instead of seeds
    cache: Path | None = None  # keeps simulated seeds between runs
    prefixes: int | None = None  # asks at K prefixes as the paper does; at every image if unset
    workers: int = 2  # processes that simulate
    threads: int = 2  # of torch

    def __post_init__(self) -> None:
        """Refuse seeds that the VLM learned from."""
        if min(parse_seeds(self.seeds)) < FIRST_HELD_OUT_SEED:
            raise UserError(
                f"`seeds={self.seeds}` may have been trained on; start at {FIRST_HELD_OUT_SEED}"
            )


def sample_clip(number: int, sample: Sample) -> Clip:
    """A sample as `label` would read it from a dataset, without the video's compression."""
    length = int(sample.frame_indices[-1]) + 1
    return Clip(
        segment=Segment(number, 0, length, instruction(sample.color)),
        fps=FPS,
        frames=sample.frames,
        shown=np.arange(len(sample.frames)),
        frame_indices=sample.frame_indices,
    )


def clips_and_truth(config: Config) -> tuple[list[Clip], dict[int, Truth]]:
    """The episodes to judge, from a dataset or from seeds."""
    if config.dataset is None:
        with tempfile.TemporaryDirectory() as folder:
            seeds = parse_seeds(config.seeds)
            cache = config.cache or Path(folder)
            samples = prepare_samples(seeds, cache, workers=config.workers)
        kinds = [KINDS[sample.seed % len(KINDS)] for sample in samples]
        return [sample_clip(i, sample) for i, sample in enumerate(samples)], {
            i: Truth(kind, kind in SUCCEEDING, sample.progress)
            for i, (kind, sample) in enumerate(zip(kinds, samples, strict=True))
        }
    return list(_dataset_clips(config.dataset)), read_truth(config.dataset)


def _dataset_clips(root: Path) -> Iterator[Clip]:
    source = open_source(repo_id=None, root=root, revision=None)
    rows = source.meta.episodes.to_pylist()
    segments = [
        Segment(i, 0, int(rows[i]["length"]), str(rows[i]["tasks"][0])) for i in range(len(rows))
    ]
    for segment in segments:
        yield read_clip(source, camera=CAMERA, segment=segment, sample_fps=2.0, final_frame=True)


def main() -> int:
    """Judge and print."""
    try:
        config = tyro.cli(Config, description=__doc__)
        torch.set_num_threads(config.threads)
        clips, truth = clips_and_truth(config)
        scorer = OnePassScorer(load_vlm(VlmConfig(vlm=config.vlm, device="cpu", dtype="float32")))
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}", style="red")
        return 2
    scores = [score_clip(clip, scorer, ("none", "static"), config.prefixes) for clip in clips]
    real, static = zip(*scores, strict=True)
    print("kind         episodes  VOC    success score  static VOC  static rise (nats)")
    for kind in KINDS:
        rows = [i for i in range(len(real)) if truth[real[i].segment.episode_index].kind == kind]
        if rows:
            print(
                f"{kind:<12} {len(rows):>8}"
                f"  {np.nanmean([voc(real[i].log_prob_true) for i in rows]):5.3f}"
                f"  {np.mean([success_score(real[i].log_prob_true) for i in rows]):13.3f}"
                f"  {np.nanmean([voc(static[i].log_prob_true) for i in rows]):10.3f}"
                f"  {np.mean([rise(static[i].log_prob_true) for i in rows]):18.4f}"
            )
    result = evaluate(real, static, truth)
    print(f"\nepisodes: {result.successes} successes, {result.failures} failures")
    print(f"mean VOC of successes     {result.voc:.4f}")
    print(f"success ROC-AUC           {result.auc:.4f}")
    print(f"mean static VOC           {result.static_voc:.4f}")
    print(f"static rise / real rise   {result.static_rise:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
