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

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Bool, Float
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import EpisodeAwareSampler
from lerobot.policies import factory
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.scripts import lerobot_train
from lerobot.utils import sample_weighting
from lerobot.utils.sample_weighting import SampleWeighter
from torch import Tensor, distributed

from lerobot_topreward.errors import TrainingError, UserError
from lerobot_topreward.lerobot_features import check_trainer
from lerobot_topreward.policies.choice import (
    OWN_CLASSES,
    has_per_sample_loss,
    per_sample_policy,
)
from lerobot_topreward.train.checkpoint import in_any_process, save_stopped
from lerobot_topreward.train.records import FrameWeights
from lerobot_topreward.train.sampler import WeightedSampler

SCHEME_TYPE = "topreward"  # in --sample_weighting.type
_LEROBOT_EPSILON = 1e-6  # in the denominator of LeRobot's `update_policy`
_FRAMES_NAMED = 20  # in the message of what is not finite


class BatchWeighter(SampleWeighter):
    """A weighter whose weights average 1 over the dataset, or over each batch as in LeRobot."""

    per_batch: bool
    drawn: FrameWeights | None = None  # how often frames are drawn; None: weights multiply losses

    @abstractmethod
    def move_to(self, device: torch.device) -> None:
        """Look weights up on the device of the batches, which is known after the weights are."""


# Builds the weighter of a run from `--sample_weighting.extra_params`, the policy's configuration and
# the dataset: (params, *, policy, dataset). Not from the policy: when LeRobot asks for a weighter, it
# may already be wrapped for several processes.
MakeWeighter = Callable[..., BatchWeighter]


@contextmanager
def patch_trainer(make_weighter: MakeWeighter) -> Iterator[None]:
    """Let LeRobot's trainer weight its samples with our weighter inside the block.

    Where `install` was called before, as by what LeRobot finds by itself, its weighter is replaced.

    Raises:
        RuntimeError: LeRobot's trainer is not the one that this was written for, or is patched.
    """
    installed = _find_patch()
    if installed is None:
        with _replace(make_weighter):
            yield
    elif installed.for_good:
        with patch.object(installed, "make_weighter", make_weighter):
            yield
    else:
        raise RuntimeError("LeRobot's trainer is already weighted in this process")


def install(make_weighter: MakeWeighter) -> None:
    """Do the same for the rest of the process; do nothing where it is done already.

    Raises:
        RuntimeError: LeRobot's trainer is not the one that this was written for.
    """
    if _find_patch() is None:
        _replace(make_weighter, for_good=True)


def _replace(make_weighter: MakeWeighter, *, for_good: bool = False) -> ExitStack:
    """Replace LeRobot's functions until the stack that is returned is closed, which it need not be."""
    check_trainer()
    trainer_patch, replaced = TrainerPatch(make_weighter, for_good=for_good), ExitStack()
    for name, module in trainer_patch.modules.items():
        replaced.enter_context(patch.object(module, name, getattr(trainer_patch, name)))
    return replaced


def _trainer() -> ModuleType:
    """Find the module that `train()` runs in: under `python -m` it is loaded twice."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return main if spec is not None and spec.name == lerobot_train.__name__ else lerobot_train


def _find_patch() -> "TrainerPatch | None":
    """The patch that is in LeRobot's trainer."""
    owner = getattr(_trainer().update_policy, "__self__", None)
    return owner if isinstance(owner, TrainerPatch) else None


class TrainerPatch:
    """Our versions of LeRobot's functions, and what they remember of the run in progress."""

    def __init__(self, make_weighter: MakeWeighter, *, for_good: bool = False) -> None:
        """Find the functions that will be replaced, until the process ends or not as long."""
        self.for_good = for_good
        self.make_weighter = make_weighter
        self.modules: dict[str, ModuleType] = {
            "make_train_eval_datasets": _trainer(),
            "make_pre_post_processors": _trainer(),
            "get_policy_class": factory,
            "make_sample_weighter": sample_weighting,
            "EpisodeAwareSampler": _trainer(),
            "update_policy": _trainer(),
        }
        self._original = {name: getattr(module, name) for name, module in self.modules.items()}
        self._config: Any = None  # TrainPipelineConfig
        self._dataset: Any = None  # LeRobotDataset
        self._processors: Any = None  # before and after the policy
        self._processes: Any = None  # torch.distributed's ProcessGroup
        self._weighter: BatchWeighter | None = None
        self._per_sample = True  # the policy has a loss per sample

    def make_train_eval_datasets(self, cfg: TrainPipelineConfig) -> Any:
        """Remember the run's configuration, its dataset, and the processes that train."""
        weighting = cfg.sample_weighting
        is_ours = weighting is not None and weighting.type == SCHEME_TYPE
        if is_ours and cfg.policy is None:
            raise UserError(
                f"--sample_weighting.type={SCHEME_TYPE} weights the frames of a policy, not of a "
                "reward model: give --policy.type or --policy.path"
            )
        if weighting is not None and cfg.policy is not None:
            is_drawn = is_ours and weighting.extra_params.get("apply") == "sampling"
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
        weighter = self._find_weighter()
        if weighter is not None:
            weighter.move_to(device)
        return weighter

    def _find_weighter(self) -> BatchWeighter | None:
        """Make our weighter once, if it is asked for: LeRobot's sampler comes before it or after."""
        weighting = getattr(self._config, "sample_weighting", None)
        if self._weighter is None and weighting is not None and weighting.type == SCHEME_TYPE:
            self._weighter = self.make_weighter(
                weighting.extra_params, policy=self._config.policy, dataset=self._dataset
            )
        return self._weighter

    def EpisodeAwareSampler(self, *args: Any, **options: Any) -> EpisodeAwareSampler:  # noqa: N802
        """Make LeRobot's sampler, or ours where frames are drawn by their weight."""
        weighter = self._find_weighter()
        weights = None if weighter is None else weighter.drawn
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
        with `loss, parts = policy.forward(batch)` (or `policy(batch)`, which calls it), and for its
        duration puts the function below in the place of `policy.forward`. It returns the weighted
        loss of the batch. All the rest (mixed precision, accumulation, backward pass, clipping,
        optimizer, schedule, metrics) is LeRobot's, and the policy's class, checkpoints and wrappers
        (DDP, FSDP, PEFT) are not touched.
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
            if in_any_process(bad.any(), accelerator):
                raise _NotFiniteError(_name_frames(bad, weights, batch, accelerator))
            if weighter.per_batch:  # as LeRobot's weighted step
                loss = (losses * weights).sum() / (weights.sum() + _LEROBOT_EPSILON)
            else:
                loss = (losses * weights).mean()
            logged = {f"sample_weight_{name}": value for name, value in stats.items()}
            return loss, {**(parts or {}), **logged}

        steps = train_metrics.steps
        try:
            with patch.object(policy, "forward", weighted_forward):
                return step(*arguments, **options)
        except _NotFiniteError as stopped:
            saved = save_stopped(
                self._config,
                steps=steps,
                policy=policy,
                optimizer=optimizer,
                scheduler=lr_scheduler,
                processors=self._processors,
                accelerator=accelerator,
            )
            raise TrainingError(
                f"step {steps + 1}: {stopped}. {saved} Look for NaN in their actions, observations "
                "and labels; if there is none, lower the learning rate."
            ) from None


class _NotFiniteError(Exception):
    """A loss or a weight is not finite; the message says which and of which frames."""


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
