"""The command line: thin, one function per command."""

import os
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, get_origin

from lerobot_topreward.config import (
    check_options,
    load_preset,
    option_types,
    refuse_unknown,
    take_config,
    with_options,
)
from lerobot_topreward.console import INTERRUPTED, make_console, quiet_libraries
from lerobot_topreward.errors import UserError
from lerobot_topreward.lerobot_features import require_lerobot
from lerobot_topreward.priority import keep_normal_priority

_DATASET = "--repo-id OWNER/NAME or --root FOLDER"
# How our commands name a dataset, and how LeRobot's do; every command takes both.
_LEROBOT_NAMES = {
    "--repo-id": "--dataset.repo_id",
    "--repo_id": "--dataset.repo_id",
    "--root": "--dataset.root",
    "--revision": "--dataset.revision",
}
_OUR_NAMES = {lerobot: ours for ours, lerobot in _LEROBOT_NAMES.items() if "_" not in ours}


class Command(NamedTuple):
    """What the help says of a command; its configuration and function are named after it."""

    purpose: str
    most_used: Mapping[str, str]  # option -> what it does, shown above the list of all options


COMMANDS = {
    "label": Command(
        "label a dataset with per-frame task progress and advantage",
        {
            _DATASET: "what to label",
            "--vlm FOLDER": "a Qwen3-VL checkpoint, or its name on the Hub",
            "--server URL": "ask a server that runs it; started with what serve-args prints",
            "--workers auto": "one process per GPU; --launch slurm or ray: a cluster; --job.target: a rented GPU",
            "--normalize task": "episodes of one task compare: for curating and filtering",
            "--output FOLDER": "where the labeled copy goes; OWNER/NAME_topreward if not given",
            "--push-to-hub": "upload it",
        },
    ),
    "watch": Command(
        "score a dataset while it is being recorded, and say which episodes to record again",
        {
            _DATASET: "what lerobot-record is writing",
            "--vlm FOLDER": "a Qwen3-VL checkpoint, or its name on the Hub",
            "--server URL": "ask a server that runs it; started with what serve-args prints",
            "--reference FOLDER": "a labeled dataset that says where good begins",
            "--min-success -1.5": "or the success score from which on an episode is good",
            "--sound": "ring the terminal's bell: once for good, three times for bad",
        },
    ),
    "check": Command(
        "say what is wrong with a recording: no VLM, no GPU, seconds",
        {
            _DATASET: "what to check",
            "--video": "also look at the pictures",
            "--chunk-size 100": "name the episodes that are shorter than a policy's chunk",
            "--fail-on suspect": "exit with 3 for less than broken episodes, too",
            "--json": "everything, for a program",
        },
    ),
    "compare": Command(
        "compare judges on a sample of a dataset, and say which one to label it with",
        {
            _DATASET: "what to label later; it needs no labels now",
            "--judges A B": "checkpoints, NAME@URL of a server, or TYPE=PATH of a reward model",
            "--sample 10": "how many episodes",
            "--success-file FILE": "which episodes succeeded, as a CSV episode_index,success",
            "--output FOLDER": "where label will write; OWNER/NAME_topreward if not given",
            "--json": "everything, for a program",
        },
    ),
    "evaluate": Command(
        "say how far the rewards of a labeled dataset can be believed",
        {
            _DATASET: "what was labeled",
            "--success-file FILE": "which episodes succeeded, as a CSV episode_index,success",
            "--controls static,reversed,swapped": "compare with videos that must score low",
            "--baseline gvl": "compare with asking for percentages of shuffled frames",
            "--policies A B": "instead: compare policies by their eval_info.json; or --trials 17/20 12/20",
            "--json": "everything, for a program",
        },
    ),
    "report": Command(
        "make one HTML page with every episode, its curve and its verdict",
        {
            _DATASET: "what was labeled",
            "--output FILE": "the page; report.html if not given",
            "--videos none": "a page without pictures, in a second",
            "--success-file FILE": "which episodes succeeded, as a CSV episode_index,success",
            "--rerun FILE": "also a recording for the Rerun viewer",
        },
    ),
    "curate": Command(
        "find bad demonstrations, and make a dataset without them",
        {
            _DATASET: "what was labeled",
            "--min-final-progress 0.8": "drop episodes that end lower: the rule if none is named",
            "--decisions FILE": "what you marked in the report, which overrides every rule",
            "--output FOLDER": "the new dataset; without it, nothing is written",
            "--trim": "cut idle ends of episodes in it",
        },
    ),
    "train": Command(
        "train a LeRobot policy on a labeled dataset, its frames weighted by their rewards",
        {
            "--dataset.repo_id=OWNER/NAME": "what was labeled; with --dataset.root=FOLDER, a folder",
            "--config act_so101": "a policy and how to train it; or --policy.type=act",
            "--weighting.scheme=awr": "how frames are weighted, with the options below",
            "--dry_run": "show what the weights will do, and start nothing",
            "--output_dir=FOLDER": "where checkpoints go",
        },
    ),
    "serve-args": Command(
        "print the command that starts a vLLM server for label --server",
        {
            "--vlm NAME": "what it serves: a Hub id, or a folder on the server",
            "--server-video images": "for a model that is no Qwen3-VL",
            "--dtype float32": "of the weights; the checkpoint's own if not given",
        },
    ),
    "demo": Command("label the bundled SO-101 episodes with the bundled VLM", {}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``lerobot-topreward`` and exit: 0 done, 1 some episodes failed, 2 a user's mistake."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    keep_normal_priority()
    errors = make_console(stderr=True)
    quiet_libraries(verbose="--verbose" in arguments)
    arguments = [argument for argument in arguments if argument != "--verbose"]
    try:
        code = _dispatch(arguments)
    except UserError as error:
        errors.print(f"error: {error}", style="red")
        code = 2
    except KeyboardInterrupt:
        errors.print("stopped; run the same command again to go on from here")
        code = INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    name, options = (arguments or ["--help"])[0], arguments[1:]
    if name in COMMANDS:
        return _run(name, options)
    out = make_console()
    if name in ("-h", "--help"):
        out.print("usage: lerobot-topreward COMMAND [OPTIONS]\n")
        for command, (purpose, _) in COMMANDS.items():
            out.print(f"  {command:<10} {purpose}")
        out.print(
            "\nlerobot-topreward COMMAND --help shows the options of a command;"
            "\n--verbose shows what other libraries say, too"
        )
    elif name == "--version":
        from lerobot_topreward import __version__

        out.print(__version__)
    else:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(COMMANDS)}"
        raise UserError(f"there is no command '{name}'; {hint}")
    return 0


def _run(name: str, options: list[str]) -> int:
    """Import a command only when it is run, and LeRobot and torch only once its options are right."""
    function = name.replace("-", "_")
    package = f"lerobot_topreward.{function}"
    if name == "train":  # reads LeRobot's options, too
        if {"-h", "--help"} & {*options}:
            _print_most_used(name)
        else:
            require_lerobot()
        options = _rename_options(options, _LEROBOT_NAMES)
        return import_module(f"{package}.command").train(options, console=make_console())
    class_name = f"{name.title().replace('-', '')}Config"
    config_class = getattr(import_module(f"{package}.config"), class_name)
    if "repo_id" in option_types(config_class):
        options = _rename_options(options, _OUR_NAMES)
    config = parse(config_class, name, options)
    if name == "evaluate" and config.compares_policies:  # needs neither LeRobot nor torch
        policies = import_module(f"{package}.policies")
        return policies.compare_policies(config, console=make_console())
    require_lerobot()
    return getattr(import_module(f"{package}.command"), function)(config, console=make_console())


def _rename_options(arguments: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Replace options that another command's users know by the name that this command reads.

    Raises:
        UserError: an option is given by both names.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    for known in given & {*names}:
        if names[known] in given:
            raise UserError(f"{known} and {names[known]} are the same; leave one of them out")
    renamed = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        renamed.append(f"{names.get(option, option)}{equals}{value}")
    return renamed


def _print_most_used(command: str) -> None:
    if most_used := COMMANDS[command].most_used:
        lines = [f"  {option:<40} {effect}" for option, effect in most_used.items()]
        make_console().print("\n".join(["most used:", *lines, ""]))


def parse[C](config_class: type[C], command: str, arguments: Sequence[str]) -> C:
    """Read a command's options: its defaults, then ``--config``, then the command line.

    Raises:
        UserError: an option does not exist, or a value breaks a rule.
        SystemExit: help was printed.
    """
    given, preset = take_config(arguments)
    options: dict[str, Any] = {}
    if preset is not None:
        found = load_preset(preset, section=command)
        options = check_options(config_class, found, where=f"--config {preset}: ")
    if {"-h", "--help"} & {*given}:
        import tyro

        _print_most_used(command)
        tyro.cli(
            config_class,
            prog=f"lerobot-topreward {command}",
            args=["--help"],
            default=with_options(config_class, options),
            config=(tyro.conf.OmitArgPrefixes,),
        )
    options |= check_options(config_class, _split(config_class, given), where="--", text=True)
    return with_options(config_class, options)


def _split(config_class: type, arguments: Sequence[str]) -> dict[str, str | list[str]]:
    """Read ``--name VALUE``, ``--name=VALUE``, ``--flag`` and ``--no-flag``, not yet checked.

    An option of several values takes all that come before the next option: ``--name A B``.
    """
    types = option_types(config_class)
    options: dict[str, str | list[str]] = {}
    waiting = deque(arguments)
    while waiting:
        argument = waiting.popleft()
        if not argument.startswith("-") or set(argument) == {"-"}:
            raise UserError(f"{argument!r} belongs to no option; options look like --name VALUE")
        option, equals, value = argument.partition("=")
        name = option.lstrip("-").replace("-", "_")
        positive = re.sub(r"(^|\.)no_", r"\1", name)
        is_flag = types.get(positive) is bool
        refuse_unknown(positive if is_flag else name, types, where="--")
        if not argument.startswith("--"):
            raise UserError(f"{option} is no option; did you mean -{option}?")
        if (positive if is_flag else name) in options:
            raise UserError(f"{option} is given twice; leave one of them out")
        if is_flag:
            given = str(name == positive).lower()
            if equals and "." in option and name == positive:  # one of LeRobot's, spelled its way
                given = value.lower()
                if given not in ("true", "false"):
                    raise UserError(f"{option} is true or false; got {value!r}")
            elif equals:
                raise UserError(f"{option} takes no value; got {value!r}")
            options[positive] = given
            continue
        value = value if equals else waiting.popleft() if waiting else None
        if value is None or (not equals and value.startswith("--")):
            raise UserError(f"{option} needs a value, as in {option} VALUE")
        options[name] = value
        if get_origin(types[name]) is tuple:
            options[name] = values = [value]
            while waiting and not waiting[0].startswith("-"):
                values.append(waiting.popleft())
    return options
