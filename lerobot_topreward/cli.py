"""The command line: thin, one function per command."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from lerobot_topreward.config import (
    check_options,
    load_preset,
    option_types,
    refuse_unknown,
    take_config,
    with_options,
)
from lerobot_topreward.console import make_console, quiet_libraries
from lerobot_topreward.errors import UserError
from lerobot_topreward.label.config import LabelConfig

INTERRUPTED = 130  # as shells report Ctrl-C

_COMMANDS = {
    "label": "label a dataset with per-frame task progress and advantage",
    "evaluate": "say how far the rewards of a labelled dataset can be believed",
    "report": "make one HTML page with every episode, its curve and its verdict",
    "curate": "find bad demonstrations, and make a dataset without them",
    "train": "train a LeRobot policy on a labelled dataset, its frames weighted by their rewards",
    "demo": "label the bundled SO-101 episodes with the bundled VLM",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``lerobot-topreward`` and exit: 0 done, 1 some episodes failed, 2 a user's mistake."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
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
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["label"]:
        return _label(parse(LabelConfig, "label", arguments[1:]))
    if arguments[:1] == ["train"]:
        from lerobot_topreward.train.command import train

        return train(arguments[1:], console=make_console())
    if arguments[:1] == ["evaluate"]:
        from lerobot_topreward.evaluate.config import EvaluateConfig

        config = parse(EvaluateConfig, "evaluate", arguments[1:])
        from lerobot_topreward.evaluate.command import evaluate

        return evaluate(config, console=make_console())
    if arguments[:1] == ["report"]:
        from lerobot_topreward.report.config import ReportConfig

        config = parse(ReportConfig, "report", arguments[1:])
        from lerobot_topreward.report.command import report

        return report(config, console=make_console())
    if arguments[:1] == ["curate"]:
        from lerobot_topreward.curate.config import CurateConfig

        config = parse(CurateConfig, "curate", arguments[1:])
        from lerobot_topreward.curate.command import curate

        return curate(config, console=make_console())
    if arguments[:1] == ["demo"]:
        from lerobot_topreward.demo.config import DemoConfig

        config = parse(DemoConfig, "demo", arguments[1:])
        from lerobot_topreward.demo.command import demo

        return demo(config, console=make_console())
    out = make_console()
    if arguments[:1] in ([], ["-h"], ["--help"]):
        out.print("usage: lerobot-topreward COMMAND [OPTIONS]\n")
        for name, what in _COMMANDS.items():
            out.print(f"  {name:<8} {what}")
        out.print(
            "\nlerobot-topreward COMMAND --help shows the options of a command;\n--verbose shows what other libraries say, too"
        )
        return 0
    if arguments[0] == "--version":
        from lerobot_topreward import __version__

        out.print(__version__)
        return 0
    close = get_close_matches(arguments[0], _COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(_COMMANDS)}"
    raise UserError(f"there is no command '{arguments[0]}'; {hint}")


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

        tyro.cli(
            config_class,
            prog=f"lerobot-topreward {command}",
            args=["--help"],
            default=with_options(config_class, options),
            config=(tyro.conf.OmitArgPrefixes,),
        )
    options |= check_options(config_class, _split(config_class, given), where="--", text=True)
    return with_options(config_class, options)


def _split(config_class: type, arguments: Sequence[str]) -> dict[str, str]:
    """Read ``--name VALUE``, ``--name=VALUE``, ``--flag`` and ``--no-flag``, not yet checked."""
    types = option_types(config_class)
    options: dict[str, str] = {}
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("-") or set(argument) == {"-"}:
            raise UserError(f"{argument!r} belongs to no option; options look like --name VALUE")
        option, equals, value = argument.partition("=")
        name = option.lstrip("-").replace("-", "_")
        positive = name.removeprefix("no_")
        is_flag = types.get(positive) is bool
        refuse_unknown(positive if is_flag else name, types, where="--")
        if not argument.startswith("--"):
            raise UserError(f"{option} is no option; did you mean -{option}?")
        if (positive if is_flag else name) in options:
            raise UserError(f"{option} is given twice; leave one of them out")
        if is_flag:
            if equals:
                raise UserError(f"{option} takes no value; got {value!r}")
            options[positive] = str(name == positive).lower()
            continue
        value = value if equals else next(waiting, None)
        if value is None or (not equals and value.startswith("--")):
            raise UserError(f"{option} needs a value, as in {option} VALUE")
        options[name] = value
    return options


def _label(config: LabelConfig) -> int:
    from lerobot_topreward.judging.metrics import rise_in_words
    from lerobot_topreward.label.command import failure_lines, label

    out = make_console()
    result = label(config, console=out)
    if result.interrupted:
        out.print(
            f"stopped: {result.labelled} episodes are scored and kept; "
            "run the same command again to go on"
        )
        return INTERRUPTED
    out.print(f"episodes labelled    {result.labelled}")
    out.print(f"of these scored now  {result.scored}")
    out.print(f"failed               {len(result.failed)}")
    out.print(f"seconds              {result.seconds:.1f}")
    if result.labelled:
        what = "sidecar" if config.write == "sidecar" else "dataset"
        out.print(f"{what:<20} {result.output}")
    else:
        out.print("no episode has a reward, so no dataset was written")
    out.print(f"raw scores           {result.store.folder}")
    if result.pushed is not None:
        state = "unchanged" if result.pushed.unchanged else f"{result.pushed.uploaded} files"
        out.print(f"pushed               {result.pushed.url} ({state})")
    if (static := result.static) is not None:
        out.print(
            f"static control       VOC {static.static_voc:.2f} against {static.real_voc:.2f} of the "
            f"real videos; {rise_in_words(static.share)}"
        )
    for line in failure_lines(result.failed):
        out.print(line, style="yellow")
    return 1 if result.failed else 0
