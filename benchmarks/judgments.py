"""Is the judgment of a reward right? It is asked about judges whose worth is known.

Every judge scores the demo's 40 episodes, their static and their reversed control, and the table
says what the judgment makes of it: without knowing any outcome, and knowing them all. The ROC-AUC
of the success score, by the simulator's truth, says what is right.

    python benchmarks/judgments.py --work judgments

The half-trained checkpoints are trained first, the same way as the demo's, for fewer steps each
(about half an hour on two cores; kept in ``--work``).
"""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from safetensors.torch import load_file, save_file

from lerobot_topreward.console import make_console
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.controls import compare_controls
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.judgment import Judgment, judge_reward
from lerobot_topreward.judging.metrics import roc_auc
from lerobot_topreward.records import Clip, LogProbs, Segment
from lerobot_topreward.rewards import label_rewards
from lerobot_topreward.scoring.scorer import Scorer, score_clip
from lerobot_topreward.simulation.simulate import CAMERA
from lerobot_topreward.simulation.student import STUDENT
from lerobot_topreward.simulation.tasks import parse_seeds
from lerobot_topreward.simulation.tiny_vlm import build_tiny_vlm
from lerobot_topreward.simulation.train_vlm import TrainVlmConfig, train
from lerobot_topreward.simulation.training_data import prepare_samples
from lerobot_topreward.simulation.truth import read_truth
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer

DATASET = Path("lerobot_topreward/demo/assets/dataset")
VLM = DATASET.with_name("vlm")
CONTROLS = ("none", "static", "reversed")
Change = Callable[[Float[np.ndarray, "instructions prefixes"], Sequence[int]], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where checkpoints are kept, and how long they were trained."""

    work: Path  # folder of the checkpoints and of simulated samples
    dataset: Path = DATASET  # simulated
    steps: tuple[int, ...] = (30, 60, 100, 160, 250)  # of each half-trained checkpoint; () for none
    # Standard deviation of a mistake that grows over each video, another for each: nats at its end.
    errors: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    # Noise on the demo's weights, as a multiple of the spread of each of its tensors.
    damages: tuple[float, ...] = (1.2, 1.6, 1.8, 2.0)
    untrained: int = 3  # checkpoints with random weights
    threads: int = 2  # of torch


@dataclass(frozen=True, slots=True)
class Changed:
    """A scorer whose log P(True) something is done to."""

    scorer: Scorer
    change: Change  # given log P(True) and how many images each prefix shows

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """See `Scorer.score`."""
        found = self.scorer.score(clip, prefixes, instructions)
        true = np.minimum(self.change(found.true, prefixes), -1e-6).astype(np.float32)
        return LogProbs(true, np.log1p(-np.exp(true)).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Remembered:
    """A scorer that looks at no video twice."""

    scorer: Scorer
    known: dict[tuple[object, ...], LogProbs] = field(default_factory=dict)

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """See `Scorer.score`."""
        shown = hashlib.sha256(clip.frames.tobytes() + clip.shown.tobytes()).digest()
        key = (shown, tuple(prefixes), tuple(instructions))
        if key not in self.known:
            self.known[key] = self.scorer.score(clip, prefixes, instructions)
        return self.known[key]


def judges(config: Config) -> Iterator[tuple[str, Scorer]]:
    """Every judge with its name, the constructed ones first."""
    demo = Remembered(_load("builtin:so101-demo"))
    rng = np.random.default_rng(0)

    def changed(change: Change) -> Scorer:
        return Changed(demo, change)

    def noise(true: np.ndarray) -> np.ndarray:
        return rng.normal(0, 0.05, true.shape)

    def share(shown: Sequence[int]) -> np.ndarray:
        return np.array(shown) / shown[-1]

    yield "the demo's VLM", demo
    yield "it, with noise of .05 nats", changed(lambda true, _: true + noise(true))
    yield "noise of .05 nats alone", changed(lambda true, _: -2 + noise(true))
    yield "a constant", changed(lambda true, _: np.full_like(true, -2))
    yield "time alone", changed(lambda true, shown: -6 + np.log(shown) + np.zeros_like(true))
    yield (
        "time alone, with noise of .3 nats",
        changed(lambda true, shown: -6 + np.log(shown) + 6 * noise(true)),
    )
    for error in config.errors:
        yield (
            f"the demo's VLM, off by {error:g} nats",
            changed(lambda true, shown, s=error: true + rng.normal(0, s) * share(shown)),
        )
    yield "the demo's VLM, turned round", changed(lambda true, _: -5 - true)
    for damage in config.damages:
        folder = config.work / f"damaged-{damage:g}"
        if not folder.exists():
            damage_demo(folder, damage)
        yield f"the demo's VLM, damaged by {damage:g}", _load(str(folder))
    for seed in range(config.untrained):
        folder = config.work / f"untrained-{seed}"
        if not folder.exists():
            build_tiny_vlm(folder, config=replace(STUDENT, seed=seed))
        yield f"untrained, seed {seed}", _load(str(folder))
    for steps in config.steps:
        folder = config.work / str(steps)
        if not folder.exists():
            options = TrainVlmConfig(
                output=folder, seeds="0:160", cache=config.work / "samples", steps=steps
            )
            samples = prepare_samples(
                list(parse_seeds(options.seeds)), options.cache, workers=options.workers
            )
            train(options, samples, make_console(stderr=True))
        yield f"trained for {steps} of 500 steps", _load(str(folder))


def damage_demo(folder: Path, damage: float) -> None:
    """Save the demo's VLM with normal noise on every tensor, by its standard deviation."""
    shutil.copytree(VLM, folder)
    draws = torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        noise = torch.randn(values.shape, generator=draws)
        if values.numel() > 1:
            weights[name] = (values + damage * values.float().std() * noise).to(values.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _load(vlm: str) -> Scorer:
    return OnePassScorer(load_vlm(VlmConfig(vlm=vlm, device="cpu", dtype="float32")))


def judge(
    scorer: Scorer, clips: Sequence[Clip], success: dict[int, bool], fps: float
) -> tuple[float, float, float, list[Judgment]]:
    """VOC, share that the static control rises, ROC-AUC, and what the judgment says."""
    scores = [score_clip(clip, scorer, CONTROLS, None) for clip in clips]
    real, *others = zip(*scores, strict=True)
    episodes = np.repeat(
        [c.segment.episode_index for c in clips], [c.segment.length for c in clips]
    )
    rewards = label_rewards(real, episodes, horizon=round(fps), normalize="task")
    metrics = episode_metrics(real, rewards, fps=fps)
    truth = np.array([success[episode.episode_index] for episode in metrics])
    auc = roc_auc(np.array([episode.success_score for episode in metrics]), truth)
    summaries = [compare_controls(real, other) for other in others]
    judgments = []
    for known in ({}, success):
        controls = [compare_controls(real, other, success=known) for other in others]
        judgments.append(judge_reward(real, metrics, controls=controls, success=known))
    return summaries[0].real.voc, summaries[0].share, auc, judgments


def main() -> int:
    """Ask every judge and print the table."""
    config = tyro.cli(Config, description=__doc__)
    torch.set_num_threads(config.threads)
    config.work.mkdir(parents=True, exist_ok=True)
    try:
        source = open_source(repo_id=None, root=config.dataset, revision=None)
        success = {i: found.success for i, found in read_truth(config.dataset).items()}
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}", style="red")
        return 2
    rows = source.meta.episodes.to_pylist()
    clips = [
        read_clip(
            source,
            camera=CAMERA,
            segment=Segment(i, 0, int(rows[i]["length"]), str(rows[i]["tasks"][0])),
            sample_fps=2.0,
            final_frame=True,
        )
        for i in range(len(rows))
    ]
    print(f"{'judge':<34}{'VOC':>6}{'static':>8}{'AUC':>6}  outcomes unknown | known")
    for name, scorer in judges(config):
        voc, share, auc, found = judge(scorer, clips, success, float(source.meta.fps))
        levels = " | ".join(judgment.level for judgment in found)
        print(f"{name:<34}{voc:>6.2f}{share:>8.0%}{auc:>6.2f}  {levels}")
        for judgment in found:
            because = [item.name for item in judgment.evidence if item.text in judgment.reasons]
            print(f"{'':<56}because of {', '.join(because)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
