"""Wrong command lines end with exit code 2 and one or two lines, before anything is loaded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from lerobot_topreward.check.config import CheckConfig
from lerobot_topreward.cli import main
from lerobot_topreward.config import option_types
from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.demo.config import DemoConfig
from lerobot_topreward.evaluate.config import EvaluateConfig
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.report.config import ReportConfig
from lerobot_topreward.serve_args.config import ServeArgsConfig
from lerobot_topreward.train.config import WeightingOptions
from lerobot_topreward.watch.config import WatchConfig

KIND = "wrong command lines"
Refused = Callable[..., str]

CONFIGS = {
    "label": LabelConfig,
    "watch": WatchConfig,
    "check": CheckConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "curate": CurateConfig,
    "serve-args": ServeArgsConfig,
    "demo": DemoConfig,
}


@dataclass(frozen=True, slots=True)
class Case:
    """A command line and the words that its message must have."""

    arguments: tuple[str, ...]
    expected: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(map(ascii, self.arguments))


def case(line: str, *expected: str) -> Case:
    """A case without spaces or empty values in its arguments."""
    return Case(tuple(line.split()), expected)


def every_option() -> Iterator[Case]:
    """What is wrong with any option of its type."""
    for command, config_class in CONFIGS.items():
        for name, kind in option_types(config_class).items():
            option = f"--{name.replace('_', '-')}"
            if kind is bool:
                rule = "is true or false" if "." in name else "takes no value"
                yield Case((command, f"{option}=yes"), (option, f"{rule}; got 'yes'"))
                yield Case((command, option, option), (option, "is given twice"))
                continue
            yield Case((command, option), (option, "needs a value"))
            yield Case((command, option, ""), (option, "is empty"))
            yield from wrong_values(command, option, kind)


def wrong_values(command: str, option: str, kind: Any) -> Iterator[Case]:
    kinds = set(get_args(kind)) or {kind}
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if float in kinds:
        for value in ("two", "nan", "inf", "1e400"):
            yield Case((command, option, value), (f"{option} must be", "a finite number", value))
    elif int in kinds:
        for value in ("1.5", "nan", "-inf"):
            yield Case((command, option, value), (f"{option} must be", "a whole number", value))
    elif choices:
        yield Case((command, option, "somehow"), (f"{option} must be", "got 'somehow'"))
        longest = max(choices, key=len)
        yield Case((command, option, f"{longest}s".upper()), (f"Did you mean {longest}?",))
    else:
        yield Case((command, option, "a\0b"), (f"{option} must be", "got"))


LINES = [
    # commands
    case("lable", "there is no command 'lable'; did you mean label?"),
    case("Train", "did you mean train?"),
    case(
        "fly",
        "commands: label, watch, check, compare, evaluate, report, curate, train, serve-args, demo",
    ),
    case("--root x", "there is no command '--root'"),
    # options that do not exist
    case("label --camra front", "--camra is no option; did you mean --camera?"),
    case("label --camera=front --episdoes 3", "--episdoes is no option; did you mean --episodes?"),
    case("label --Camera front", "--Camera is no option; did you mean --camera?"),
    case("label --dataset.repoid x", "is no option"),
    case("label --dataset.root x --root y", "are the same; leave one of them out"),
    case("label --repo_idd x", "did you mean --repo-id?"),
    case("label --no-output", "--no-output is no option; did you mean"),
    case("label --push", "--push is no option"),
    case("label --push-to-hubb", "did you mean --push-to-hub?"),
    case("label --quantise 4bit", "did you mean --quantize?"),
    case("label --max-episode 3", "did you mean --max-episodes?"),
    case("label --normalise task", "did you mean --normalize?"),
    case("label -camera front", "-camera is no option; did you mean --camera?"),
    case("label -r x", "-r is no option"),
    case("label --=x", "is no option"),
    case("label --verbos", "is no option"),
    case("check --vidoe", "--vidoe is no option; did you mean --video?"),
    case("check --fail_onn note", "did you mean --fail-on?"),
    case("check --chunk 100", "--chunk is no option"),
    case("check --vlm x", "--vlm is no option"),
    case("check --output x", "--output is no option"),
    case("evaluate --control static", "--control is no option; did you mean --controls?"),
    case("evaluate --succes-file x.csv", "did you mean --success-file?"),
    case("evaluate --jsn", "did you mean --json?"),
    case("report --video none", "did you mean --videos?"),
    case("report --max-mbs 3", "did you mean --max-mb?"),
    case("report --min-sucess -1", "did you mean --min-success?"),
    case("curate --min-vox 0", "did you mean --min-voc?"),
    case("curate --keep-topp 0.5", "did you mean --keep-top?"),
    case("curate --dryrun", "did you mean --dry-run?"),
    case("curate --unlabeled keep", "did you mean --unlabelled?"),
    case("demo --ouptut x", "did you mean --output?"),
    case("demo --root x", "--root is no option"),
    # what belongs to no option
    case("label front", "'front' belongs to no option"),
    case("label --root data more", "'more' belongs to no option"),
    case("label --push-to-hub true", "'true' belongs to no option"),
    case("label - --root x", "'-' belongs to no option"),
    case("label -- --root x", "'--' belongs to no option"),
    case("check all", "'all' belongs to no option"),
    case("check --video true", "'true' belongs to no option"),
    case("evaluate static", "'static' belongs to no option"),
    case("report out.html", "'out.html' belongs to no option"),
    case("curate all", "'all' belongs to no option"),
    case("demo there", "'there' belongs to no option"),
    Case(("label", ""), ("'' belongs to no option",)),
    # values that are missing, or options twice
    case("label --camera --episodes 3", "--camera needs a value"),
    case("label --root --force", "--root needs a value"),
    case("label --camera front --camera wrist", "--camera is given twice"),
    case("label --sample-fps 2 --sample_fps 3", "is given twice"),
    case("label --force --no-force", "--no-force is given twice"),
    case("evaluate --json --json", "--json is given twice"),
    case("report --title a --title b", "--title is given twice"),
    case("curate --min-voc 0 --min-voc 0.1", "--min-voc is given twice"),
    # numbers out of range
    *(
        case(f"label --{name} {value}", f"--{name} must be > 0; got")
        for name in ("sample-fps", "horizon", "chunk-tokens", "max-pixels", "max-episodes")
        for value in ("0", "-1", "-0")
    ),
    case("label --prefixes 0", "--prefixes must be 'every' or a number >= 1; got 0"),
    case("label --prefixes -3", "--prefixes must be 'every' or a number >= 1; got -3"),
    case("label --prefixes every,15", "must be every or a whole number; got 'every,15'"),
    case("label --prefixes evry", "Did you mean every?"),
    case("label --horizon 1s", "--horizon must be a finite number; got '1s'"),
    case("label --horizon 1,5", "--horizon must be a finite number; got '1,5'"),
    case("label --max-episodes 1e3", "--max-episodes must be a whole number; got '1e3'"),
    case("label --max-episodes 0x10", "--max-episodes must be a whole number"),
    case("evaluate --control-episodes 0", "--control-episodes must be at least 1; got 0"),
    case("evaluate --control-episodes -5", "--control-episodes must be at least 1; got -5"),
    case("report --max-mb 0", "--max-mb must be > 0; got 0"),
    case("report --max-mb -3", "--max-mb must be > 0; got -3"),
    *(
        case(f"{command} --{name} {value}", f"--{name} must be", "got")
        for command in ("curate", "report")
        for name, value in (
            ("min-final-progress", "1.5"),
            ("min-final-progress", "-0.1"),
            ("min-success", "0.5"),
            ("min-voc", "1.01"),
            ("min-voc", "-2"),
            ("keep-top", "1.5"),
            ("keep-top", "-0.1"),
            ("keep-top", "0"),
            ("keep-top", "50%"),
            ("max-stall", "-1"),
            ("max-regress", "2"),
            ("outliers", "0"),
            ("outliers", "-3.5"),
        )
    ),
    *(
        case(f"check --{name} {value}", f"--{name} must be", "got")
        for name, value in (
            ("chunk-size", "0"),
            ("chunk-size", "-100"),
            ("sample-fps", "0"),
            ("sample-fps", "-4"),
            ("sample-fps", "1e9"),
            ("min-luminance", "-1"),
            ("max-luminance", "256"),
            ("min-contrast", "300"),
            ("max-white", "1.1"),
            ("max-white", "-0.1"),
            ("min-sharpness", "2"),
            ("frozen-seconds", "0"),
            ("frozen-seconds", "-1"),
            ("frozen-change", "-2"),
            ("fail-on", "Broken"),
            ("fail-on", "clean"),
        )
    ),
    case("curate --trim-margin -1", "--trim-margin must be at least 0 s; got -1"),
    # options that contradict each other, or come to nothing
    case("label --in-place", "--in-place writes into the local --root"),
    case("label --in-place --root x --output y", "--in-place writes into the local --root"),
    case("label --in-place --repo-id a/b", "--in-place writes into the local --root"),
    case("check --camera front", "--camera is for --video"),
    case("check --chunk-size 9 --policy-path x", "leave out --chunk-size"),
    case("check --root x --policy-path nowhere", "--policy-path nowhere must be the folder"),
    case("check --root x --revision main", "--revision chooses among versions on the Hub"),
    case("check --video --sample-fps 1", "needs a --sample-fps of at least 2; got 1"),
    case("check --video --frozen-seconds 0.1", "needs a --sample-fps of at least 10; got 4"),
    case("check --repo-id a//b", "repo"),
    case("check --repo-id ../b", "repo"),
    case("label --debias static --scale prob", "--debias static subtracts log-probs"),
    case("label --root x --push-to-hub", "--push-to-hub needs --hub-repo-id OWNER/NAME"),
    case("label --repo-id a/b --push-to-hub --write sidecar", "leave out --write sidecar"),
    case("label --repo-id a/b --push-to-hub --write columns", "leave out --write columns"),
    case("curate --auto --min-success -1", "--auto chooses --min-success"),
    case("curate --trim", "--trim works on the new dataset; name its folder with --output"),
    case("curate --repo-id a/b --push-to-hub", "--push-to-hub works on the new dataset"),
    case("evaluate --swapped-instruction x", "--swapped-instruction needs --controls swapped"),
    case("evaluate --controls sttic", "--controls 'sttic' is not known", "did you mean static?"),
    case("evaluate --controls static,fast", "--controls 'fast' is not known; it takes: static"),
    case("report --output page.pdf", "--output must be named *.html; got page.pdf"),
    case("report --output page", "--output must be named *.html; got page"),
    case("report --rerun x.rdd", "--rerun must be named *.rrd; got x.rdd"),
    *(
        case(f"{command} --repo-id a/b --output o {options}", *expected)
        for command in ("label", "curate")
        for options, *expected in (
            ("--create-pr", "--create-pr is for --push-to-hub"),
            ("--branch x", "--branch is for --push-to-hub"),
            ("--private", "--private is for --push-to-hub"),
            ("--hub-repo-id c/d", "--hub-repo-id is for --push-to-hub"),
            ("--push-to-hub --create-pr --branch x", "--create-pr opens a pull request against"),
            ("--push-to-hub --create-pr --private", "leave out one of them"),
            ("--push-to-hub --branch v3.0", "--branch must not look like a version; got 'v3.0'"),
            ("--push-to-hub --branch 1.2.3", "--branch must not look like a version"),
            *(
                (f"--push-to-hub --branch={branch}", "--branch must be a name that git takes")
                for branch in ("a..b", "a~1", "x:y", "-x", "/x", "x/", "x.lock", "x.", "a//b")
            ),
            ("--push-to-hub --branch refs/pr/1", "--branch must be a name that git takes"),
            ("--push-to-hub --branch @", "--branch must be a name that git takes"),
            ("--push-to-hub --branch=.x", "--branch must be a name that git takes"),
            *(
                (f"--push-to-hub --hub-repo-id {name}", "--hub-repo-id must look like OWNER/NAME")
                for name in ("name", "a/b/c", "a//b", "-a/b", "a/b.git", "a/b--c", "a/b%20", "/b")
            ),
        )
    ),
    Case(
        ("label", "--repo-id", "a/b", "--push-to-hub", "--branch", "my branch"),
        ("--branch must be a name that git takes",),
    ),
    # presets
    case("label --config", "--config needs a YAML file or the name of a preset"),
    case("label --config=", "--config needs a YAML file"),
    case("label --config --root", "--config needs a YAML file"),
    case("label --config papr", "--config 'papr' is no file, nor a preset; presets:"),
    case("label --config .", "--config '.' is no file, nor a preset"),
    case("label --config paper --config paper", "--config is given twice"),
    case("label --config act_so101", "has no section 'label'; it is for: train"),
    case("curate --config paper", "has no section 'curate'; it is for: label, train"),
    case("demo --config /dev/null/x", "is no file, nor a preset"),
    # train
    case("train --weighting.betta=1", "--weighting.betta is no option; did you mean --weighting."),
    case("train --weightings.beta=1", "did you mean --weighting.beta?"),
    case("train --weighting=awr", "did you mean --weighting.scheme?"),
    case("train --weighting.beta", "--weighting.beta needs a value"),
    case("train --weighting.beta --steps=3", "--weighting.beta needs a value"),
    case("train --weighting.beta=1 --weighting.beta=2", "--weighting.beta is given twice"),
    case("train --dry-run=perhaps", "--dry-run is true or false; got perhaps"),
    case("train --config papr", "presets: act_so101, diffusion_so101, laptop, paper"),
    case("train --config", "--config needs a YAML file"),
    *(
        Case(("train", f"--weighting.{name}={value}"), (f"--weighting.{name}", word))
        for name, kind in option_types(WeightingOptions).items()
        for value, word in (
            ("", "is empty"),
            *(
                (("two", "must be"), ("nan", "must be"), ("inf", "must be"))
                if float in (kind, *get_args(kind))
                else (("some\0how", "must be"),)
            ),
        )
    ),
]
CASES = [*LINES, *every_option()]


@pytest.fixture
def refused(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Refused:
    """Run a command in an empty folder, see that it refuses properly, and return what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        said = capfd.readouterr()
        assert stopped.value.code == 2, said
        assert said.out == ""
        assert len(said.err.splitlines()) <= 2, said.err
        assert said.err.startswith("error: ")
        assert "Traceback" not in said.err
        assert not set("╭│╰") & set(said.err)
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return run


def test_there_are_enough_cases() -> None:
    assert len({each.arguments for each in CASES}) >= 240


@pytest.mark.parametrize("each", CASES, ids=str)
def test_a_wrong_command_line_is_refused(refused: Refused, each: Case) -> None:
    said = refused(*each.arguments)
    for words in each.expected:
        assert words in said


@pytest.mark.parametrize("command", ["label", "check", "evaluate", "report", "curate"])
@pytest.mark.parametrize("root", ["nowhere", "notes.txt", "empty", "\x1b[2J"], ids=ascii)
def test_a_root_that_is_no_dataset(
    refused: Refused, tmp_path: Path, command: str, root: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    said = refused(command, "--root", root)
    assert "--root" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("command", ["label", "check", "evaluate", "report", "curate"])
def test_no_dataset_at_all(refused: Refused, command: str) -> None:
    assert "--repo-id" in refused(command)
