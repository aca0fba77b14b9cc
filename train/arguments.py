"""The command line of `lerobot-topreward train`: ours, and what LeRobot's trainer is given."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from reprlib import repr as shorten
from typing import Any

import tyro

from lerobot_topreward.config import check_options, load_preset, take_config
from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import PREFIX, WeightingConfig


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line, taken apart; the preset's options stand before those given by hand."""

    weighting: Mapping[str, Any]  # options of WeightingConfig that were given, of the right type
    lerobot: Sequence[str]  # for LeRobot's trainer
    dry_run: bool
    wants_help: bool


def split_arguments(arguments: Sequence[str]) -> Arguments:
    """Tell our options from LeRobot's.

    Args:
        arguments: what follows ``train``.

    Raises:
        UserError: an option of ours has no value or a wrong name, or the preset cannot be used.
    """
    given, preset = take_config(arguments)
    weighting: dict[str, Any] = {}
    lerobot: list[str] = []
    dry_run = wants_help = False
    waiting = iter(given)
    for argument in waiting:
        name, _, value = argument.partition("=")
        if name.startswith(PREFIX):
            option, value = _weighting_option(argument, waiting)
            if option in weighting:
                raise UserError(f"{PREFIX}{option} is given twice; leave one of them out")
            weighting[option] = value
        elif name in ("--dry-run", "--dry_run"):
            dry_run = _flag(argument)
        elif argument in ("-h", "--help"):
            wants_help = True
        else:
            _refuse_misspelt(name)
            lerobot.append(argument)
    unset = {name: None for name, value in weighting.items() if value == "null"}
    text = {name: value for name, value in weighting.items() if name not in unset}
    weighting = {
        **check_options(WeightingConfig, unset, where=PREFIX),
        **check_options(WeightingConfig, text, where=PREFIX, text=True),
    }
    if preset is not None:
        options = load_preset(preset, section="train")
        weighting = {**_preset_weighting(preset, options), **weighting}
        lerobot = [*_preset_arguments(options, lerobot), *lerobot]
    return Arguments(weighting, lerobot, dry_run, wants_help)


def _weighting_option(argument: str, waiting: Iterator[str]) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals:
        following = next(waiting, None)
        if following is None or following.startswith("--"):
            raise UserError(f"{name} needs a value, as in {name}=...")
        value = following
    return name.removeprefix(PREFIX).replace("-", "_"), value


def _flag(argument: str) -> bool:
    name, equals, value = argument.partition("=")
    if equals and value.lower() not in ("true", "false"):
        raise UserError(f"{name} is true or false; got {value}")
    return not equals or value.lower() == "true"


def _refuse_misspelt(name: str) -> None:
    head, dot, option = name.removeprefix("--").partition(".")
    if name.startswith("--") and get_close_matches(head, ["weighting"], cutoff=0.8):
        meant = f"{PREFIX}{option}" if dot else f"{PREFIX}scheme"
        raise UserError(f"there is no option {name}; did you mean {meant}?")


def _preset_weighting(preset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    weighting = options.get("weighting") or {}
    if not isinstance(weighting, Mapping):
        raise UserError(f"--config {preset}: 'weighting:' must be a mapping of options")
    named = {str(name).replace("-", "_"): value for name, value in weighting.items()}
    return check_options(WeightingConfig, named, where=f"--config {preset}: weighting.")


def _preset_arguments(options: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Write a preset's LeRobot options as arguments, without those that are given by hand.

    Left out rather than overridden: of two equal options LeRobot's own parser takes now the first,
    now the last, and it refuses a policy's type beside its path.
    """
    names = {argument.partition("=")[0] for argument in given if argument.startswith("--")}
    if "--policy.path" in names:
        names.add("--policy.type")
    return [
        f"--{name}={_text(name, value)}"
        for name, value in flat_options(options)
        if name.partition(".")[0] != "weighting" and f"--{name}" not in names
    ]


def flat_options(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a preset's options by their names on the command line.

    Args:
        options: nested by the parts of their names, or already dotted.
        prefix: the parts of the name that lead here, each with its dot.
    """
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat_options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, allow_nan=False)  # null, true and lists, too
    except (TypeError, ValueError):
        raise UserError(
            f"--config: {name} must be text, a finite number, true, false or a list; "
            f"got {shorten(value)}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a LeRobot policy on a labelled dataset, its frames weighted by their rewards.

    Takes every option of lerobot-train, and these. LeRobot's own trainer runs: see lerobot-train
    --help, and --policy.type=act with it for a policy's options.

    lerobot-topreward train --dataset.repo_id=OWNER/NAME_topreward --policy.type=act
    --policy.push_to_hub=false --output_dir=outputs/act --weighting.scheme=awr

    To resume: --resume=true --config_path=.../pretrained_model/train_config.json, which knows its
    weighting.
    """

    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    dry_run: bool = False  # print what the weights will do, write a histogram, and start nothing
    config: str | None = None  # YAML file, or a preset: act_so101, diffusion_so101, paper


def print_help() -> int:
    """Print our options with their units and defaults; returns the exit code."""
    try:
        tyro.cli(
            TrainOptions,
            prog="lerobot-topreward train",
            args=["--help"],
            use_underscores=True,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0
