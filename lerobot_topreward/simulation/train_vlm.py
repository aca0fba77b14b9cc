"""Train the demo's VLM: a tiny Qwen3-VL that has seen nothing but this one simulated task.

It learns the question that a real VLM is asked zero-shot: is what this video shows the completed
task? The target of P(" True") is the simulator's progress. So that neither time nor length can
stand in for it, some examples are static videos, and some name another task.

Beside the answers two linear probes, thrown away afterwards, learn where the cube, the goal and
the gripper are: one from the vision tower's features, one from where the answer is predicted.
Without them the model was still content with the time after 300 steps.
"""

import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Float32
from rich.console import Console
from torch import Tensor

from lerobot_topreward.console import make_console
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.scorer import static_control
from lerobot_topreward.simulation.student import Student, forward
from lerobot_topreward.simulation.tasks import (
    COLORS,
    FIRST_HELD_OUT_SEED,
    OTHER_TASKS,
    instruction,
    parse_seeds,
)
from lerobot_topreward.simulation.training_data import FPS, Sample, prepare_samples

_FLOOR = 0.01  # P(True) when nothing is done yet; its logarithm is the lowest reward


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainVlmConfig:
    """How the demo's VLM is trained; the defaults made the bundled one."""

    output: Path  # folder of the checkpoint, new or empty
    seeds: Annotated[str, tyro.conf.arg(metavar="A:B")] = "0:368"  # episodes it learns from
    cache: Path = Path("outputs/demo-samples")  # simulated samples, kept between runs
    steps: int = 500  # optimizer steps
    batch: int = 8  # episodes per step
    prefixes: int = 8  # prefixes asked about per episode and step, always with the last one
    learning_rate: float = 1.5e-3  # peak of a one-cycle schedule
    probes: float = 0.5  # weight of the probes' losses
    static_share: float = 0.2  # of the examples show their first frame only
    wrong_share: float = 0.1  # of the examples name another task
    workers: int = 2  # processes that simulate
    threads: int = 2  # of torch; 1 is faster when other work shares the cores
    seed: int = 0  # of the weights and of every choice

    def __post_init__(self) -> None:
        """Check what can be known to be wrong at once."""
        for name in ("steps", "batch", "prefixes", "workers", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1; got {getattr(self, name)}")
        static, wrong = self.static_share, self.wrong_share
        if static < 0 or wrong < 0 or static + wrong > 1:
            raise UserError(
                f"`static_share={static}` and `wrong_share={wrong}` must be "
                "shares that leave some examples as they are"
            )
        if max(parse_seeds(self.seeds)) >= FIRST_HELD_OUT_SEED:
            raise UserError(
                f"`seeds={self.seeds}` reaches seeds kept for the bundle and the evaluation; "
                f"stay below {FIRST_HELD_OUT_SEED}"
            )
        if self.output.exists() and any(self.output.iterdir()):
            raise UserError(f"`output={self.output}` is not empty; name a new folder")


@dataclass(frozen=True, slots=True)
class Example:
    """A clip, the prefixes it is asked about, and the right P(True) of each."""

    clip: Clip
    prefixes: list[int]  # images shown, ascending
    targets: Float32[np.ndarray, " prefixes"]
    places: Float32[np.ndarray, "sampled values"]  # where things are in each image, standardized


def make_example(sample: Sample, config: TrainVlmConfig, rng: random.Random) -> Example:
    """Make an example of a sample: as it is, static, or under another instruction."""
    images = len(sample.frames)
    drawn = rng.sample(range(1, images), min(config.prefixes - 1, images - 1))
    prefixes = sorted({*drawn, images})
    targets = sample.progress[np.array(prefixes) - 1]
    text = instruction(sample.color)
    draw = rng.random()
    if draw < config.wrong_share:
        others = [instruction(color) for color in COLORS if color != sample.color]
        text = rng.choice(others if rng.random() < 0.5 else OTHER_TASKS)
        targets = np.zeros_like(targets)
    # Another brightness and contrast every time.
    gain, bias = rng.uniform(0.8, 1.2), rng.uniform(-15.0, 15.0)
    levels = np.clip(np.arange(256) * gain + bias, 0, 255).astype(np.uint8)
    clip = Clip(
        segment=Segment(sample.seed, 0, int(sample.frame_indices[-1]) + 1, text),
        fps=FPS,
        frames=levels[sample.frames],
        shown=np.arange(images),
        frame_indices=sample.frame_indices,
    )
    if config.wrong_share <= draw < config.wrong_share + config.static_share:
        clip = static_control(clip)
        targets = np.full_like(targets, sample.progress[0])
    return Example(clip, prefixes, np.clip(targets, _FLOOR, 1.0 - _FLOOR), sample.places)


def _batches(samples: Sequence[Sample], size: int, rng: random.Random) -> Iterator[list[Sample]]:
    """Shuffle for ever; samples of similar length share a batch, which saves padding."""
    while True:
        order = rng.sample(range(len(samples)), len(samples))
        pools = [order[i : i + 6 * size] for i in range(0, len(order), 6 * size)]
        for pool in pools:
            pool.sort(key=lambda i: len(samples[i].frames))
            batches = [pool[i : i + size] for i in range(0, len(pool), size)]
            rng.shuffle(batches)
            yield from ([samples[i] for i in batch] for batch in batches)


def _one_cycle(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: up over 10 %, then down along a cosine."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) + 1e-3


def train(config: TrainVlmConfig, samples: Sequence[Sample], console: Console) -> None:
    """Train a fresh tiny checkpoint and save it in half precision."""
    texts = [*(instruction(color) for color in COLORS), *OTHER_TASKS]
    # What the probes learn has mean 0 and variance 1.
    places = np.concatenate([sample.places for sample in samples])
    mean, spread = places.mean(axis=0), places.std(axis=0) + 1e-6
    samples = [replace(sample, places=(sample.places - mean) / spread) for sample in samples]
    student = Student.fresh(
        text="\n".join(texts),
        size=samples[0].frames.shape[1],
        places=places.shape[1],
        seed=config.seed,
    )
    rng = random.Random(config.seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _one_cycle(step, config.steps)
    )
    batches = _batches(samples, config.batch, rng)
    losses: list[Tensor] = []
    for step in range(1, config.steps + 1):
        examples = [make_example(sample, config, rng) for sample in next(batches)]
        parts = _losses(student, examples)
        optimizer.zero_grad()
        (parts[0] + config.probes * (parts[1] + parts[2])).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(parts.detach())
        if step % 20 == 0 or step == config.steps:
            answers, block_probe, answer_probe = torch.stack(losses[-20:]).mean(dim=0).tolist()
            console.print(
                f"step {step}/{config.steps}  answers {answers:.4f} nats, "
                f"block probe {block_probe:.3f}, answer probe {answer_probe:.3f}"
            )
    student.save(config.output)


def _losses(student: Student, examples: Sequence[Example]) -> Float32[Tensor, "3"]:
    """The losses of the answers (nats) and of the two probes (shares of the variance)."""
    clips, prefixes = [e.clip for e in examples], [e.prefixes for e in examples]
    outputs = forward(student.vlm, clips, prefixes)
    targets = torch.from_numpy(np.concatenate([example.targets for example in examples]))
    both = torch.stack([targets, 1.0 - targets], dim=1)
    # Cross-entropy over the whole vocabulary, less the targets' own entropy.
    answers = (both * (both.log() - torch.cat(outputs.log_probs))).sum(dim=1).mean()
    in_blocks = np.stack([examples[i].places[[a, b]].ravel() for i, a, b in outputs.blocks])
    block_error = student.block_probe(outputs.block_features) - torch.from_numpy(in_blocks)
    in_last = np.concatenate([e.places[e.clip.shown[np.array(e.prefixes) - 1]] for e in examples])
    answer_error = student.answer_probe(outputs.answer_states) - torch.from_numpy(in_last)
    return torch.stack([answers, block_error.square().mean(), answer_error.square().mean()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    console = make_console()
    try:
        config = tyro.cli(
            TrainVlmConfig,
            args=arguments,
            prog="python -m lerobot_topreward.simulation.train_vlm",
            description=__doc__,
        )
        torch.set_num_threads(config.threads)
        seeds = list(parse_seeds(config.seeds))
        console.print(f"{len(seeds)} samples: simulating those that {config.cache} lacks")
        samples = prepare_samples(seeds, config.cache, workers=config.workers)
        train(config, samples, console)
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}")
        return 2
    console.print(f"saved {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
