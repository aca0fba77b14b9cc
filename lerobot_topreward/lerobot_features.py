"""What the installed LeRobot can do: asked of its functions, not of its version.

Versions appear in messages alone, to say which LeRobot has what is missing.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from lerobot_topreward.errors import UserError

_RANGE = ">=0.6.1,<0.7"
_TRIED = "0.6.1"

# What the trainer patch asks of LeRobot's functions, whichever version: parameters by these names.
_PARAMETERS: Mapping[tuple[str, str], str] = {
    ("lerobot.scripts.lerobot_train", "make_train_eval_datasets"): "cfg",
    ("lerobot.scripts.lerobot_train", "make_pre_post_processors"): "policy_cfg pretrained_path",
    ("lerobot.scripts.lerobot_train", "EpisodeAwareSampler"): "dataset_from_indices "
    "dataset_to_indices episode_indices_to_use drop_n_last_frames absolute_to_relative_idx seed",
    ("lerobot.policies.factory", "get_policy_class"): "name",
    ("lerobot.policies.factory", "make_policy"): "cfg ds_meta",
    ("lerobot.utils.sample_weighting", "make_sample_weighter"): "config policy device",
    ("lerobot.scripts.lerobot_train", "update_policy"): "train_metrics policy batch optimizer "
    "grad_clip_norm accelerator lr_scheduler lock sample_weighter",
    ("lerobot.common.train_utils", "save_checkpoint"): "checkpoint_dir step cfg policy optimizer "
    "scheduler preprocessor postprocessor",
    ("lerobot.common.train_utils", "update_last_checkpoint"): "checkpoint_dir",
    ("lerobot.common.train_utils", "get_step_checkpoint_dir"): "output_dir total_steps step",
    ("lerobot.utils.logging_utils", "MetricsTracker"): "initial_step",
}
# More, where the main process saves alone.
_SAVES_ALONE: Mapping[tuple[str, str], str] = {
    ("lerobot.common.train_utils", "save_checkpoint"): "num_processes batch_size model_state_dict "
    "optim_state_dict",
    ("lerobot.common.train_utils", "gather_fsdp_state_dicts"): "model optimizer",
}


def require_lerobot() -> None:
    """Refuse a LeRobot from before what every command needs.

    Raises:
        UserError: it has no ``lerobot_types``, and so no ``DatasetConfig.repo_type``, and without
            FFmpeg's libraries it decodes no video.
    """
    package = find_spec("lerobot")  # found, not imported, which takes seconds
    folders = [] if package is None else package.submodule_search_locations or []
    if not any((Path(folder) / "lerobot_types.py").is_file() for folder in folders):
        raise UserError(
            f"LeRobot {_version()} is too old; lerobot-topreward needs {_RANGE}: "
            f"pip install 'lerobot[dataset]{_RANGE}'"
        )


def excludes_episodes() -> bool:
    """Whether a training run can be told which episodes to leave out (LeRobot 0.6.2 and later)."""
    from lerobot.configs.default import DatasetConfig  # takes seconds

    return "exclude_episodes" in DatasetConfig.__dataclass_fields__


def saves_together() -> bool:
    """Whether all processes save a checkpoint together (0.6.2 and later), or the main one alone."""
    from lerobot.common.train_utils import save_checkpoint

    return "accelerator" in inspect.signature(save_checkpoint).parameters


def refuse_excluded_episodes() -> UserError:
    """Make the error for who asks the installed LeRobot to exclude episodes, which it cannot."""
    return UserError(
        f"`dataset.exclude_episodes` is of LeRobot 0.6.2 and later; {_version()} is installed. Name "
        "the episodes to train on instead: `dataset.episodes`"
    )


def check_trainer() -> None:
    """Check every function of LeRobot's that the trainer patch replaces or calls.

    Raises:
        RuntimeError: naming the first one that is missing or has changed.
    """
    _require_parameters(_PARAMETERS)
    if not saves_together():
        _require_parameters(_SAVES_ALONE)


def _require_parameters(wanted: Mapping[tuple[str, str], str]) -> None:
    for (module, name), needed in wanted.items():
        function: Callable[..., object] | None = getattr(import_module(module), name, None)
        found = [] if function is None else list(inspect.signature(function).parameters)
        if function is None or not set(needed.split()) <= set(found):
            change = "it is gone" if function is None else f"its parameters are {', '.join(found)}"
            raise RuntimeError(
                f"LeRobot {_version()} has moved {module}.{name}: {change}; this version of "
                f"lerobot-topreward is for LeRobot {_RANGE}, and was tried with {_TRIED}: "
                f"pip install 'lerobot=={_TRIED}'"
            )


def _version() -> str:
    import lerobot

    return lerobot.__version__
