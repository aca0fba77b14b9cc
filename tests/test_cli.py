"""What the help of a command begins with."""

import re
from importlib import import_module

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
