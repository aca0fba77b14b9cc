"""One run: `lerobot-topreward train` on one arm, then LeRobot's evaluation in simulation."""

# mujoco's compiled module has no types.
# pyright: reportAttributeAccessIssue=false

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import mujoco
import numpy as np
import torch
from filelock import FileLock
from lerobot.datasets import factory as dataset_factory
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.envs import close_envs, make_env, make_env_pre_post_processors
from lerobot.policies import make_pre_post_processors
from lerobot.policies.factory import get_policy_class
from lerobot.scripts.lerobot_eval import eval_policy_all
from lerobot.utils.constants import OBS_ENV_STATE
from lerobot.utils.random_utils import set_seed
from lerobot_env_so101 import ik_control
from torch import Tensor

from lerobot_topreward.cli import main as lerobot_topreward
from lerobot_topreward.simulation.environment import PickPlaceEnvConfig
from weighted_bc.data import SPREAD
from weighted_bc.images import replace_places
from weighted_bc.outcomes import Outcome, Run, describe


def perform(run: Run, *, dataset: Path, seen: Path | None, work: Path) -> Outcome:
    """Train and evaluate.

    Args:
        run: what to do.
        dataset: folder of its labels.
        seen: the same dataset as `encode_dataset` writes it, for a policy that sees images.
        work: folder for what is kept on disk meanwhile.
    """
    torch.set_num_threads(1)
    output = work / "runs" / run.name
    shutil.rmtree(output, ignore_errors=True)
    _train(run, dataset, seen, output)
    checkpoint = output / "checkpoints/last/pretrained_model"
    success = _evaluate(run, checkpoint, images=seen is not None)
    shutil.rmtree(output)
    return describe(run, success)


def _train(run: Run, dataset: Path, seen: Path | None, output: Path) -> None:
    chosen = [] if run.episodes is None else [f"--dataset.episodes={list(run.episodes)}"]
    arguments = [
        *("--dataset.repo_id=local/state", f"--dataset.root={dataset}", *chosen),
        *("--policy.device=cpu", "--policy.push_to_hub=false", f"--policy.type={run.policy}"),
        *("--num_workers=0", "--wandb.enable=false", f"--seed={run.seed}"),
        *(f"--steps={run.steps}", "--save_freq=0", "--env_eval_freq=0", "--log_freq=1000"),
        # Labels of a VLM that cannot judge are tried, too.
        *(f"--output_dir={output}", "--force_weights", *run.options),
    ]
    with _in_memory(output.parents[1], seen), _quietly(output.with_suffix(".log")):
        try:
            lerobot_topreward(["train", *arguments])
        except SystemExit as done:
            if done.code != 0:
                raise RuntimeError(f"{run.name} failed; see {output.with_suffix('.log')}") from done


def _evaluate(run: Run, checkpoint: Path, *, images: bool) -> list[bool]:
    sight = "pixels_agent_pos" if images else "agent_pos"
    config = PickPlaceEnvConfig(spread=SPREAD, obs_type=sight)
    policy = get_policy_class(run.policy).from_pretrained(checkpoint)
    policy.eval()
    before, after = make_pre_post_processors(policy.config, str(checkpoint))
    env_before, env_after = make_env_pre_post_processors(config, policy.config)
    observe: Any = replace_places(env_before) if images else env_before
    set_seed(run.first_scene)  # also of the noise that Diffusion starts from
    at_once = 10 if images else 50  # each holds some 80 MB, and its camera some 200 MB
    envs = make_env(config, n_envs=min(run.scenes, at_once), use_async_envs=False)
    log = checkpoint.parent / "evaluation.log"
    with torch.no_grad(), quick_kinematics(), _quietly(log):
        found = eval_policy_all(
            envs,
            policy,
            observe,
            env_after,
            before,
            after,
            n_episodes=run.scenes,
            start_seed=run.first_scene,
        )
    close_envs(envs)
    return [bool(x) for task in found["per_task"] for x in task["metrics"]["successes"]]


class _InMemoryDataset(LeRobotDataset):
    """LeRobot's own samples, each made once: making one takes longer than a step learns from it."""

    samples: dict[str, Tensor]
    rows: list[int]

    def __getitem__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, idx: int
    ) -> dict[str, Tensor]:
        row = self.rows[idx]
        return {key: values[row] for key, values in self.samples.items()}


@contextmanager
def _in_memory(work: Path, seen: Path | None) -> Iterator[None]:
    original: Any = dataset_factory.make_dataset

    def make_dataset(cfg: Any) -> LeRobotDataset:
        dataset: Any = original(cfg)
        if seen is not None:
            meta: Any = LeRobotDatasetMetadata(dataset.repo_id, root=seen)
            dataset.meta.info.features[OBS_ENV_STATE] = meta.features[OBS_ENV_STATE]
            dataset.meta.stats[OBS_ENV_STATE] = meta.stats[OBS_ENV_STATE]
        samples = _samples(dataset, seen or dataset.root, work)
        rows = dataset.hf_dataset.with_format("numpy")["index"][:].tolist()
        dataset.__class__ = _InMemoryDataset
        dataset.samples, dataset.rows = samples, rows
        return dataset

    with patch.object(dataset_factory, "make_dataset", make_dataset):
        yield


def _samples(dataset: LeRobotDataset, root: Path, work: Path) -> dict[str, Tensor]:
    """Every sample of the whole dataset by its global index; labellings share them."""
    spans = json.dumps(dataset.delta_timestamps, sort_keys=True)
    file = work / f"samples_{hashlib.sha256(spans.encode()).hexdigest()[:12]}.pt"
    with FileLock(f"{file}.lock"):
        if not file.is_file():
            whole: Any = LeRobotDataset(
                dataset.repo_id, root=root, delta_timestamps=dataset.delta_timestamps
            )
            items = [whole[i] for i in range(len(whole))]
            # Weights come from the sidecar; the columns of a labeling are not learned from.
            names = [name for name in items[0] if not name.startswith(("topreward.", "task"))]
            torch.save({name: torch.stack([item[name] for item in items]) for name in names}, file)
        return torch.load(file)


@contextmanager
def quick_kinematics() -> Iterator[None]:
    """Solve the arm's inverse kinematics without what its solver does not read.

    It is most of a simulated step. Its solver asks MuJoCo for contacts and forces that it does not
    read, and NumPy for cross products and limits of a few numbers, which cost more than they do.
    """

    def place(model: Any, data: Any) -> None:
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)

    def cross(a: Any, b: Any) -> np.ndarray:
        return np.array(
            [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
        )

    def clip(value: float, low: float, high: float) -> float:
        return min(max(value, low), high)

    kinematics = SimpleNamespace(**{**vars(mujoco), "mj_forward": place})
    arithmetic = SimpleNamespace(**{**vars(np), "cross": cross, "clip": clip})
    with patch.multiple(ik_control, mujoco=kinematics, np=arithmetic):
        yield


@contextmanager
def _quietly(log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        yield
