"""Is LeRobot's trainer the one that the seam was written for?"""

import inspect
from collections.abc import Callable
from types import ModuleType

import lerobot
from lerobot.common import train_utils
from lerobot.policies import factory
from lerobot.scripts import lerobot_train
from lerobot.utils import logging_utils, sample_weighting

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
