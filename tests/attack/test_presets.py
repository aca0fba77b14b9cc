"""Presets with a wrong type for every option of every command, and files that are no presets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from lerobot_topreward.check.config import CheckConfig
from lerobot_topreward.cli import main
from lerobot_topreward.config import check_options, flat_options, option_types, with_options
from lerobot_topreward.curate.config import CurateConfig
from lerobot_topreward.demo.config import DemoConfig
from lerobot_topreward.evaluate.config import EvaluateConfig
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.report.config import ReportConfig
from lerobot_topreward.train.config import (
    WeightingConfig,
    WeightingOptions,
    as_params,
    from_params,
)
from lerobot_topreward.watch.config import WatchConfig

KIND = "presets"
Refused = Callable[..., str]

CONFIGS: Mapping[str, Any] = {
    "label": LabelConfig,
    "watch": WatchConfig,
    "check": CheckConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "curate": CurateConfig,
    "demo": DemoConfig,
    "train": WeightingOptions,
}
# As YAML, by the type of the option. A preset's text is never a number, and `no` in quotes no bool.
WRONG: Mapping[Any, tuple[str, ...]] = {
    bool: ("'no'", "'true'", "1", "0", "null", "[true]"),
    int: ("true", "'2'", "1.5", ".nan", "[2]", "2026-11-24"),
    float: ("true", "'2'", ".nan", "-.inf", "1e400", "{a: 1}"),
    str: ("5", "true", "1.0", "2026-11-24", "[a]", "{a: b}", "''", '"a\\0b"'),
    Path: ("5", "false", "2026-11-24", "[a]", "{a: b}", "''", '"a\\0b"'),
    Literal: ("5", "true", "[none]", "somehow", "''"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A preset for a command and the words that its message must have."""

    command: str
    text: str
    expected: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} {self.text[:60]!a}"


def every_option() -> Iterator[Case]:
    for command, config_class in CONFIGS.items():
        for name, kind in option_types(config_class).items():
            parts = set(get_args(kind)) or {kind}
            literal = get_origin(kind) is Literal or any(get_origin(p) is Literal for p in parts)
            plain = next((one for one in WRONG if one in parts), Literal)
            for value in (*WRONG[plain], *(WRONG[Literal][2:4] if literal else ())):
                option = (
                    f"{{weighting: {{{name}: {value}}}}}"
                    if command == "train"
                    else (f"{{{name}: {value}}}")
                )
                yield Case(command, f"{command}: {option}\n", (name,))


BOMB = "a: &a [x, x, x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(20)
)
FILES = [
    Case("label", "normalize: Task", ("normalize must be episode or task; got 'Task'. Did you",)),
    Case(
        "label",
        "control: everything",
        ("control must be none, static, blank, contrast or all; got 'everything'",),
    ),
    Case("label", "vlm: 5", ("vlm must be text; got 5; put it in quotes",)),
    Case("label", 'sample_fps: "2"', ("sample_fps must be a finite number; got '2'",)),
    Case("label", "sample-fps: 0", ("--sample-fps must be > 0; got 0",)),
    Case("label", "episodes: 1:10", ("episodes must be text; got 70; put it in quotes",)),
    Case("label", "horizn: 2", ("horizn is no option; did you mean horizon?",)),
    Case("label", "horizon: 1\nhorizon: 2", ("'horizon' stands there twice in line 2",)),
    Case("label", BOMB, ("aliases are not supported in line 2",)),
    Case("label", "a: &a {<<: *a}", ("aliases are not supported",)),
    Case("label", f"camera: {'[' * 5000}", ("cannot be read",)),
    Case("label", f"camera: {'{a: ' * 3000}1{'}' * 3000}", ("nested too deep",)),
    Case("label", f"max_episodes: {'9' * 5000}", ("cannot be read",)),
    Case("label", f"max_episodes: '{'9' * 50000}'", ("max_episodes must be a whole number",)),
    Case("label", "5: 6", ("must be a mapping of options",)),
    Case("label", "true: x", ("must be a mapping of options",)),
    Case("label", "2026-11-24: x", ("must be a mapping of options",)),
    Case("label", "revision: 2026-13-45", ("cannot be read: month must be in 1..12",)),
    Case("label", "? [a, b]\n: c", ("cannot be read", "unhashable")),
    Case("label", "", ("must be a mapping of options", "got None")),
    Case("label", "- horizon", ("must be a mapping of options",)),
    Case("label", "horizon", ("must be a mapping of options", "got 'horizon'")),
    Case("label", "horizon: [1", ("cannot be read", "in line")),
    Case("label", "horizon: 1\n  camera: x", ("cannot be read", "in line 2")),
    Case("label", "\thorizon: 1", ("cannot be read", "in line 1")),
    Case("label", "a: 1\n---\nb: 2", ("cannot be read", "in line 2")),
    Case("label", "camera: !!python/object/apply:os.system [id]", ("could not determine",)),
    Case("label", "camera: !x y", ("could not determine a constructor",)),
    Case("label", "camera: \x1b[2J", ("cannot be read",)),
    Case("label", "camera: \x00", ("cannot be read",)),
    Case("label", "camera: '\\u202e'\ncamra: x", ("camra is no option",)),
    Case("label", "label:", ("section 'label' must be a mapping of options",)),
    Case("label", "label: 5", ("section 'label' must be a mapping of options",)),
    Case("label", "label: {5: 6}", ("section 'label' must be a mapping of options",)),
    Case("label", "label: {}\nhorizon: 1", ("there can be no options; got horizon",)),
    Case("curate", "label: {}", ("has no section 'curate'; it is for: label",)),
    Case("label", "branch: v3.0\npush_to_hub: true\nrepo_id: a/b", ("look like a version",)),
    Case("label", "create_pr: true", ("--create-pr is for --push-to-hub",)),
    Case("label", "rules: {min_voc: 1}", ("rules is no option",)),
    Case("label", "dtype: {vlm: x}", ("dtype must be auto, float32",)),
    Case("curate", "curate: {min_voc: 2}", ("--min-voc must be in -1..1; got 2",)),
    Case("check", "check: {fail_on: Broken}", ("fail_on must be broken", "got 'Broken'")),
    Case("check", "check: {fail-on: []}", ("fail", "must be broken")),
    Case("check", "check: {chunk_size: 0}", ("--chunk-size must be at least 1 frame; got 0",)),
    Case("check", "check: {chunk_size: 1e3}", ("chunk_size must be a whole number",)),
    Case("check", "check: {vidoe: true}", ("vidoe is no option; did you mean video?",)),
    Case("check", "check: {pictures: {max_white: 1}}", ("pictures is no option",)),
    Case("check", "check: {camera: front}", ("--camera is for --video",)),
    Case("check", "label: {}", ("has no section 'check'; it is for: label",)),
    Case("check", "check: [video]", ("section 'check' must be a mapping of options",)),
    Case("train", "steps: 3", ("must have a section 'train:'",)),
    Case("train", "train: {weighting: awr}", ("'weighting:' must be a mapping of options",)),
    Case("train", "train: {weighting: [awr]}", ("'weighting:' must be a mapping of options",)),
    Case("train", "train: {weighting: {betta: 1}}", ("weighting.betta is no option",)),
    Case("train", "train: {weighting: {5: 1}}", ("weighting.5 is no option",)),
    Case("train", "train: {seed: 2026-11-24}", ("seed must be", "got datetime.date")),
    Case("train", "train: {policy: {5: 1}}", ("unrecognized arguments: --policy.5=1",)),
    Case("train", "train: {steps: .nan}", ("steps must be", "got nan")),
    Case("train", "train: {seed: !!binary aGk=}", ("seed must be",)),
]
CASES = [*FILES, *every_option()]


@pytest.fixture
def refused(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Refused:
    """Run a command with a preset, see that it refuses properly, and return what it said."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, text: bytes) -> str:
        (tmp_path / "my.yaml").write_bytes(text)
        with pytest.raises(SystemExit) as stopped:
            main([command, "--config", "my.yaml"])
        said = capfd.readouterr()
        assert stopped.value.code == 2, said
        assert said.out == ""
        assert len(said.err.splitlines()) <= 2, said.err
        assert len(said.err) < 1000
        assert said.err.startswith("error: ")
        assert "Traceback" not in said.err
        assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]
        return said.err

    return run


@pytest.mark.parametrize("each", CASES, ids=str)
def test_a_wrong_preset_is_refused(refused: Refused, each: Case) -> None:
    said = refused(each.command, each.text.encode())
    for words in each.expected:
        assert words in said


def test_a_preset_that_is_no_text(refused: Refused) -> None:
    assert "cannot be read" in refused("label", b"\xff\xfe\x00")
    assert "cannot be read" in refused("label", b"camera: \xe9")


@pytest.mark.parametrize("command", CONFIGS)
def test_defaults_pass_the_same_check(command: str) -> None:
    config_class = CONFIGS[command]
    if command == "train":
        assert from_params(as_params(WeightingConfig())) == WeightingConfig()
        return
    default = with_options(config_class, {})
    values = flat_options(default)
    assert with_options(config_class, check_options(config_class, values, where="")) == default


def test_numbers_paths_and_text_come_as_yaml_gives_them(tmp_path: Path) -> None:
    from lerobot_topreward.config import load_preset

    (tmp_path / "my.yaml").write_text(
        "label: {horizon: 1e-1, sample-fps: 3, root: ~/data, prefixes: 15, push_to_hub: no,"
        " dtype: float32, camera: null, episodes: '1:10'}\n"
    )
    options = load_preset(str(tmp_path / "my.yaml"), section="label")
    config = with_options(LabelConfig, check_options(LabelConfig, options, where=""))
    assert (config.horizon, config.scoring.sample_fps, config.scoring.prefixes) == (0.1, 3.0, 15)
    assert (config.root, config.episodes, config.scoring.camera) == (Path("~/data"), "1:10", None)
    assert (config.vlm.dtype, config.push.push_to_hub) == ("float32", False)
