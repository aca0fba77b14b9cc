"""Does reward-weighted behavior cloning help a robot? SO-101 pick-and-place, half the data bad.

Simulates demonstrations, good ones and the ways they go bad, lets the demo's VLM label their
rendered videos, trains ACT and Diffusion on them in several ways with the same number of steps,
and evaluates every policy in simulation through LeRobot's own evaluation. The simulator's truth
reaches the arm `oracle` alone, which trains on the good demonstrations only.

    python benchmarks/so101_weighted_bc.py --work weighted-bc
    python benchmarks/so101_weighted_bc.py --work weighted-bc --quick   # does it run? (CI)

Interrupt it whenever you like: every finished run is kept in ``--outcomes`` and not done again.
Some come with the project. The table of those that count takes a second; `--choose --seeds 1`
prints that of the scenes for making choices:

    python benchmarks/so101_weighted_bc.py --outcomes benchmarks/weighted_bc/outcomes.jsonl \\
        --only-print --arms bc filter filter-sampling awr-old awr-stage-sampling \\
        awr-stage-still-sampling oracle
"""

import multiprocessing
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import tyro
from weighted_bc.data import Data, prepare
from weighted_bc.labels import print_labels
from weighted_bc.outcomes import Outcome, Run, append_outcome, read_outcomes
from weighted_bc.results import print_table, save_figure
from weighted_bc.run import perform

from lerobot_topreward.vlm.identity import BUILTIN

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

_FILTER = (
    *("--weighting.scheme=filter", "--weighting.by=success"),
    "--weighting.quantile={bad_share}",  # what the experimenter knows without watching a video
)
_STAGE = ("--weighting.scheme=awr", "--weighting.baseline=stage", "--weighting.horizon=episode")
_UNIFORM, _BASE_MEAN = "--weighting.scheme=uniform", "--weighting.baseline=mean"
_LOSS, _SAMPLING = "--weighting.apply=loss", "--weighting.apply=sampling"
_KEEP, _STILL = "--weighting.stationary=keep", "--weighting.stationary=drop"

# Arm -> labeling and options. Every arm says how weights apply and what stands still, and awr its
# baseline, so that results do not depend on the defaults.
# `curate` and `oracle` weigh nothing and leave episodes out instead: see `plan`.
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bc": ("task", (_UNIFORM, _LOSS, _KEEP)),
    "bc-still": ("task", (_UNIFORM, _LOSS, _STILL)),
    "bc-still-sampling": ("task", (_UNIFORM, _SAMPLING, _STILL)),
    "filter": ("task", (*_FILTER, _LOSS, _KEEP)),
    "filter-sampling": ("task", (*_FILTER, _SAMPLING, _KEEP)),
    "awr-old": ("task", ("--weighting.scheme=awr", _BASE_MEAN, _LOSS, _KEEP)),
    "awr-old-sampling": ("task", ("--weighting.scheme=awr", _BASE_MEAN, _SAMPLING, _KEEP)),
    "awr-stage": ("task", (*_STAGE, _LOSS, _KEEP)),
    "awr-stage-sampling": ("task", (*_STAGE, _SAMPLING, _KEEP)),
    "awr-stage-still": ("task", (*_STAGE, _LOSS, _STILL)),
    "awr-stage-still-sampling": ("task", (*_STAGE, _SAMPLING, _STILL)),
    "awr-4s": (
        "task",
        ("--weighting.scheme=awr", "--weighting.horizon=4", _BASE_MEAN, _LOSS, _KEEP),
    ),
    "top-awr": ("paper", ("--config=paper", _LOSS, _KEEP)),
    "rabc": ("task", ("--weighting.scheme=rabc", _LOSS, _KEEP)),
    "curate": ("task", (_UNIFORM, _LOSS, _KEEP)),
    "oracle": ("task", (_UNIFORM, _LOSS, _KEEP)),
}
# Without those that need the videos, or have lost before.
_COUNTED = tuple(arm for arm in ARMS if arm not in ("awr-4s", "top-awr"))
_QUICK = ("bc", "filter-sampling", "awr-stage-still-sampling", "curate", "oracle")
_UNLABELED = ("bc", "oracle")  # no label decides anything: one run stands for every VLM
# Scenes of seed s are the block from here + 1000 s. No other number of this project's is near.
_COUNTED_SCENE = 5_400_000
_CHOICE_SCENE = 5_300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How much to do, and where."""

    work: Path = Path("weighted-bc")  # folder for demonstrations, labels and what runs write
    outcomes: Path | None = None  # finished runs, read and added to; by default in --work
    only_print: bool = False  # the table of the finished runs: simulates and trains nothing
    policies: tuple[str, ...] = ("act", "diffusion")
    arms: tuple[str, ...] = _COUNTED
    demonstrations: int = 320
    seeds: int = 5  # runs per policy and arm
    bad_share: float = 0.5  # of the demonstrations, 0..1
    # That labels; a worse one is the folder `damaged-1.8` that benchmarks/judgments.py makes.
    vlm: str = "builtin:so101-demo"
    images: bool = False  # policies see images in place of where things lie
    choose: bool = False  # on scenes for making choices, which are never counted
    first_scene: int | None = None  # seed of the first scene; by default a block of its own
    scenes: int = 100  # evaluation episodes per run, the same ones for every arm of a seed
    act_steps: int = 4000
    diffusion_steps: int = 4000
    workers: int = 2  # runs at once, one thread each
    against: str = "bc"  # the arm that the table compares the others with
    figure: Path | None = None  # where to draw the result
    quick: bool = False  # a few demonstrations, steps and scenes: only shows that it runs


def plan_first(config: Config) -> int:
    """Find the seed of the first scene."""
    if config.first_scene is not None:
        return config.first_scene
    return _CHOICE_SCENE if config.choose else _COUNTED_SCENE


def describe_data(config: Config, arm: str | None = None) -> str:
    """Say in words which demonstrations and labels an experiment, or an arm of it, uses."""
    vlm = BUILTIN if arm in _UNLABELED else Path(config.vlm).name
    images = ", images" if config.images else ""
    return f"{config.demonstrations} demonstrations, {config.bad_share:.0%} bad, labels of {vlm}{images}"


def plan(config: Config, data: Data) -> list[Run]:
    """List every run, seed after seed, so that what is finished first is comparable."""
    first = plan_first(config)
    steps = {"act": config.act_steps, "diffusion": config.diffusion_steps}
    episodes = {"oracle": tuple(data.good), "curate": tuple(data.curated)}
    return [
        Run(
            data=describe_data(config, arm),
            policy=policy,
            arm=arm,
            seed=seed,
            steps=steps[policy],
            labels=ARMS[arm][0],
            options=(
                *(*_COMMON, *_POLICIES[policy]),
                *(option.format(bad_share=config.bad_share) for option in ARMS[arm][1]),
            ),
            episodes=episodes.get(arm),
            first_scene=first + 1000 * seed,
            scenes=config.scenes,
        )
        for seed in range(config.seeds)
        for policy in config.policies
        for arm in config.arms
    ]


def do_runs(config: Config, work: Path, file: Path) -> None:
    """Do every planned run that is not among the outcomes, and add it to them."""
    data = prepare(
        work,
        demonstrations=config.demonstrations,
        bad_share=config.bad_share,
        vlm=config.vlm,
        labels={ARMS[arm][0] for arm in config.arms} | {"task"},
        images=config.images,
    )
    print_labels(data.demonstrations, bad_share=config.bad_share, **data.labelled)
    known = {outcome.run for outcome in read_outcomes(file)}
    runs = [run for run in plan(config, data) if run.identify() not in known]
    if {"curate", "oracle"} <= {*config.arms} and data.curated == data.good:
        print("curate keeps exactly the good demonstrations, so that its runs are the oracle's")
        runs = [run for run in runs if run.arm != "curate"]
    # Spawned: LeRobot's trainer is not safe to fork once torch has started threads.
    # A worker is replaced after a few runs, for memory that MuJoCo's environments do not give back.
    context = multiprocessing.get_context("spawn")
    with context.Pool(config.workers, maxtasksperchild=4) as pool:
        do = partial(_do, labelled=data.labelled, seen=data.seen, work=work)
        for number, outcome in enumerate(pool.imap_unordered(do, runs), start=1):
            append_outcome(file, outcome)
            print(
                f"{number}/{len(runs)}  {outcome.policy} {outcome.arm} seed {outcome.seed}: "
                f"{outcome.rate:.0%} of {len(outcome.success)}",
                flush=True,
            )


def _do(run: Run, *, labelled: dict[str, Path], seen: Path | None, work: Path) -> Outcome:
    return perform(run, dataset=labelled[run.labels], seen=seen, work=work)


def main(config: Config) -> None:
    """Prepare the data, do the runs, print the table."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if config.quick:
        config = replace(
            config,
            arms=_QUICK,
            demonstrations=8,
            seeds=1,
            scenes=2,
            act_steps=20,
            diffusion_steps=5,
        )
    # Another mixture or VLM has a folder of its own.
    work = config.work / re.sub(r"\W+", "-", describe_data(config))
    file = config.outcomes or config.work / "outcomes.jsonl"
    if not config.only_print:
        work.mkdir(parents=True, exist_ok=True)
        do_runs(config, work, file)
    first = plan_first(config)
    outcomes = [
        outcome
        for outcome in read_outcomes(file)
        if outcome.data == describe_data(config, outcome.arm)
        and outcome.arm in config.arms
        and outcome.policy in config.policies
        and outcome.seed < config.seeds
        and outcome.first_scene == first + 1000 * outcome.seed
    ]
    outcomes.sort(key=lambda outcome: list(ARMS).index(outcome.arm))  # as they come, else
    print_table(outcomes, base=config.against)
    if config.figure is not None:
        save_figure(outcomes, config.figure)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
