"""Teach the demo's VLM: a tiny Qwen3-VL that has seen nothing but this one simulated task.

It learns the question that a real VLM is asked zero-shot: is what this video shows the completed
task? The target of P(" True") is the simulator's progress. So that neither time nor length can
stand in for it, some lessons are static videos, and some name another task.

Beside the answers two linear readings, thrown away afterwards, learn where the cube, the goal and
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
from lerobot_topreward.simulation.student import Pupil, watch
from lerobot_topreward.simulation.tasks import (
    COLOURS,
    FIRST_HELD_OUT_SEED,
    OTHER_TASKS,
    instruction,
    parse_seeds,
)
from lerobot_topreward.simulation.training_data import FPS, Lesson, prepare_lessons

_FLOOR = 0.01  # P(True) when nothing is done yet; its logarithm is the lowest reward


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachConfig:
    """How the demo's VLM is taught; the defaults made the bundled one."""

    output: Path  # folder of the checkpoint, new or empty
    seeds: Annotated[str, tyro.conf.arg(metavar="A:B")] = "0:368"  # episodes it learns from
    cache: Path = Path("outputs/demo-lessons")  # simulated lessons, kept between runs
    steps: int = 500  # optimiser steps
    batch: int = 8  # episodes per step
    prefixes: int = 8  # prefixes asked about per episode and step, always with the last one
    learning_rate: float = 1.5e-3  # peak of a one-cycle schedule
    pointing: float = 0.5  # weight of telling where things are, which opens the eyes early
    static_share: float = 0.2  # of the lessons show their first frame only
    wrong_share: float = 0.1  # of the lessons name another task
    workers: int = 2  # processes that simulate
    threads: int = 2  # of torch; 1 is faster when other work shares the cores
    seed: int = 0  # of the weights and of every choice

    def __post_init__(self) -> None:
        """Check what can be known to be wrong at once."""
        for name in ("steps", "batch", "prefixes", "workers", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1; got {getattr(self, name)}")
        if (
            self.static_share < 0
            or self.wrong_share < 0
            or self.static_share + self.wrong_share > 1
        ):
            raise UserError(
                f"--static-share {self.static_share} and --wrong-share {self.wrong_share} must be "
                "shares that leave some lessons as they are"
            )
        if max(parse_seeds(self.seeds)) >= FIRST_HELD_OUT_SEED:
            raise UserError(
                f"--seeds {self.seeds} reaches seeds kept for the bundle and the evaluation; "
                f"stay below {FIRST_HELD_OUT_SEED}"
            )
        if self.output.exists() and any(self.output.iterdir()):
            raise UserError(f"--output {self.output} is not empty; name a new folder")


@dataclass(frozen=True, slots=True)
class Exercise:
    """A clip, the prefixes it is asked about, and the right P(True) of each."""

    clip: Clip
    prefixes: list[int]  # images shown, ascending
    targets: Float32[np.ndarray, " prefixes"]
    places: Float32[np.ndarray, "sampled values"]  # where things are in each image, standardised


def exercise(lesson: Lesson, config: TeachConfig, rng: random.Random) -> Exercise:
    """Make one exercise from a lesson: as it is, static, or under another instruction."""
    images = len(lesson.frames)
    asked = rng.sample(range(1, images), min(config.prefixes - 1, images - 1))
    prefixes = sorted({*asked, images})
    targets = lesson.progress[np.array(prefixes) - 1]
    text = instruction(lesson.colour)
    draw = rng.random()
    if draw < config.wrong_share:
        others = [instruction(colour) for colour in COLOURS if colour != lesson.colour]
        text = rng.choice(others if rng.random() < 0.5 else OTHER_TASKS)
        targets = np.zeros_like(targets)
    clip = Clip(
        segment=Segment(lesson.seed, 0, int(lesson.frame_indices[-1]) + 1, text),
        fps=FPS,
        frames=_brighten(lesson, rng),
        shown=np.arange(images),
        frame_indices=lesson.frame_indices,
    )
    if config.wrong_share <= draw < config.wrong_share + config.static_share:
        clip = static_control(clip)
        targets = np.full_like(targets, lesson.progress[0])
    return Exercise(clip, prefixes, np.clip(targets, _FLOOR, 1.0 - _FLOOR), lesson.places)


def _standardised(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Bring what the readings learn to mean 0 and variance 1."""
    everything = np.concatenate([lesson.places for lesson in lessons])
    mean, spread = everything.mean(axis=0), everything.std(axis=0) + 1e-6
    return [replace(one, places=(one.places - mean) / spread) for one in lessons]


def _brighten(lesson: Lesson, rng: random.Random) -> np.ndarray:
    gain, bias = rng.uniform(0.8, 1.2), rng.uniform(-15.0, 15.0)
    table = np.clip(np.arange(256) * gain + bias, 0, 255).astype(np.uint8)
    return table[lesson.frames]


def _batches(lessons: Sequence[Lesson], size: int, rng: random.Random) -> Iterator[list[Lesson]]:
    """Shuffle for ever; lessons of similar length share a batch, which saves padding."""
    while True:
        order = rng.sample(range(len(lessons)), len(lessons))
        pools = [order[i : i + 6 * size] for i in range(0, len(order), 6 * size)]
        for pool in pools:
            pool.sort(key=lambda i: len(lessons[i].frames))
            batches = [pool[i : i + size] for i in range(0, len(pool), size)]
            rng.shuffle(batches)
            yield from ([lessons[i] for i in batch] for batch in batches)


def _one_cycle(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: up over 10 %, then down along a cosine."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) + 1e-3


def teach(config: TeachConfig, lessons: Sequence[Lesson], console: Console) -> None:
    """Teach a fresh tiny checkpoint and save it in half precision."""
    texts = [*(instruction(colour) for colour in COLOURS), *OTHER_TASKS]
    lessons = _standardised(lessons)
    pupil = Pupil.fresh(
        text="\n".join(texts),
        size=lessons[0].frames.shape[1],
        places=lessons[0].places.shape[1],
        seed=config.seed,
    )
    rng = random.Random(config.seed)
    optimiser = torch.optim.AdamW(pupil.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _one_cycle(step, config.steps)
    )
    batches = _batches(lessons, config.batch, rng)
    losses: list[Tensor] = []
    for step in range(1, config.steps + 1):
        exercises = [exercise(lesson, config, rng) for lesson in next(batches)]
        loss, parts = _loss(pupil, exercises, config.pointing)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(parts)
        if step % 20 == 0 or step == config.steps:
            answered, pointed, remembered = torch.stack(losses[-20:]).mean(dim=0).tolist()
            console.print(
                f"step {step}/{config.steps}  answers {answered:.4f} nats, "
                f"pointer {pointed:.3f}, rememberer {remembered:.3f}"
            )
    pupil.save(config.output)


def _loss(
    pupil: Pupil, exercises: Sequence[Exercise], pointing: float
) -> tuple[Tensor, Float32[Tensor, "3"]]:
    """The loss, and its parts: answers (nats), pointer, rememberer (shares of the variance)."""
    watched = watch(pupil.vlm, [one.clip for one in exercises], [one.prefixes for one in exercises])
    targets = torch.from_numpy(np.concatenate([one.targets for one in exercises]))
    both = torch.stack([targets, 1.0 - targets], dim=1)
    # Cross-entropy over the whole vocabulary, less the targets' own entropy.
    answers = (both * (both.log() - torch.cat(watched.answers))).sum(dim=1).mean()
    where = np.stack([exercises[i].places[[a, b]].ravel() for i, a, b in watched.shown])
    pointed = (pupil.pointer(watched.seen) - torch.from_numpy(where)).square().mean()
    last = np.concatenate(
        [one.places[one.clip.shown[np.array(one.prefixes) - 1]] for one in exercises]
    )
    remembered = (pupil.rememberer(watched.known) - torch.from_numpy(last)).square().mean()
    loss = answers + pointing * (pointed + remembered)
    return loss, torch.stack([answers, pointed, remembered]).detach()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    console = make_console()
    try:
        config = tyro.cli(
            TeachConfig,
            args=arguments,
            prog="python -m lerobot_topreward.simulation.train_vlm",
            description=__doc__,
        )
        torch.set_num_threads(config.threads)
        seeds = list(parse_seeds(config.seeds))
        console.print(f"{len(seeds)} lessons: simulating those that {config.cache} lacks")
        lessons = prepare_lessons(seeds, config.cache, workers=config.workers)
        teach(config, lessons, console)
    except UserError as error:
        make_console(stderr=True).print(f"error: {error}")
        return 2
    console.print(f"saved {config.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
