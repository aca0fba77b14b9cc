"""What the demo's VLM is trained on: the frames that `label` would show, and the truth at each."""

import multiprocessing
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
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
class Sample:
    """One simulated episode as the label command would sample it, with the truth."""

    seed: int
    color: str  # of the cube
    frames: UInt8[np.ndarray, "sampled height width 3"]
    frame_indices: Int64[np.ndarray, " sampled"]
    progress: Float32[np.ndarray, " sampled"]  # 0..1
    places: Float32[np.ndarray, "sampled 10"]  # see `places`


def places(episode: "Episode") -> Float32[np.ndarray, "frames 10"]:
    """Where things are: cube and goal (3 each, meters), gripper opening (-1..1), gripper (3)."""
    return np.concatenate([episode.environment_state, episode.agent_pos[:, 10:]], axis=1)


def prepare_samples(seeds: Sequence[int], cache: Path, *, workers: int = 2) -> list[Sample]:
    """Simulate the sample of each seed, in processes, or read it from the folder of an earlier run.

    Raises:
        UserError: samples are missing and this machine cannot simulate or render.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not _path(cache, seed).exists()]
    if missing:
        require_simulation()  # also sets what the workers inherit
        context = multiprocessing.get_context("spawn")  # OpenGL contexts do not survive a fork
        shares = [(cache, missing[i::workers]) for i in range(workers)]
        with context.Pool(workers) as pool:
            pool.starmap(_simulate, shares)
    samples = []
    for seed in seeds:
        with np.load(_path(cache, seed)) as saved:
            values = {name: saved[name] for name in saved.files}
        samples.append(Sample(**{**values, "seed": seed, "color": str(values["color"])}))
    return samples


def _path(cache: Path, seed: int) -> Path:
    return cache / f"sample_{seed:06d}.npz"


def _simulate(cache: Path, seeds: Sequence[int]) -> None:
    """Simulate samples into the cache, in a process of their own."""
    from lerobot_topreward.simulation.environment import PickPlaceEnv
    from lerobot_topreward.simulation.episodes import simulate_episode
    from lerobot_topreward.simulation.rendering import SceneRenderer

    env = PickPlaceEnv()
    with closing(SceneRenderer(env)) as renderer:
        for seed in seeds:
            episode = simulate_episode(env, seed)
            indices = sample_frames(len(episode.qpos), fps=FPS)
            sample = Sample(
                seed=seed,
                color=episode.color,
                frames=renderer.frames(episode, indices.tolist()),
                frame_indices=indices,
                progress=episode.progress[indices],
                places=places(episode)[indices],
            )
            # A killed run must not leave half a file that the next one would trust.
            partial = cache / f"partial_{seed:06d}.npz"
            np.savez(partial, **asdict(sample))
            partial.rename(_path(cache, seed))
