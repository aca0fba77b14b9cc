"""What the demo's VLM is taught with: the frames that `label` would show, and the truth at each."""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from lerobot_topreward.data.schedule import sample_frames
from lerobot_topreward.simulation.headless import require_simulation

if TYPE_CHECKING:
    from lerobot_topreward.simulation.episodes import Episode

FPS = 10.0  # Hz, one frame per control step of the simulation


@dataclass(frozen=True, slots=True)
class Lesson:
    """One simulated episode as the label command would sample it, with the truth."""

    seed: int
    colour: str  # of the cube
    frames: UInt8[np.ndarray, "sampled height width 3"]
    frame_indices: Int64[np.ndarray, " sampled"]
    progress: Float32[np.ndarray, " sampled"]  # 0..1
    places: Float32[np.ndarray, "sampled 10"]  # see `places`


def places(episode: "Episode") -> Float32[np.ndarray, "frames 10"]:
    """Where things are: cube and goal (3 each, metres), gripper opening (-1..1), gripper (3)."""
    return np.concatenate([episode.environment_state, episode.agent_pos[:, 10:]], axis=1)


def _simulate(seeds: Iterable[int]) -> Iterator[Lesson]:
    from lerobot_topreward.simulation.episodes import make_environment, simulate_episode
    from lerobot_topreward.simulation.rendering import SceneRenderer

    env = make_environment()
    with SceneRenderer(env) as renderer:
        for seed in seeds:
            episode = simulate_episode(env, seed)
            indices = sample_frames(len(episode.qpos), fps=FPS)
            yield Lesson(
                seed=seed,
                colour=episode.colour,
                frames=renderer.frames(episode, indices.tolist()),
                frame_indices=indices,
                progress=episode.progress[indices],
                places=places(episode)[indices],
            )


def _file(cache: Path, seed: int) -> Path:
    return cache / f"lesson_{seed:06d}.npz"


def _fill(cache: Path, seeds: Sequence[int]) -> None:
    for lesson in _simulate(seeds):
        partial = cache / f"partial_{lesson.seed:06d}.npz"
        np.savez(
            partial,
            colour=lesson.colour,
            frames=lesson.frames,
            frame_indices=lesson.frame_indices,
            progress=lesson.progress,
            places=lesson.places,
        )
        # A killed run must not leave half a file that the next one would trust.
        partial.rename(_file(cache, lesson.seed))


def prepare_lessons(seeds: Sequence[int], cache: Path, *, workers: int = 2) -> list[Lesson]:
    """Simulate the lessons of these seeds, or read those that an earlier run left in the cache.

    Args:
        seeds: one lesson each.
        cache: folder of one file per seed, made if needed.
        workers: processes that simulate.

    Returns:
        The lessons in the order of the seeds.

    Raises:
        UserError: lessons are missing and this machine cannot simulate or render.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not _file(cache, seed).exists()]
    if missing:
        require_simulation()  # also sets what the workers inherit
        context = multiprocessing.get_context("spawn")  # OpenGL contexts do not survive a fork
        shares = [(cache, missing[i::workers]) for i in range(workers)]
        with context.Pool(workers) as pool:
            pool.starmap(_fill, shares)
    return [_read(cache, seed) for seed in seeds]


def _read(cache: Path, seed: int) -> Lesson:
    with np.load(_file(cache, seed)) as saved:
        return Lesson(
            seed=seed,
            colour=str(saved["colour"]),
            frames=saved["frames"],
            frame_indices=saved["frame_indices"],
            progress=saved["progress"],
            places=saved["places"],
        )
