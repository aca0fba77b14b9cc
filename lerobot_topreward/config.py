"""The configuration of a command: a frozen dataclass, from presets and from the command line."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import date
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from reprlib import repr as shorten
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ConfigDict, TypeAdapter

from lerobot_topreward.errors import UserError
from lerobot_topreward.push_options import check_push
from lerobot_topreward.vlm.identity import VlmConfig

_SECTIONS = ("label", "evaluate", "report", "curate", "train", "demo")  # of a preset, by command
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path",
}


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label a LeRobot dataset with per-frame task progress and advantage, judged by a video VLM.

    --config FILE takes options from a YAML file, or from a preset: paper.
    """

    repo_id: str | None = None  # dataset on the Hub, or recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # dataset in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    episodes: str | None = None  # which ones, as 0:10,15 for 0..9 and 15; all if not given
    max_episodes: int | None = None  # at most this many of them
    camera: str | None = None  # feature key or its last part; by default the third-person one
    instruction: str | None = None  # overrides the dataset's own tasks

    vlm: VlmConfig = field(default_factory=VlmConfig)

    sample_fps: float = 2.0  # images shown per second of the dataset's clock, Hz
    prefixes: Literal["every"] | int = "every"  # one per shown image, or K per segment (paper: 15)
    final_frame: bool = True  # also show the last frame, which the paper's schedule can miss
    max_images: int | None = None  # per segment, evenly thinned: long videos are shown larger
    max_pixels: int | None = None  # per image; the checkpoint's own budget if not given
    control: Literal["none", "static"] = "none"  # static: also score the first frame repeated
    engine: Literal["one-pass", "per-prefix"] = "one-pass"  # per-prefix: one slow forward each
    chunk_tokens: int | None = None  # tokens per forward: bounds memory, halved when it runs out

    normalize: Literal["episode", "task"] = "episode"  # task: episodes of one task compare
    scale: Literal["log-prob", "prob"] = "log-prob"  # what progress is made of; the paper: log-prob
    debias: Literal["none", "static"] = "none"  # static: progress beyond what time alone earns
    horizon: float = 1.0  # span of the advantage, seconds

    output: Path | None = None  # folder of the labelled dataset; <dataset>_topreward if not given
    in_place: bool = False  # write into --root itself
    link_videos: bool = False  # share videos with the source: tools that edit them change both
    overwrite: bool = False  # discard changes made in the labelled copy since it was written
    write: Literal["sidecar", "columns", "both"] = "both"  # what is made from the raw scores
    other_cameras: bool = True  # fetch from the Hub the videos that were not scored, too
    force: bool = False  # score anew what is already scored

    push_to_hub: bool = False  # upload data, meta, sidecar and dataset card
    hub_repo_id: str | None = None  # where to; the source itself, on --branch, if not given
    branch: str | None = None  # to push to; `topreward` in the source, main in another repository
    private: bool = False  # if the repository has to be made
    create_pr: bool = False  # open a pull request instead

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        for name in ("sample_fps", "horizon", "chunk_tokens", "max_pixels", "max_episodes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name.replace('_', '-')} must be > 0; got {value}")
        if self.max_images is not None and self.max_images < 2:
            raise UserError(
                f"--max-images must be at least 2, the first and the last; got {self.max_images}"
            )
        if isinstance(self.prefixes, int) and self.prefixes < 1:
            raise UserError(f"--prefixes must be 'every' or a number >= 1; got {self.prefixes}")
        if self.debias == "static" and self.scale == "prob":
            raise UserError(
                "--debias static subtracts log-probs, which --scale prob does not use; leave out "
                "one of them"
            )
        if self.in_place and (self.root is None or self.output is not None):
            raise UserError(
                "--in-place writes into the local --root, without --output; give --root"
            )
        if self.push_to_hub and self.write != "both":
            raise UserError(
                f"--push-to-hub uploads columns and sidecar; leave out --write {self.write}"
            )
        check_push(
            push_to_hub=self.push_to_hub,
            repo_id=self.repo_id,
            hub_repo_id=self.hub_repo_id,
            branch=self.branch,
            private=self.private,
            create_pr=self.create_pr,
        )

    @property
    def controls(self) -> tuple[str, ...]:
        """What is scored."""
        still = "static" in (self.control, self.debias)
        return ("none", "static") if still else ("none",)

    @property
    def prefix_count(self) -> int | None:
        """K, or None for every shown image."""
        return None if self.prefixes == "every" else int(self.prefixes)


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
    options = _read_yaml(path, _preset_file(path))
    if not set(options) & set(_SECTIONS):
        if section == "train":
            raise UserError(
                f"--config {path} must have a section 'train:' with the options of this command; "
                f"it has: {', '.join(options)}"
            )
        return _with_underscores(options)
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
    return _with_underscores(options[section])


def _preset_file(path: str) -> Path:
    file = Path(path).expanduser()
    if file.is_file():
        return file
    packaged = files("lerobot_topreward.configs")
    names = sorted(p.name.removesuffix(".yaml") for p in packaged.iterdir() if ".yaml" in p.name)
    if path not in names:
        raise UserError(f"--config '{path}' is no file, nor a preset; presets: {', '.join(names)}")
    return Path(str(packaged / f"{path}.yaml"))


def _read_yaml(path: str, file: Path) -> dict[str, Any]:
    try:
        options = yaml.load(file.read_text(encoding="utf-8"), Loader=_PresetLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"--config {path} cannot be read: {error.problem}{line}") from None
    except RecursionError:
        raise UserError(f"--config {path} cannot be read: it is nested too deep") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path} cannot be read: {reason}") from None
    if not _is_mapping(options):
        raise UserError(
            f"--config {path} must be a mapping of options, as 'name: value'; got "
            f"{shorten(options)}"
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


def _with_underscores(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in options.items()}


def option_types(config_class: Any) -> dict[str, Any]:
    """The types of a configuration's options by name, those of nested configurations among them."""
    types: dict[str, Any] = {}
    for item in fields(config_class):
        types |= option_types(item.type) if is_dataclass(item.type) else {item.name: item.type}
    return types


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
    choices = _alternatives(kind)
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


def _alternatives(kind: Any) -> list[Any]:
    """Take a type apart into plain types and the values of literals."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    parts = get_args(kind)
    return [inner for part in parts for inner in _alternatives(part)] if parts else [kind]


def with_options[C](config_class: type[C], options: Mapping[str, Any]) -> C:
    """Build a configuration from flat options that were checked.

    Raises:
        UserError: a value breaks a rule of the configuration.
    """
    values = {
        item.name: with_options(item.type, options)
        if isinstance(item.type, type) and is_dataclass(item.type)
        else options[item.name]
        for item in fields(config_class)  # pyright: ignore[reportArgumentType]
        if is_dataclass(item.type) or item.name in options
    }
    return config_class(**values)


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as plain values, to be saved beside what it made."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
    }
