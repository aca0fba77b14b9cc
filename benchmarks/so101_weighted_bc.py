"""Does reward-weighted behavior cloning help a robot? SO-101 pick-and-place, half the data bad.

Simulates demonstrations, good ones and the ways they go bad, lets the demo's VLM label their
rendered videos, trains ACT and Diffusion on them in several ways with the same number of steps,
and evaluates every policy in simulation through LeRobot's own evaluation. The simulator's truth
reaches the arm `oracle` alone, which trains on the good demonstrations only.

    python benchmarks/so101_weighted_bc.py --work weighted-bc
    python benchmarks/so101_weighted_bc.py --work weighted-bc --quick   # does it run? (CI)

Interrupt it whenever you like: every finished run is kept in ``--work`` and not done again.
"""

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
from weighted_bc.data import Data, prepare
from weighted_bc.labels import print_labels
from weighted_bc.results import print_table, save_figure
from weighted_bc.run import Run, perform

# Small networks on the state, so that a run takes minutes on one core. The same optimizer for
# both; steps and sizes were chosen with the oracle's data, on other scenes than are counted here.
_COMMON = (
    *("--batch_size=64", "--use_policy_training_preset=false", "--optimizer.type=adamw"),
    *("--optimizer.lr=1e-3", "--optimizer.weight_decay=1e-4", "--optimizer.grad_clip_norm=10"),
    *("--scheduler.type=diffuser", "--scheduler.name=cosine", "--scheduler.num_warmup_steps=200"),
)
_ACT = (
    # It looks again after every action, with which it grasped best on the oracle's data.
    *("--policy.chunk_size=16", "--policy.n_action_steps=1", "--policy.dim_model=64"),
    *("--policy.n_heads=4", "--policy.dim_feedforward=256", "--policy.n_encoder_layers=2"),
    *("--policy.use_vae=false", "--policy.dropout=0"),
    '--policy.normalization_mapping={"STATE":"MEAN_STD","ENV":"MEAN_STD","ACTION":"MEAN_STD"}',
)
_DIFFUSION = (
    *("--policy.horizon=8", "--policy.n_action_steps=6", "--policy.n_obs_steps=2"),
    *("--policy.drop_n_last_frames=1", "--policy.down_dims=[64]", "--policy.kernel_size=3"),
    *("--policy.diffusion_step_embed_dim=32", "--policy.use_film_scale_modulation=true"),
    *("--policy.num_train_timesteps=50", "--policy.num_inference_steps=10"),
    *("--policy.noise_scheduler_type=DDIM", "--policy.prediction_type=sample"),
    '--policy.normalization_mapping={"STATE":"MEAN_STD","ENV":"MEAN_STD","ACTION":"MIN_MAX"}',
)
_POLICIES = {"act": _ACT, "diffusion": _DIFFUSION}

# Arm -> labelling and options: the defaults; for the filter what the experimenter would know
# without watching a single video, that about half of the demonstrations are bad; and awr over a
# span that is longer than the arm takes to close in on the cube and to grasp it, in which hardly
# any progress is seen.
ARMS = {
    "bc": ("task", ("--weighting.scheme=uniform",)),
    "filter": (
        "task",
        ("--weighting.scheme=filter", "--weighting.by=success", "--weighting.quantile=0.5"),
    ),
    "awr": ("task", ("--weighting.scheme=awr",)),
    "awr-4s": ("task", ("--weighting.scheme=awr", "--weighting.horizon=4")),
    "rabc": ("task", ("--weighting.scheme=rabc",)),
    "top-awr": ("paper", ("--config=paper",)),
    "oracle": ("task", ("--weighting.scheme=uniform",)),
}
_FIRST_SCENE = 850_000  # no other number of this project's is near


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How much to do, and where."""

    work: Path  # folder that keeps everything, so that the same command goes on
    policies: tuple[str, ...] = ("act", "diffusion")
    arms: tuple[str, ...] = tuple(ARMS)
    demonstrations: int = 320  # half of them good
    seeds: int = 5  # runs per policy and arm
    scenes: int = 50  # evaluation episodes per run, the same ones for every arm of a seed
    act_steps: int = 4000
    diffusion_steps: int = 4000
    workers: int = 2  # runs at once, one thread each
    figure: Path | None = None  # where to draw the result
    quick: bool = False  # a few demonstrations, steps and scenes: only shows that it runs


def plan(config: Config, data: Data) -> list[Run]:
    """List every run, seed after seed, so that what is finished first is comparable."""
    steps = {"act": config.act_steps, "diffusion": config.diffusion_steps}
    return [
        Run(
            policy=policy,
            arm=arm,
            seed=seed,
            steps=steps[policy],
            dataset=str(data.labelled[ARMS[arm][0]]),
            options=(*_COMMON, *_POLICIES[policy], *ARMS[arm][1], *_episodes(arm, data)),
            first_scene=_FIRST_SCENE + 1000 * seed,
            scenes=config.scenes,
        )
        for seed in range(config.seeds)
        for policy in config.policies
        for arm in config.arms
    ]


def _episodes(arm: str, data: Data) -> Sequence[str]:
    return [f"--dataset.episodes={list(data.good)}"] if arm == "oracle" else []


def main(config: Config) -> None:
    """Prepare the data, do the runs, print the table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if config.quick:
        config = Config(
            work=config.work,
            demonstrations=8,
            seeds=1,
            scenes=2,
            act_steps=20,
            diffusion_steps=5,
            figure=config.figure,
        )
    data = prepare(config.work, demonstrations=config.demonstrations)
    print_labels(data.demonstrations, **data.labelled)
    runs = plan(config, data)
    results = []
    # Spawned: LeRobot's trainer is not safe to fork once torch has started threads.
    # A worker is replaced after a few runs, for memory that MuJoCo's environments do not give back.
    context = multiprocessing.get_context("spawn")
    with context.Pool(config.workers, maxtasksperchild=4) as pool:
        do = partial(perform, work=str(config.work))
        for result in pool.imap_unordered(do, runs):
            results.append(result)
            share = sum(result["success"]) / len(result["success"])
            print(
                f"{len(results)}/{len(runs)}  {result['policy']} {result['arm']} "
                f"seed {result['seed']}: {share:.0%} of {len(result['success'])}",
                flush=True,
            )
    results.sort(key=lambda result: list(ARMS).index(result["arm"]))  # as they come, else
    print_table(results)
    if config.figure is not None:
        save_figure(results, config.figure)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
