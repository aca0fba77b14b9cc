"""The configuration of a command: a frozen dataclass, from presets and from the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmConfig

_SECTIONS = ("label", "evaluate", "report", "curate", "train", "demo")  # of a preset, by command
_PATHS = {"root", "output", "labels", "success_file", "decisions", "episodes_file", "rerun"}


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

    vlm: Annotated[VlmConfig, tyro.conf.arg(name="")] = field(default_factory=VlmConfig)

    sample_fps: float = 2.0  # images shown per second of the dataset's clock, Hz
    prefixes: Literal["every"] | int = "every"  # one per shown image, or K per segment (paper: 15)
    final_frame: bool = True  # also show the last frame, which the paper's schedule can miss
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
        if self.push_to_hub and self.repo_id is None and self.hub_repo_id is None:
            raise UserError("--push-to-hub needs --hub-repo-id OWNER/NAME for a local --root")

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
        UserError: it has no value.
    """
    rest, preset = [], None
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--config":
            preset = next(waiting, None)
            if preset is None:
                raise UserError("--config needs a YAML file or the name of a preset")
        elif argument.startswith("--config="):
            preset = argument.removeprefix("--config=")
        else:
            rest.append(argument)
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
        options = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} cannot be read: {error}") from None
    if not _is_mapping(options):
        raise UserError(
            f"--config {path} must be a mapping of options; got {type(options).__name__}"
        )
    return options


def _is_mapping(options: Any) -> bool:
    return isinstance(options, Mapping) and all(isinstance(key, str) for key in options)


def _with_underscores(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in options.items()}


def with_options[C](config_class: type[C], options: Mapping[str, Any]) -> C:
    """Build a configuration from flat options, those of nested configurations among them.

    Raises:
        UserError: an option does not exist, with a suggestion; or its value breaks a rule.
    """
    remaining = dict(options)
    values: dict[str, Any] = {}
    known: list[str] = []
    for item in fields(config_class):  # pyright: ignore[reportArgumentType]
        factory = item.default_factory
        if factory is not MISSING and is_dataclass(nested := factory):
            names = [nested_field.name for nested_field in fields(nested)]
            known += names
            inner = {name: remaining.pop(name) for name in names if name in remaining}
            values[item.name] = nested(**inner)  # pyright: ignore[reportCallIssue]
            continue
        known.append(item.name)
        if item.name in remaining:
            values[item.name] = remaining.pop(item.name)
    for name in remaining:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"--config: there is no option '{name}'{hint}")
    for name in _PATHS & values.keys():
        if isinstance(values[name], str):
            values[name] = Path(values[name])
    return config_class(**values)


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as plain values, to be saved beside what it made."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
    }
