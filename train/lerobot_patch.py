"""The only place that reaches into LeRobot's trainer.

`lerobot_train.train()` is not written to be extended: it makes its weighter, its policy and its
steps through functions that it finds by name. Some of these are replaced here, after checking that
they are what LeRobot 0.6.1 has:

- `make_sample_weighter` knows one more type, `topreward`;
- `get_policy_class` finds ACT and Diffusion with a loss per sample;
- `update_policy` leaves the weights as they are (see `batch_scale`) and stops at NaN (`rescue`);
- `make_train_eval_datasets` and `make_pre_post_processors` only remember what they made.

Weightings of LeRobot's own go through its own code, and so do runs without any.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import lerobot
import torch
from accelerate import Accelerator
from lerobot.common import train_utils
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets import LeRobotDataset
from lerobot.policies import factory
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.scripts import lerobot_train
from lerobot.utils import logging_utils, sample_weighting
from lerobot.utils.logging_utils import MetricsTracker
from lerobot.utils.sample_weighting import SampleWeighter, SampleWeightingConfig
from torch import Tensor

from lerobot_topreward.train.choice import OWN_CLASSES, per_sample_policy
from lerobot_topreward.train.nonfinite import TrainingState
from lerobot_topreward.train.weighted_step import WeightedStep

SCHEME_TYPE = "topreward"  # in --sample_weighting.type


class MakeWeighter(Protocol):
    """Build the weighter of a run."""

    def __call__(
        self,
        params: Mapping[str, Any],
        *,
        policy: PreTrainedPolicy,
        device: torch.device,
        dataset: LeRobotDataset,
    ) -> SampleWeighter:
        """Build it from `--sample_weighting.extra_params` and what `train()` has made so far."""
        ...


@contextmanager
def installed(make_weighter: MakeWeighter) -> Iterator[None]:
    """Let LeRobot's trainer weight its samples with our weighter inside the block.

    Raises:
        RuntimeError: if LeRobot's trainer is not the one that this was written for.
    """
    undo = _install(make_weighter)
    try:
        yield
    finally:
        undo()


def install(make_weighter: MakeWeighter) -> None:
    """Do the same for the rest of the process; do nothing where it is done already.

    Raises:
        RuntimeError: if LeRobot's trainer is not the one that this was written for.
    """
    if not _is_installed():
        _install(make_weighter)


def _trainer() -> ModuleType:
    """Find the module that `train()` runs in: under `python -m` it is loaded twice."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return main if spec is not None and spec.name == lerobot_train.__name__ else lerobot_train


def _is_installed() -> bool:
    return isinstance(getattr(_trainer().update_policy, "__self__", None), _Seam)


def _install(make_weighter: MakeWeighter) -> Callable[[], None]:
    """Replace LeRobot's functions; what is returned puts them back."""
    if _is_installed():
        raise RuntimeError("LeRobot's trainer is already weighted in this process")
    check_lerobot()
    seam = _Seam(make_weighter)
    for name, (module, _) in seam.replaced.items():
        setattr(module, name, getattr(seam, name))

    def undo() -> None:
        for name, (module, original) in seam.replaced.items():
            setattr(module, name, original)

    return undo


class _Seam:
    """Our versions of LeRobot's functions, and what they remember of the run in progress."""

    def __init__(self, make_weighter: MakeWeighter) -> None:
        self._make_weighter = make_weighter
        modules = {
            "make_sample_weighter": sample_weighting,
            "get_policy_class": factory,
            "make_train_eval_datasets": _trainer(),
            "make_pre_post_processors": _trainer(),
            "update_policy": _trainer(),
        }
        self.replaced: dict[str, tuple[ModuleType, Callable[..., Any]]] = {
            name: (module, getattr(module, name)) for name, module in modules.items()
        }
        self._config: TrainPipelineConfig | None = None
        self._dataset: LeRobotDataset | None = None
        self._processors: tuple[Any, Any] | None = None

    def _original(self, name: str) -> Callable[..., Any]:
        return self.replaced[name][1]

    def make_train_eval_datasets(
        self, cfg: TrainPipelineConfig
    ) -> tuple[LeRobotDataset, LeRobotDataset | None]:
        if cfg.sample_weighting is not None and cfg.policy is not None:
            per_sample_policy(cfg.policy.type)  # fails before anything is downloaded
        original = self._original("make_train_eval_datasets")
        train, evaluation = original(cfg)
        self._config, self._dataset = cfg, train
        return train, evaluation

    def get_policy_class(self, name: str) -> type[PreTrainedPolicy]:
        if name in OWN_CLASSES:
            return per_sample_policy(name)
        return self._original("get_policy_class")(name)

    def make_pre_post_processors(
        self,
        policy_cfg: Any,
        pretrained_path: str | None = None,
        pretrained_revision: str | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        original = self._original("make_pre_post_processors")
        processors = original(policy_cfg, pretrained_path, pretrained_revision, **kwargs)
        self._processors = processors
        return processors

    def make_sample_weighter(
        self,
        config: SampleWeightingConfig | None,
        policy: PreTrainedPolicy,
        device: torch.device,
        dataset_root: str | None = None,
        dataset_repo_id: str | None = None,
    ) -> SampleWeighter | None:
        if config is None or config.type != SCHEME_TYPE:
            original = self._original("make_sample_weighter")
            return original(config, policy, device, dataset_root, dataset_repo_id)
        assert self._dataset is not None
        return self._make_weighter(
            config.extra_params, policy=policy, device=device, dataset=self._dataset
        )

    def update_policy(
        self,
        train_metrics: MetricsTracker,
        policy: torch.nn.Module,
        batch: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        grad_clip_norm: float,
        accelerator: Accelerator,
        lr_scheduler: Any = None,
        lock: Any = None,
        sample_weighter: SampleWeighter | None = None,
    ) -> tuple[MetricsTracker, dict[str, Any] | None]:
        original = self._original("update_policy")
        options: dict[str, Any] = {"lr_scheduler": lr_scheduler, "lock": lock}
        required = (train_metrics, policy, batch, optimizer, grad_clip_norm, accelerator)
        if sample_weighter is None:
            return original(*required, **options)
        assert self._config is not None
        assert self._processors is not None
        state = TrainingState(
            steps=train_metrics.steps,
            config=self._config,
            policy=policy,
            optimizer=optimizer,
            scheduler=lr_scheduler,
            processors=self._processors,
        )
        step = WeightedStep(sample_weighter, state=state, accelerator=accelerator)
        with step.forward_of(policy):
            return original(*required, **options, sample_weighter=step)


_VERSION = "0.6.1"


_PARAMETERS: dict[tuple[ModuleType, str], list[str]] = {
    (sample_weighting, "make_sample_weighter"): [
        "config", "policy", "device", "dataset_root", "dataset_repo_id",
    ],
    (factory, "get_policy_class"): ["name"],
    (lerobot_train, "make_train_eval_datasets"): ["cfg"],
    (lerobot_train, "make_pre_post_processors"): [
        "policy_cfg", "pretrained_path", "pretrained_revision", "kwargs",
    ],
    (lerobot_train, "update_policy"): [
        "train_metrics", "policy", "batch", "optimizer", "grad_clip_norm", "accelerator",
        "lr_scheduler", "lock", "sample_weighter",
    ],
    (train_utils, "save_checkpoint"): [
        "checkpoint_dir", "step", "cfg", "policy", "optimizer", "scheduler", "preprocessor",
        "postprocessor", "num_processes", "batch_size", "model_state_dict", "optim_state_dict",
    ],
    (train_utils, "update_last_checkpoint"): ["checkpoint_dir"],
    (train_utils, "get_step_checkpoint_dir"): ["output_dir", "total_steps", "step"],
    (train_utils, "gather_fsdp_state_dicts"): ["model", "optimizer"],
    (logging_utils, "MetricsTracker"): [
        "batch_size", "num_frames", "num_episodes", "metrics", "initial_step", "accelerator",
    ],
}  # fmt: skip


# Replacing a function does nothing unless its caller looks it up by this name when it runs.
_LOOKED_UP: dict[tuple[ModuleType, str], set[str]] = {
    (lerobot_train, "train"): {
        "make_train_eval_datasets", "make_policy", "make_pre_post_processors", "update_policy",
        "lerobot.utils.sample_weighting",  # imported when train() runs
        "make_sample_weighter",
    },
    (factory, "make_policy"): {"get_policy_class"},
    (lerobot_train, "update_policy"): {"compute_batch_weights", "forward", "sum"},
}  # fmt: skip


def check_lerobot() -> None:
    """Check every function of LeRobot's that the seam replaces or calls.

    Raises:
        RuntimeError: naming the first one that is missing or has changed.
    """
    for (module, name), expected in _PARAMETERS.items():
        found = list(inspect.signature(_function(module, name)).parameters)
        if found != expected:
            _complain(f"{module.__name__}.{name}", f"its parameters are {', '.join(found)}")
    for (module, name), expected_names in _LOOKED_UP.items():
        code = inspect.unwrap(_function(module, name)).__code__
        missing = expected_names - set(code.co_names)
        if missing:
            _complain(
                f"{module.__name__}.{name}", f"it no longer uses {', '.join(sorted(missing))}"
            )


def _function(module: ModuleType, name: str) -> Callable[..., object]:
    if not hasattr(module, name):
        _complain(f"{module.__name__}.{name}", "it is gone")
    return getattr(module, name)


def _complain(name: str, change: str) -> None:
    raise RuntimeError(
        f"LeRobot {lerobot.__version__} has moved {name}: {change}; this version of "
        f"lerobot-topreward is for LeRobot {_VERSION}: pip install 'lerobot=={_VERSION}'"
    )
