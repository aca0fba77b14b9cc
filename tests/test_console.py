"""What the tool prints never drives the terminal, whatever a dataset or a file is named."""

import io
import json
import logging
import re
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from lerobot_topreward.check.config import CheckConfig
from lerobot_topreward.console import (
    SafeConsole,
    make_console,
    print_json,
    quiet_libraries,
    spell_options,
    write_command,
)

TITLE = "\x1b]0;owned\x07"  # sets a terminal's title
HOSTILE = (
    *("\x1b[2J", TITLE, "\x00", "\x08", "\x7f", "\x9b31m", "\x85"),
    *("\u202eevil", "\u2066x\u2069", "\udcff"),
)
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def terminal() -> SafeConsole:
    return SafeConsole(file=io.StringIO(), force_terminal=True, width=60, highlight=False)


def printed(console: SafeConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_control_characters_are_shown(capfd: pytest.CaptureFixture, text: str) -> None:
    for stderr in (False, True):
        console = make_console(stderr=stderr)
        table = Table("task")
        table.add_row(text + "cup")
        console.print(f"error: {text}cup", style="red")
        console.print(table)
        console.print(Text(text + "cup"))
    for said in capfd.readouterr():
        assert RAW.search(said) is None
        assert said.count("cup") == 3


def test_an_escape_is_readable(capfd: pytest.CaptureFixture) -> None:
    make_console().print("pick\x1b[2J up\nthe \u202ecup \udcff")
    assert capfd.readouterr().out == "pick\\x1b[2J up\nthe \\u202ecup \\udcff\n"


def test_colors_and_tables_survive_on_a_terminal() -> None:
    console = terminal()
    table = Table("task", "episodes")
    table.add_row(f"{TITLE}pick up the cube", "3")
    console.print("done", style="red")
    console.print(table)
    said = printed(console)
    assert "\x1b[31mdone\x1b[0m" in said
    assert "]0;owned" in said
    assert TITLE[:4] not in said
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in said.splitlines()[1:]]
    assert len({len(row) for row in rows}) == 1, rows  # the frame is straight


def test_progress_bars_survive_on_a_terminal() -> None:
    console = terminal()
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.advance(bar.add_task(f"{TITLE}scoring", total=1))
    said = printed(console)
    assert "\x1b[?25l" in said  # rich hides the cursor and shows it again
    assert "\x1b[?25h" in said
    assert "\\x1b]0;owned" in said
    assert TITLE[:4] not in said


@pytest.mark.parametrize("verbose", [False, True])
def test_a_missing_decoder_is_one_line(caplog: pytest.LogCaptureFixture, verbose: bool) -> None:
    quiet_libraries(verbose=verbose)
    logger = logging.getLogger("lerobot.utils.import_utils")
    long = "Traceback\n" * 80 + "'torchcodec' is installed but cannot be loaded"
    for message in (long, "something else", long):
        logger.warning(message)
    said = [record.getMessage() for record in caplog.records]
    if verbose:
        assert said == [long, "something else", long]
        return
    assert said[1:] == ["something else"]
    assert "decoded by PyAV" in said[0]
    assert "apt-get install ffmpeg" in said[0]
    assert len(said[0].splitlines()) == 1


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("`max_stall` must be >= 0", "--max-stall must be >= 0"),
        ("give `vlm=FOLDER`, or `push_to_hub`", "give --vlm FOLDER, or --push-to-hub"),
        ("raise `weighting.w_max`", "raise --weighting.w_max"),
        ("use `weighting.scheme=awr`.", "use --weighting.scheme=awr."),
        ("`decisions=/a b/c.json` is no JSON", "--decisions /a b/c.json is no JSON"),
        ("run `lerobot-topreward label` again", "run `lerobot-topreward label` again"),
    ],
)
def test_options_are_spelled_as_on_the_command_line(
    message: str, printed: str, capfd: pytest.CaptureFixture
) -> None:
    assert spell_options(message) == printed
    make_console().print(message)
    assert capfd.readouterr().out == printed + "\n"


@pytest.mark.parametrize("text", [*HOSTILE, "a\ttab", "use `max_stall=2`", "x" * 300], ids=ascii)
def test_json_is_printed_as_it_is(capfd: pytest.CaptureFixture, text: str) -> None:
    print_json(make_console(), {"task": text, text: [1.5, None]})
    said = capfd.readouterr().out
    assert RAW.search(said) is None
    assert json.loads(said) == {"task": text, text: [1.5, None]}


def test_a_command_is_written_to_be_pasted() -> None:
    config = CheckConfig(root=Path("my data"), revision=None)
    servers = ("http://a", "http://b")
    written = write_command("label", of=config, server=servers, skip_check=True, final_frame=False)
    assert (
        spell_options(written)
        == "lerobot-topreward label --root 'my data' --server http://a http://b --skip-check --no-final-frame"
    )
