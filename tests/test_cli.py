"""What the help of a command begins with."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from lerobot_topreward.cli import COMMANDS, main
from lerobot_topreward.config import option_types

WITH_MOST_USED = [name for name, command in COMMANDS.items() if command.most_used]


@pytest.mark.parametrize("name", WITH_MOST_USED)
def test_help_opens_with_the_options_that_most_people_use(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    first, _, rest = capsys.readouterr().out.partition("usage:")
    assert first.startswith("most used:\n")
    shown = re.findall(r"--([a-z_.-]+)", " ".join(COMMANDS[name].most_used))
    if name != "train":  # most of its options are LeRobot's
        module = import_module(f"lerobot_topreward.{name.replace('-', '_')}.config")
        config = getattr(module, f"{name.title().replace('-', '')}Config")
        assert {option.replace("-", "_") for option in shown} <= option_types(config).keys()
    assert all(f"--{option}" in first and f"--{option}" in rest for option in shown)
    assert first.count("\n") <= 9  # a glance


def test_help_of_the_program_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(
        f"  {name} " in printed and command.purpose in printed for name, command in COMMANDS.items()
    )


READING_A_DATASET = [name for name in COMMANDS if name not in ("serve-args", "demo")]


@pytest.mark.parametrize(
    "options", ["--repo-id x/y --root {}", "--dataset.repo_id=x/y --dataset.root={}"]
)
# watch is left out: it waits for a dataset that is not there.
@pytest.mark.parametrize("name", [name for name in READING_A_DATASET if name != "watch"])
def test_every_command_knows_a_dataset_by_our_names_and_by_those_of_lerobot(
    name: str, options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "compare": ["--judges", "builtin:so101-demo", "x/y"],
        "train": ["--policy.type=act", "--policy.push_to_hub=false"],
    }.get(name, [])
    with pytest.raises(SystemExit) as stopped:
        main([name, *options.format(tmp_path / "absent").split(), *more])
    assert stopped.value.code == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert re.search(r"error: .*root[= ]\S*absent", printed), printed


@pytest.mark.parametrize("name", READING_A_DATASET)
def test_a_dataset_is_not_named_twice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--root=here", "--dataset.root=there"])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "--root" in printed
    assert "--dataset.root are the same" in printed or "--root are the same" in printed


def test_an_option_of_a_dataset_is_none_where_no_dataset_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--dataset.root=here"])
    assert stopped.value.code == 2
    assert "--dataset.root is no option" in capsys.readouterr().err
