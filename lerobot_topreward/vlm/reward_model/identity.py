"""Which reward model is meant, known without loading its weights, and what LeRobot knows of it."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import distributions
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import (
    VlmConfig,
    VlmIdentity,
    hash_files,
    resolve_device,
)
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig

if TYPE_CHECKING:
    from lerobot.configs.rewards import RewardModelConfig as LeRobotConfig

_PACKAGES = "lerobot_reward_"  # LeRobot finds policies of others by such names, no reward models
# Whose scores also depend on another checkpoint, and the field that names it.
_BESIDE = {"topreward": "vlm_name", "robometer": "base_model_id"}


def identify_reward_model(config: RewardModelConfig, vlm: VlmConfig) -> VlmIdentity:
    """Pin a reward model's checkpoint without loading it.

    Raises:
        UserError: LeRobot knows no such model, or its checkpoint is not there or another's.
    """
    read = read_config(config, vlm)
    find_camera(config, read)
    path = read.pretrained_path
    assert path is not None  # `read_config` has set it
    folder = Path(path) if Path(path).is_dir() else None
    revision = _pin(path, config.reward_revision, named=f"`reward_path='{path}'`")
    if (field := _BESIDE.get(config.name)) is not None:
        other = str(getattr(read, field))
        named = f"`reward_model={config.reward_model}`: {field}={other} of its configuration"
        revision += f"+{_pin(other, None, named=named)}"
    return VlmIdentity(
        name=path if folder is None else folder.resolve().name,
        revision=revision,
        dtype=str(getattr(read, "torch_dtype", "float32")),
        quantize=None,
        folder=folder,
        reward_model=config.name,
    )


def read_config(config: RewardModelConfig, vlm: VlmConfig) -> "LeRobotConfig":
    """Read a reward model's own configuration, through LeRobot's registry.

    Returns:
        It, with the checkpoint's folder or Hub id as `pretrained_path`, and the device resolved.

    Raises:
        UserError: see `identify_reward_model`.
    """
    from lerobot.configs.rewards import RewardModelConfig as LeRobotConfig

    kind = _find_type(config)
    path = config.reward_path
    if path is None:
        own = {item.name: item.default for item in fields(kind)}.get("pretrained_path")
        if not isinstance(own, str):
            raise UserError(
                f"`reward_model={config.reward_model}` has no checkpoint of its own; give "
                "`reward_path=FOLDER` or a Hub id"
            )
        path = own
    folder = Path(path).expanduser()
    if folder.is_dir():
        path = str(folder)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"`reward_path='{path}'` has no config.json; give a checkpoint's folder"
            )
    else:
        _fetch_config(path, config.reward_revision, named=f"`reward_path='{path}'`")
    with explain(config, what=f"has no usable config.json in {path}"):
        read = LeRobotConfig.from_pretrained(path, revision=config.reward_revision)
    if not isinstance(read, kind):
        raise UserError(
            f"`reward_path='{path}'` holds a reward model of the type {read.type}; give "
            f"`reward_model={read.type}`, or another path"
        )
    read.pretrained_path = path
    read.pretrained_revision = config.reward_revision
    read.device = str(resolve_device(vlm.device))
    return read


def find_camera(config: RewardModelConfig, read: "LeRobotConfig") -> str:
    """Find the feature key that a reward model reads images from.

    Raises:
        UserError: it reads something else, too, or several cameras.
    """
    from lerobot.configs import FeatureType

    others = [key for key, found in read.input_features.items() if found.type != FeatureType.VISUAL]
    cameras = [key for key in read.input_features if key not in others]
    key = getattr(read, "image_key", None)
    cameras = list(dict.fromkeys([*([key] if isinstance(key, str) else []), *cameras]))
    if others or len(cameras) != 1:
        found = ", ".join([*cameras, *others]) or "nothing"
        raise UserError(
            f"`reward_model={config.reward_model}` reads {found}; a label is made of one camera's "
            "video and the task alone, so only models that read one camera can judge here"
        )
    return cameras[0]


@contextmanager
def explain(config: RewardModelConfig, *, what: str) -> Iterator[None]:
    """Turn whatever a reward model's own code raises into an error that says whose it is."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # it is somebody else's code, which may raise anything
        reason = shorten(str(error), 400) or type(error).__name__  # it may list every weight
        raise UserError(f"`reward_model={config.reward_model}` {what}: {reason}") from error


def _find_type(config: RewardModelConfig) -> type[Any]:
    """Find a registered configuration; what other packages register is imported first if need be."""
    import lerobot.rewards.factory  # noqa: F401  registers LeRobot's own
    from lerobot.configs.rewards import RewardModelConfig as LeRobotConfig
    from lerobot.utils.import_utils import register_third_party_plugins

    broken: list[str] = []
    if config.package is not None:
        with explain(config, what=f"cannot be imported from {config.package}"):
            importlib.import_module(config.package)
    elif config.name not in LeRobotConfig.get_known_choices():
        register_third_party_plugins()
        broken = _import_packages()
    known = LeRobotConfig.get_known_choices()
    if config.name not in known:
        raise UserError(
            f"`reward_model={config.reward_model}` is not registered with LeRobot; there is: "
            f"{', '.join(sorted(known))}. Where another package registers it, name that, too: "
            f"`reward_model=PACKAGE:{config.name}`{''.join(broken)}"
        )
    return LeRobotConfig.get_choice_class(config.name)


def _import_packages() -> list[str]:
    """Import what may register reward models, and say which could not be imported."""
    broken = []
    for found in distributions():
        name = (found.metadata["Name"] or "").replace("-", "_")
        if name.startswith(_PACKAGES):
            try:
                importlib.import_module(name)
            except Exception as error:  # it is somebody else's code, which may raise anything
                broken.append(f". {name} cannot be imported: {shorten(str(error), 200)}")
    return broken


def _pin(path: str, revision: str | None, *, named: str) -> str:
    """Hash a checkpoint's folder, or find the commit on the Hub."""
    folder = Path(path)
    if folder.is_dir():
        return hash_files(_files(folder), within=folder, named=named)
    return _fetch_config(path, revision, named=named).parent.name  # .../<commit>/config.json


def _fetch_config(path: str, revision: str | None, *, named: str) -> Path:
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise UserError(f"{named} is neither a folder here nor a Hub id like owner/name")
    from huggingface_hub import hf_hub_download

    from lerobot_topreward.hub_errors import translate_errors

    with translate_errors(repo_id=path, option="reward_path", revision=revision, repo_type="model"):
        return Path(hf_hub_download(path, "config.json", revision=revision))


def _files(folder: Path) -> list[Path]:
    """Everything in a checkpoint's folder but notes; other models' code may read any of it."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
        and path.suffix != ".md"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
