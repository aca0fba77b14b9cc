"""The command line of `lerobot-topreward train`: ours, and what LeRobot's trainer is given."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

from rich.console import Console
from rich.table import Table

from lerobot_topreward.config import alternatives, load_preset, take_config
from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import WeightingConfig, check_weighting
from lerobot_topreward.train.schemes import SCHEMES

PREFIX = "--weighting."  # of our options, beside those of lerobot-train
_HELP = """\
usage: lerobot-topreward train [OPTIONS]

Train a LeRobot policy on a labeled dataset, its frames weighted by their rewards. Takes every \
option of lerobot-train, and those below. LeRobot's own trainer runs: see lerobot-train --help, and \
--policy.type=act with it for a policy's options.

  lerobot-topreward train --dataset.repo_id=OWNER/NAME_topreward --policy.type=act \
--policy.push_to_hub=false --output_dir=outputs/act --weighting.scheme=awr

To resume: --resume=true --config_path=.../pretrained_model/train_config.json, which knows its \
weighting.
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command line, taken apart; the preset's options stand before those given by hand."""

    weighting: Mapping[str, Any]  # options of the weighting that were given, of the right type
    lerobot: Sequence[str]  # for LeRobot's trainer
    dry_run: bool
    force_weights: bool  # by a reward that cannot judge the dataset
    wants_help: bool


def split_arguments(arguments: Sequence[str]) -> Arguments:
    """Tell our options from LeRobot's in what follows ``train``.

    Raises:
        UserError: an option of ours has no value or a wrong name, or the preset cannot be used.
    """
    given, preset = take_config(arguments)
    text: dict[str, str] = {}
    lerobot: list[str] = []
    flags = {"dry_run": False, "force_weights": False}
    wants_help = False
    waiting = iter(given)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name.startswith(PREFIX):
            value = value if equals else next(waiting, "--")
            if not equals and value.startswith("--"):
                raise UserError(f"{name} needs a value, as in {name}=...")
            option = name.removeprefix(PREFIX).replace("-", "_")
            if option in text:
                raise UserError(f"{PREFIX}{option} is given twice; leave one of them out")
            text[option] = value
        elif (flag := name.removeprefix("--").replace("-", "_")) in flags:
            if equals and value.lower() not in ("true", "false"):
                raise UserError(f"{name} is true or false; got {value}")
            flags[flag] = not equals or value.lower() == "true"
        elif argument in ("-h", "--help"):
            wants_help = True
        else:
            head, dot, option = name.removeprefix("--").partition(".")
            if name.startswith("--") and get_close_matches(head, ["weighting"], cutoff=0.8):
                meant = f"{PREFIX}{option if dot else 'scheme'}"
                raise UserError(f"there is no option {name}; did you mean {meant}?")
            lerobot.append(argument)
    unset = {option: None for option, value in text.items() if value == "null"}
    text = {option: value for option, value in text.items() if option not in unset}
    weighting = check_weighting(unset, where=PREFIX) | check_weighting(
        text, where=PREFIX, text=True
    )
    if preset is not None:
        options = load_preset(preset, section="train")
        weighting = _preset_weighting(preset, options) | weighting
        lerobot = [*_preset_arguments(options, lerobot), *lerobot]
    lerobot += _name_folder(lerobot)
    return Arguments(weighting, lerobot, **flags, wants_help=wants_help)


def _name_folder(arguments: Sequence[str]) -> list[str]:
    """Name a folder's dataset as our other commands do, where LeRobot asks for a name as well."""
    # A checkpoint's configuration, which a run is resumed with, names it already.
    if any(re.match(r"--(dataset\.repo_id|config_path)(=|$)", each) for each in arguments):
        return []
    for option, following in zip_longest(arguments, arguments[1:]):
        name, equals, value = option.partition("=")
        if name == "--dataset.root" and (folder := value if equals else following):
            return [f"--dataset.repo_id=local/{Path(folder).expanduser().absolute().name}"]
    return []


def _preset_weighting(preset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    weighting = options.get("weighting") or {}
    if not isinstance(weighting, Mapping):
        raise UserError(f"--config {preset}: 'weighting:' must be a mapping of options")
    named = {str(name).replace("-", "_"): value for name, value in weighting.items()}
    return check_weighting(named, where=f"--config {preset}: weighting.")


def _preset_arguments(options: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Write a preset's LeRobot options as arguments, without those that are given by hand.

    Left out rather than overridden: of two equal options LeRobot's own parser takes now the first,
    now the last, and it refuses a policy's type beside its path.
    """
    names = {argument.partition("=")[0] for argument in given if argument.startswith("--")}
    if "--policy.path" in names:
        names.add("--policy.type")
    arguments = []
    for name, value in flat_options(options):
        if name.partition(".")[0] == "weighting" or f"--{name}" in names:
            continue
        try:
            # JSON also writes null, true and lists as LeRobot's parser reads them.
            text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise UserError(
                f"--config: {name} must be text, a finite number, true, false or a list; "
                f"got {shorten(value)}"
            ) from None
        arguments.append(f"--{name}={text}")
    return arguments


def flat_options(options: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a preset's options, nested or already dotted, by their names on the command line."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from flat_options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def print_help(console: Console) -> None:
    """Print our options with their units and defaults, those of each scheme below its name."""
    console.print(_HELP)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_row(f"{PREFIX}scheme", f"{', '.join(SCHEMES)} (default: awr)")
    table.add_row("--dry_run", "print what the weights will do, draw them, and start nothing")
    table.add_row("--force_weights", "weight even where the reward cannot judge this dataset")
    table.add_row("--config", "YAML file, or a preset: act_so101, diffusion_so101, paper")
    shown = {"scheme"}
    for config_class in (WeightingConfig, *SCHEMES.values()):
        comments = _comments(config_class)
        if name := getattr(config_class, "name", None):
            table.add_row()
            purpose = (config_class.__doc__ or "").partition("\n")[0].replace("`", "")
            table.add_row(f"{PREFIX}scheme={name}", purpose)
        for item in fields(config_class):
            if item.name not in shown:
                choices = " or ".join(c for c in alternatives(item.type) if isinstance(c, str))
                meaning = "; ".join(filter(None, [choices, comments[item.name].rstrip(".")]))
                default = "" if item.default is None else f" (default: {item.default})"
                table.add_row(f"{PREFIX}{item.name}", f"{meaning}{default}")
            shown.add(item.name)
    console.print(table)


def _comments(config_class: type) -> dict[str, str]:
    """The comment of each field, from the source: on the lines above it, or behind it."""
    comments: dict[str, str] = {}
    for parent in reversed(config_class.__mro__[:-1]):
        above: list[str] = []
        for line in inspect.getsource(parent).splitlines():
            code, _, comment = line.strip().partition("# ")
            if named := re.match(r"(\w+): ", code):
                comments[named[1]] = " ".join(filter(None, [*above, comment]))
            above = [] if code else [*above, comment]
    return comments
