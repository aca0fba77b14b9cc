"""What a run says while it works: a bar on a terminal, plain lines elsewhere; and Ctrl-C."""

import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

INTERRUPTED = 130  # the exit code that shells report for Ctrl-C
_LINE_EVERY_S = 10.0
# What drives a terminal, reorders a line or cannot be encoded: C0 without tab and newline, DEL, C1,
# the bidirectional overrides (https://trojansource.codes) and lone surrogates.
_CONTROLS = [*range(9), *range(11, 32), *range(127, 160)]
_OVERRIDES = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
_ESCAPES = {
    **{code: f"\\x{code:02x}" for code in _CONTROLS},
    **{code: f"\\u{code:04x}" for code in _OVERRIDES},
}
# Messages name an option as Python does, between backticks, with its value or without.
_OPTION = re.compile(r"`([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)(?:=([^`]*))?`")


def spell_options(text: str) -> str:
    """Spell options as on the command line: `` `max_stall=2` `` becomes ``--max-stall 2``.

    Those of lerobot-train, which have a dot, keep LeRobot's spelling: ``--weighting.beta=2``.
    """

    def spell(found: re.Match[str]) -> str:
        name, value = found.groups()
        if "." in name:
            return f"--{name}" if value is None else f"--{name}={value}"
        flag = f"--{name.replace('_', '-')}"
        return flag if value is None else f"{flag} {value}"

    return _OPTION.sub(spell, text)


_DATASET = ("repo_id", "root", "revision", "labels")  # options that name a dataset


def write_command(command: str, *, of: object = None, **options: object) -> str:
    """Write a command of ours to be pasted, its options as messages name them, without unset ones.

    It is about the dataset that the configuration `of` names, if one is given.
    """
    words = ["lerobot-topreward", command]
    named = {name: getattr(of, name, None) for name in _DATASET}
    for name, value in (named | options).items():
        if isinstance(value, bool):
            words.append(f"`{name}`" if value else f"`no_{name}`")
        elif value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words.append(f"`{name}={shlex.join(map(str, values))}`")
    return " ".join(words)


class SafeConsole(Console):
    """A console that shows control characters in what it prints instead of obeying them.

    It also spells the options that a message names as the command line does.
    """

    def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
        """Render as rich does, then replace control characters in the text by escapes."""
        for segment in super().render(*args, **options):
            if not segment.control:  # rich's own cursor movements; colors are styles, not text
                segment = segment._replace(text=segment.text.translate(_ESCAPES))
            yield segment

    def render_str(self, text: str, **options: Any) -> Text:
        """Replace them before a table measures its cells, which would be cut otherwise."""
        return super().render_str(spell_options(text).translate(_ESCAPES), **options)


def make_console(*, stderr: bool = False) -> Console:
    """Make the console that everything is printed to; no markup, since a path may hold brackets."""
    return SafeConsole(stderr=stderr, highlight=False, soft_wrap=True, markup=False)


def print_json(console: Console, value: Any) -> None:
    """Print a value as JSON of which nothing is spelled anew, as whatever reads it expects."""
    # JSON escapes every control character but DEL.
    text = json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f")
    console.print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """Say something on the error stream, in one line, beside what a command prints."""
    make_console(stderr=True).print(text, style="yellow")


def print_next(console: Console, purpose: str, command: str) -> None:
    """Say what a person would do next, and the command to paste."""
    console.print(f"next: {purpose}\n  {command}")


class _DecoderFilter(logging.Filter):
    """Says once, in a line, what LeRobot says of its decoder in a hundred at every turn."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the first record through, shortened, and whatever is about something else."""
        if "torchcodec" not in record.getMessage():
            return True
        record.msg, record.args = (
            "videos are decoded by PyAV, as torchcodec finds no FFmpeg; faster with it: "
            "apt-get install ffmpeg (--verbose shows why)",
            (),
        )
        said, self.said = self.said, True
        return not said


_DECODER_FILTER = _DecoderFilter()


def quiet_libraries(*, verbose: bool) -> None:
    """Leave out what other libraries print that no one needs; all of it is shown with `verbose`."""
    logger = logging.getLogger("lerobot.utils.import_utils")
    logger.removeFilter(_DECODER_FILTER)
    if verbose:
        return
    _DECODER_FILTER.said = False
    logger.addFilter(_DECODER_FILTER)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's own log: errors only
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars that would fill a file


class EpisodeProgress:
    """Episodes done, frames per second and the time that is left."""

    def __init__(self, console: Console, *, episodes: int) -> None:
        """Begin to count towards a number of episodes."""
        self._console = console
        self._episodes = episodes
        self.done = self._frames = 0
        self._began = self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("scoring", total=episodes, rate="")

    def __enter__(self) -> "EpisodeProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._bar.stop()

    def episode_done(self, frames: int) -> None:
        """Count an episode of so many frames, labeled or failed."""
        self.show(self.done + 1, self._frames + frames)

    def show(self, done: int, frames: int) -> None:
        """Show that so many episodes are done in all, and so many frames."""
        if done == self.done:
            return
        self.done, self._frames = done, frames
        now = time.monotonic()
        rate = self._frames / max(now - self._began, 1e-9)
        self._bar.update(self._task, completed=done, rate=f"{rate:.0f} frames/s")
        last = self.done == self._episodes
        if not self._console.is_terminal and (last or now - self._said >= _LINE_EVERY_S):
            self._said = now
            left = (now - self._began) / self.done * (self._episodes - self.done)
            self._console.print(
                f"scored {self.done} of {self._episodes} episodes, {rate:.0f} frames/s, "
                f"{left:.0f} s left",
                highlight=False,
            )


@dataclass(slots=True)
class StopRequest:
    """Whether the user has asked to stop."""

    asked: bool = field(default=False)


@contextmanager
def stop_on_signal(console: Console) -> Iterator[StopRequest]:
    """Let the episode at hand finish on the first Ctrl-C or SIGTERM; stop at once on the second."""
    request = StopRequest()

    def handle(_: int, __: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True
        console.print("finishing this episode; once more to stop at once", style="yellow")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def text_table(title: str, *numbers: str) -> Table:
    """A table in the style of all of them; its first columns are numbers, under these headings."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_style="bold",
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    return table


def number(value: float, decimals: int = 2) -> str:
    """A number in few digits; a dash where undefined."""
    # Zero is added because a rounded -0.0 would keep its sign.
    return "-" if math.isnan(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"


def shorten(text: str, width: int) -> str:
    """Cut a text that is longer than so many characters, but never below twelve."""
    width = max(width, 12)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def name_episodes(episodes: Iterable[int]) -> str:
    """Name episodes, which ascend, as a person would: "episodes 0..3, 7"."""
    members, runs = list(episodes), list[list[int]]()
    for episode in members:
        if runs and episode == runs[-1][-1] + 1:
            runs[-1][1:] = [episode]
        else:
            runs.append([episode])
    ranges = ", ".join("..".join(map(str, run)) for run in runs)
    return f"episode{'s' if len(members) > 1 else ''} {ranges}"
