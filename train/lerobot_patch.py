"""The trainer patch: the only place that reaches into LeRobot's trainer.

`lerobot_train.train()` has no hooks. It makes its weighter, its policy and its steps through
functions that it finds by name, so six of these are replaced, each by a method of `TrainerPatch`
with the same name that calls the original:

- `make_train_eval_datasets`, `make_pre_post_processors` remember what they made, and the former
  keeps the group of processes alive until `train()` has returned;
- `get_policy_class` gives ACT and Diffusion a loss per sample;
- `make_sample_weighter` knows one more type, `topreward`;
- `EpisodeAwareSampler` draws frames by the weights of that weighter, with ``apply=sampling``;
- `update_policy`, one training step, minimizes the weighted losses of that weighter. At a loss or
  weight that is not finite it stops, before the backward pass, so that neither the parameters nor
  the optimizer have seen the value, and saves a checkpoint.

Runs without weights and with LeRobot's own weightings go through LeRobot's code alone.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import lerobot
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from jaxtyping import Bool, Float
from lerobot.common import train_utils
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import EpisodeAwareSampler
from lerobot.policies import factory
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.scripts import lerobot_train
from lerobot.utils import logging_utils, sample_weighting
from lerobot.utils.sample_weighting import SampleWeighter
from torch import Tensor, distributed

from lerobot_topreward.errors import TrainingError
from lerobot_topreward.policies.choice import (
    OWN_CLASSES,
    has_per_sample_loss,
    per_sample_policy,
)
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.sampler import WeightedSampler

SCHEME_TYPE = "topreward"  # in --sample_weighting.type
_VERSION = "0.6.1"
_LEROBOT_EPSILON = 1e-6  # in the denominator of LeRobot's `update_policy`
_FRAMES_NAMED = 20  # in the message of what is not finite


class BatchWeighter(SampleWeighter):
    """A weighter whose weights average 1 over the dataset, or over each batch as in LeRobot."""

    per_batch: bool
    drawn: FrameWeights | None = None  # how often frames are drawn; None: weights multiply losses


# Builds the weighter of a run from `--sample_weighting.extra_params` and what `train()` has made so
# far: (params, *, policy, device, dataset).
MakeWeighter = Callable[..., BatchWeighter]


@contextmanager
def patch_trainer(make_weighter: MakeWeighter) -> Iterator[None]:
    """Let LeRobot's trainer weight its samples with our weighter inside the block.

    Raises:
        RuntimeError: LeRobot's trainer is not the one that this was written for, or is patched.
    """
    if _is_installed():
        raise RuntimeError("LeRobot's trainer is already weighted in this process")
    with _replace(make_weighter):
        yield


def install(make_weighter: MakeWeighter) -> None:
    """Do the same for the rest of the process; do nothing where it is done already.

    Raises:
        RuntimeError: LeRobot's trainer is not the one that this was written for.
    """
    if not _is_installed():
        _replace(make_weighter)


def _replace(make_weighter: MakeWeighter) -> ExitStack:
    """Replace LeRobot's functions until the stack that is returned is closed, which it need not be."""
    check_lerobot()
    trainer_patch, replaced = TrainerPatch(make_weighter), ExitStack()
    for name, module in trainer_patch.modules.items():
        replaced.enter_context(patch.object(module, name, getattr(trainer_patch, name)))
    return replaced


def _trainer() -> ModuleType:
    """Find the module that `train()` runs in: under `python -m` it is loaded twice."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return main if spec is not None and spec.name == lerobot_train.__name__ else lerobot_train


def _is_installed() -> bool:
    return isinstance(getattr(_trainer().update_policy, "__self__", None), TrainerPatch)


class TrainerPatch:
    """Our versions of LeRobot's functions, and what they remember of the run in progress."""

    def __init__(self, make_weighter: MakeWeighter) -> None:
        """Find the functions that will be replaced."""
        self.modules: dict[str, ModuleType] = {
            "make_train_eval_datasets": _trainer(),
            "make_pre_post_processors": _trainer(),
            "get_policy_class": factory,
            "make_sample_weighter": sample_weighting,
            "EpisodeAwareSampler": _trainer(),
            "update_policy": _trainer(),
        }
        self._original = {name: getattr(module, name) for name, module in self.modules.items()}
        self._make_weighter = make_weighter
        self._config: Any = None  # TrainPipelineConfig
        self._dataset: Any = None  # LeRobotDataset
        self._processors: Any = None  # before and after the policy
        self._processes: Any = None  # torch.distributed's ProcessGroup
        self._weighter: BatchWeighter | None = None
        self._per_sample = True  # the policy has a loss per sample

    def make_train_eval_datasets(self, cfg: TrainPipelineConfig) -> Any:
        """Remember the run's configuration, its dataset, and the processes that train."""
        weighting = cfg.sample_weighting
        if weighting is not None and cfg.policy is not None:
            is_drawn = weighting.type == SCHEME_TYPE and (
                weighting.extra_params.get("apply") == "sampling"
            )
            if not is_drawn:
                per_sample_policy(cfg.policy.type)  # fails before anything is downloaded
            self._per_sample = has_per_sample_loss(cfg.policy.type)
        datasets = self._original["make_train_eval_datasets"](cfg)
        self._config, self._dataset, self._weighter = cfg, datasets[0], None
        # Whoever lets the group go last waits for gloo's threads, which may wait for Python's lock
        # to free a tensor. This reference gives the lock back meanwhile. Without it the last one is
        # DDP's, which keeps the lock (PyTorch 2.11), and the process hangs when train() returns.
        if distributed.is_available() and distributed.is_initialized():
            self._processes = distributed.group.WORLD
        return datasets

    def make_pre_post_processors(self, *args: Any, **options: Any) -> Any:
        """Remember the processors, which belong into a checkpoint."""
        self._processors = self._original["make_pre_post_processors"](*args, **options)
        return self._processors

    def get_policy_class(self, name: str) -> type[PreTrainedPolicy]:
        """Choose the class that has a loss per sample."""
        choose = per_sample_policy if name in OWN_CLASSES else self._original["get_policy_class"]
        return choose(name)

    def make_sample_weighter(
        self, config: Any, policy: PreTrainedPolicy, device: torch.device, **where: Any
    ) -> SampleWeighter | None:
        """Make our weighter if it is asked for."""
        if config is None or config.type != SCHEME_TYPE:
            return self._original["make_sample_weighter"](config, policy, device, **where)
        self._weighter = self._make_weighter(
            config.extra_params, policy=policy, device=device, dataset=self._dataset
        )
        return self._weighter

    def EpisodeAwareSampler(self, *args: Any, **options: Any) -> EpisodeAwareSampler:  # noqa: N802
        """Make LeRobot's sampler, or ours where frames are drawn by their weight."""
        weights = None if self._weighter is None else self._weighter.drawn
        if weights is None:
            return self._original["EpisodeAwareSampler"](*args, **options)
        return WeightedSampler(weights, *args, **options)

    def update_policy(
        self,
        train_metrics: Any,
        policy: torch.nn.Module,
        batch: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        grad_clip_norm: float,
        accelerator: Any,
        lr_scheduler: Any = None,
        lock: Any = None,
        sample_weighter: SampleWeighter | None = None,
    ) -> Any:
        """Do one training step on the weighted losses.

        LeRobot's own weighted step divides by the batch's sum of weights, by which a batch of bad
        frames counts as much as a good one. So this takes its step *without* weights, which begins
        with `loss, parts = policy.forward(batch)`, and for its duration puts the function below in
        the place of `policy.forward`. It returns the weighted loss of the batch. All the rest
        (mixed precision, backward pass, clipping, optimizer, schedule, metrics) is LeRobot's, and
        the policy's class, checkpoints and wrappers (DDP, FSDP, PEFT) are not touched.
        """
        step = self._original["update_policy"]
        arguments = (train_metrics, policy, batch, optimizer, grad_clip_norm, accelerator)
        options = {"lr_scheduler": lr_scheduler, "lock": lock}
        weighter = self._weighter
        if weighter is None or sample_weighter is not weighter:
            return step(*arguments, **options, sample_weighter=sample_weighter)
        weights, stats = weighter.compute_batch_weights(batch)
        losses_of = policy.forward

        def weighted_forward(batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
            if self._per_sample:
                losses, parts = losses_of(batch, reduction="none")
            else:  # then frames are drawn by their weight, and all losses weigh 1
                loss, parts = losses_of(batch)
                losses = loss.expand(len(weights))
            if losses.shape != weights.shape:
                name = type(accelerator.unwrap_model(policy)).__name__
                raise RuntimeError(
                    f"{name}.forward(batch, reduction='none') must return one loss per sample, "
                    f"shape {tuple(weights.shape)}; got {tuple(losses.shape)}"
                )
            bad = ~(torch.isfinite(losses.detach()) & torch.isfinite(weights))
            if _in_any_process(bad.any(), accelerator):
                found = _name_frames(bad, weights, batch, accelerator)
                saved = self._save(
                    train_metrics.steps, policy, optimizer, lr_scheduler, accelerator
                )
                raise TrainingError(
                    f"step {train_metrics.steps + 1}: {found}. {saved} Look for NaN in their "
                    "actions, observations and labels; if there is none, lower the learning rate."
                )
            if weighter.per_batch:  # as LeRobot's weighted step
                loss = (losses * weights).sum() / (weights.sum() + _LEROBOT_EPSILON)
            else:
                loss = (losses * weights).mean()
            logged = {f"sample_weight_{name}": value for name, value in stats.items()}
            return loss, {**(parts or {}), **logged}

        with patch.object(policy, "forward", weighted_forward):
            return step(*arguments, **options)

    def _save(
        self,
        steps: int,
        policy: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        accelerator: Accelerator,
    ) -> str:
        """Save a checkpoint of the steps done so far as LeRobot's `train()` does, and say so."""
        config = self._config
        if not config.save_checkpoint:
            return "Nothing was saved, as --save_checkpoint=false asks."
        broken = torch.stack([~torch.isfinite(p).all() for p in policy.parameters()]).any()
        if _in_any_process(broken, accelerator):
            return (
                f"Nothing was saved: the parameters are not finite since step {steps}, "
                "so go on from the checkpoint before."
            )
        model_state, optimizer_state = None, None
        if accelerator.distributed_type == DistributedType.FSDP:
            states = train_utils.gather_fsdp_state_dicts(policy, optimizer)
            model_state, optimizer_state = states
        folder = train_utils.get_step_checkpoint_dir(Path(config.output_dir), config.steps, steps)
        if accelerator.is_main_process:
            preprocessor, postprocessor = self._processors
            train_utils.save_checkpoint(
                checkpoint_dir=folder,
                step=steps,
                cfg=config,
                policy=accelerator.unwrap_model(policy),
                optimizer=optimizer,
                scheduler=scheduler,
                preprocessor=preprocessor,
                postprocessor=postprocessor,
                num_processes=accelerator.num_processes,
                batch_size=config.batch_size,
                model_state_dict=model_state,
                optim_state_dict=optimizer_state,
            )
            train_utils.update_last_checkpoint(folder)
        accelerator.wait_for_everyone()
        return f"The state after step {steps} is saved in {folder}."


def _in_any_process(flag: Bool[Tensor, ""], accelerator: Accelerator) -> bool:
    """With several processes all of them agree, stop together, and the main one saves."""
    if accelerator.num_processes > 1:
        flag = accelerator.reduce(flag.float(), reduction="sum")  # pyright: ignore[reportAssignmentType]
    return bool(flag > 0)


def _name_frames(
    bad: Bool[Tensor, " batch"],
    weights: Float[Tensor, " batch"],
    batch: dict[str, Tensor],
    accelerator: Accelerator,
) -> str:
    """Say what is not finite, and of which frames, in whichever process."""
    what = "loss" if torch.isfinite(weights).all() else "weight"
    found = [(what, batch["index"].reshape(-1)[bad].tolist())]
    if accelerator.num_processes > 1:
        found = gather_object(found)
    names = " and ".join(sorted({name for name, frames in found if frames}))
    frames = [index for _, frames in found for index in frames]
    shown = ", ".join(map(str, frames[:_FRAMES_NAMED]))
    more = f" and {len(frames) - _FRAMES_NAMED} more" if len(frames) > _FRAMES_NAMED else ""
    return f"the {names} of these frames is NaN or infinite (global index): {shown}{more}"


# What the patch asks of LeRobot's functions: parameters by these names.
_PARAMETERS: Mapping[tuple[ModuleType, str], str] = {
    (lerobot_train, "make_train_eval_datasets"): "cfg",
    (lerobot_train, "make_pre_post_processors"): "policy_cfg pretrained_path",
    (lerobot_train, "EpisodeAwareSampler"): "dataset_from_indices dataset_to_indices "
    "episode_indices_to_use drop_n_last_frames absolute_to_relative_idx seed",
    (factory, "get_policy_class"): "name",
    (factory, "make_policy"): "cfg ds_meta",
    (sample_weighting, "make_sample_weighter"): "config policy device",
    (lerobot_train, "update_policy"): "train_metrics policy batch optimizer grad_clip_norm "
    "accelerator lr_scheduler lock sample_weighter",
    (train_utils, "save_checkpoint"): "checkpoint_dir step cfg policy optimizer scheduler "
    "preprocessor postprocessor num_processes batch_size model_state_dict optim_state_dict",
    (train_utils, "update_last_checkpoint"): "checkpoint_dir",
    (train_utils, "get_step_checkpoint_dir"): "output_dir total_steps step",
    (train_utils, "gather_fsdp_state_dicts"): "model optimizer",
    (logging_utils, "MetricsTracker"): "initial_step",
}


def check_lerobot() -> None:
    """Check every function of LeRobot's that the patch replaces or calls.

    Raises:
        RuntimeError: naming the first one that is missing or has changed.
    """
    for (module, name), needed in _PARAMETERS.items():
        function: Callable[..., object] | None = getattr(module, name, None)
        found = [] if function is None else list(inspect.signature(function).parameters)
        if function is None or not set(needed.split()) <= set(found):
            change = "it is gone" if function is None else f"its parameters are {', '.join(found)}"
            raise RuntimeError(
                f"LeRobot {lerobot.__version__} has moved {module.__name__}.{name}: {change}; this "
                f"version of lerobot-topreward is for LeRobot {_VERSION}: "
                f"pip install 'lerobot=={_VERSION}'"
            )
