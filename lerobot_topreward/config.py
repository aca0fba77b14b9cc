"""The configuration of a command: a frozen dataclass, from presets and from the command line."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from datetime import date
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from reprlib import repr as shorten
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import ConfigDict, TypeAdapter

from lerobot_topreward.errors import UserError

_SECTIONS = (
    "label",
    "watch",
    "check",
    "compare",
    "evaluate",
    "report",
    "curate",
    "train",
    "serve-args",
    "demo",
)  # of a preset, by command
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path",
}


def take_config(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """Take ``--config`` out of a command's arguments.

    Raises:
        UserError: it has no value, or stands there twice.
    """
    rest, preset = [], None
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name != "--config":
            rest.append(argument)
            continue
        if preset is not None:
            raise UserError("--config is given twice; put all options into one file")
        preset = value if equals else next(waiting, "")
        if not preset or preset.startswith("--"):
            raise UserError("--config needs a YAML file or the name of a preset")
    return rest, preset


def load_preset(path: str, *, section: str) -> dict[str, Any]:
    """Read the options of one command from a YAML preset.

    A preset has a section for every command that it serves. A file without sections holds options
    of the label command.

    Args:
        path: a file, or the name of a preset that comes with the package.
        section: the command.

    Raises:
        UserError: there is no such preset, it says nothing about this command, or it is not a
            mapping.
    """
    options = _read_yaml(_find_preset(path), where=f"--config {path}")
    if not set(options) & set(_SECTIONS):
        if section == "train":
            raise UserError(
                f"--config {path} must have a section 'train:' with the options of this command; "
                f"it has: {', '.join(options)}"
            )
        return {key.replace("-", "_"): value for key, value in options.items()}
    if unknown := sorted(set(options) - set(_SECTIONS)):
        raise UserError(
            f"--config {path}: beside the sections {', '.join(_SECTIONS)} there can be no options; "
            f"got {', '.join(unknown)}"
        )
    if section not in options:
        raise UserError(
            f"--config {path} has no section '{section}'; it is for: {', '.join(options)}"
        )
    if not _is_mapping(options[section]):
        raise UserError(f"--config {path}: section '{section}' must be a mapping of options")
    return {key.replace("-", "_"): value for key, value in options[section].items()}


def load_options[C](config_class: type[C], path: Path, *, option: str) -> C:
    """Build a configuration of its own from a YAML file that an option names.

    Raises:
        UserError: it cannot be read, lacks an option, or a value breaks a rule.
    """
    where = f"--{option.replace('_', '-')} {path}"
    file = path.expanduser()
    if not file.is_file():
        raise UserError(f"{where} must be a YAML file; there is none")
    found = {key.replace("-", "_"): value for key, value in _read_yaml(file, where=where).items()}
    options = check_options(config_class, found, where=f"{where}: ")
    for item in fields(config_class):  # pyright: ignore[reportArgumentType]
        if item.default is MISSING and item.default_factory is MISSING and item.name not in options:
            raise UserError(f"{where} must say '{item.name}: VALUE'")
    try:
        return config_class(**options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _find_preset(path: str) -> Path:
    file = Path(path).expanduser()
    if file.is_file():
        return file
    folder = Path(str(files("lerobot_topreward.configs")))
    names = sorted(preset.stem for preset in folder.glob("*.yaml"))
    if path not in names:
        listed = ", ".join(names)
        raise UserError(f"--config '{path}' is no file, nor a preset; presets: {listed}")
    return folder / f"{path}.yaml"


def _read_yaml(file: Path, *, where: str) -> dict[str, Any]:
    try:
        options = yaml.load(file.read_text(encoding="utf-8"), Loader=_PresetLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where} cannot be read: {error.problem}{line}") from None
    except RecursionError:
        raise UserError(f"{where} cannot be read: it is nested too deep") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} cannot be read: {reason}") from None
    if not _is_mapping(options):
        raise UserError(
            f"{where} must be a mapping of options, as 'name: value'; got {shorten(options)}"
        )
    return options


class _PresetLoader(yaml.SafeLoader):
    """YAML without aliases, which can make gigabytes of ten lines, and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, *args: Any, **options: Any) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"{shorten(key.value)} stands there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, *args, **options)


# YAML 1.1 takes 1e-6, without a point, for text.
_PresetLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _is_mapping(options: Any) -> bool:
    return isinstance(options, Mapping) and all(isinstance(key, str) for key in options)


def option_types(config_class: Any) -> dict[str, Any]:
    """The types of a configuration's options by name, those of nested configurations among them."""
    types: dict[str, Any] = {}
    for item in fields(config_class):
        types |= option_types(item.type) if is_dataclass(item.type) else dict([_option(item)])
    return types


def _option(item: Field[Any]) -> tuple[str, Any]:
    """An option's name and type: that of its field, or what tyro's `arg` calls it."""
    if get_origin(item.type) is Annotated:
        kind, named = get_args(item.type)
        return named.name, kind
    return item.name, item.type


def check_options(
    config_class: Any, options: Mapping[str, Any], *, where: str, text: bool = False
) -> dict[str, Any]:
    """Check names and types of flat options, whose ranges the configuration itself checks.

    Args:
        config_class: the configuration that they are for.
        options: by name, with underscores.
        where: what a message puts before an option's name: ``--``, or the preset.
        text: the values are strings, as from a command line.

    Returns:
        The options with their values converted.

    Raises:
        UserError: an option does not exist, with a suggestion, or its value has another type.
    """
    types = option_types(config_class)
    for name in options:
        refuse_unknown(name, types, where=where)
    return {
        name: _check_type(types[name], value, option=f"{where}{_shown(name, where)}", text=text)
        for name, value in options.items()
    }


def refuse_unknown(name: str, known: Iterable[str], *, where: str) -> None:
    """Refuse an option that does not exist.

    Raises:
        UserError: suggests another.
    """
    if name in known:
        return
    prefix = "" if where.endswith(" ") else where
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {prefix}{_shown(close[0], where)}?" if close else ""
    raise UserError(f"{where}{_shown(name, where)} is no option{hint}")


def _shown(name: str, where: str) -> str:
    return name.replace("_", "-") if where == "--" else name


def _check_type(kind: Any, value: Any, *, option: str, text: bool) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{option} must be a list of values; got {shorten(value)}")
        item = get_args(kind)[0]
        return tuple(_check_type(item, one, option=option, text=text) for one in value)
    choices = alternatives(kind)
    if value == "":
        raise UserError(f"{option} is empty; give a value, or leave it out")
    if text and value == "None" and NoneType in choices:  # undoes what a preset says
        return None
    adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    try:
        if "\0" in str(value):
            raise ValueError("no path or name can hold it")
        if text:
            return adapter.validate_strings(value)
        # As JSON, where text can be a path but a number is never text.
        return adapter.validate_json(json.dumps(value, default=os.fspath), strict=True)
    except (ValueError, TypeError, RecursionError):
        words = [_WORDS.get(choice, str(choice)) for choice in choices if choice is not NoneType]
        rule = " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        close = get_close_matches(str(value).lower(), words, n=1)
        hint = f". Did you mean {close[0]}?" if close else ""
        if {str, Path} & {*choices} and isinstance(value, bool | int | float | date):
            hint = "; put it in quotes"
        shown = "nothing" if value is None else shorten(value)
        raise UserError(f"{option} must be {rule}; got {shown}{hint}") from None


def alternatives(kind: Any) -> list[Any]:
    """Take a type apart into plain types and the values of literals."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    parts = get_args(kind)
    return [inner for part in parts for inner in alternatives(part)] if parts else [kind]


def with_options[C](config_class: type[C], options: Mapping[str, Any]) -> C:
    """Build a configuration from flat options that were checked.

    Raises:
        UserError: a value breaks a rule of the configuration.
    """
    values = {
        item.name: with_options(item.type, options)
        if isinstance(item.type, type) and is_dataclass(item.type)
        else options[_option(item)[0]]
        for item in fields(config_class)  # pyright: ignore[reportArgumentType]
        if is_dataclass(item.type) or _option(item)[0] in options
    }
    return config_class(**values)


def flat_options(config: Any) -> dict[str, Any]:
    """The values of a configuration's options by name, those of nested configurations among them."""
    values: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        values |= flat_options(value) if is_dataclass(value) else {_option(item)[0]: value}
    return values


def as_arguments(config: Any) -> list[str]:
    """Spell a configuration as on the command line: the options that are not as by default.

    They are those of presets, too, and of Python: `cli.parse` makes the same configuration of them.
    """
    defaults = flat_options(type(config)())
    arguments: list[str] = []
    for name, value in flat_options(config).items():
        flag = f"--{name.replace('_', '-')}"
        if value == defaults[name]:
            continue
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple):
            arguments += [f"{flag}={value[0]}", *map(str, value[1:])]
        else:
            arguments.append(f"{flag}={value}")
    return arguments


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as plain values, to be saved beside what it made."""

    def spell(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: spell(inner) for name, inner in value.items()}
        return str(value) if isinstance(value, Path) else value

    return spell(asdict(config))
