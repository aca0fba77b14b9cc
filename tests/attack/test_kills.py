"""Commands killed before each of their file operations, then run again."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# For the modules beside the Hub's tests: there is no package of tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from hub_server import serve
from hub_state import Hub

KIND = "kills at file operations"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RecordDataset = Callable[..., Path]
Command = Callable[..., int]

REPO = "alice/demo"
MADE = re.compile(rb'"made": ?"[^"]*"')  # when a page was made, to the minute
OTHERS = 8  # operations before the commit that a command is killed at, evenly spread


@dataclass(frozen=True)
class Killed:
    """A command, and what was there before; `{}` in an option is the folder of all."""

    name: str
    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()


LABEL = ("label", "--root", "{}/demo", "--output", "{}/out", "--vlm", "{vlm}")
IN_PLACE = ("label", "--root", "{}/demo", "--in-place", "--vlm", "{vlm}")
CURATE = ("curate", "--root", "{}/out", "--output", "{}/good", "--min-final-progress", "0")
COMMANDS = [
    Killed("label", LABEL),
    Killed("label-again", (*LABEL, "--horizon", "0.2"), (LABEL,)),
    Killed("label-blank", (*LABEL, "--debias", "blank"), (LABEL,)),
    Killed("label-contrast", (*LABEL, "--debias", "contrast"), (LABEL,)),
    Killed("in-place", IN_PLACE),
    Killed("curate", CURATE, (LABEL,)),
    Killed("curate-again", (*CURATE, "--trim"), (LABEL, CURATE)),
    Killed("report", ("report", "--root", "{}/out", "--output", "{}/r.html"), (LABEL,)),
    Killed("push", (*LABEL, "--push-to-hub", "--hub-repo-id", REPO), (LABEL,)),
]


@pytest.fixture(scope="session")
def kill_hub() -> Iterator[Hub]:
    hub = Hub()
    with serve(hub):
        yield hub


@pytest.fixture(scope="session")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(6, 4), cameras=("front",), size=(32, 32))


@pytest.fixture(scope="session")
def run(
    kill_hub: Hub, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    """Run a command in a fork; the answer is its exit code, negative for a signal."""
    folder = tmp_path_factory.mktemp("killer")
    environment = os.environ | kill_hub.environment(folder / "home", token="hf_writer")
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_client.py"))],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def command(arguments: tuple[str, ...], case: Path, kill_at: int | None = None) -> int:
            stdin, stdout = process.stdin, process.stdout
            assert stdin is not None
            assert stdout is not None
            filled = [
                text.replace("{}", str(case)).replace("{vlm}", str(tiny_vlm)) for text in arguments
            ]
            request = {
                "arguments": filled,
                "watched": str(case),
                "kill_at": kill_at,
                "said": str(case.with_suffix(".said")),
            }
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            return int(stdout.readline())

        yield command
        assert process.stdin is not None
        process.stdin.close()


def contents(case: Path) -> dict[str, Any]:
    """Every file by its path; of run.json and a page what does not tell the time."""
    found: dict[str, Any] = {}
    for path in sorted(case.rglob("*")):
        if path.is_dir() or path.name == ".lock":
            continue
        name = path.relative_to(case).as_posix()
        if path.name == "run.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
        else:
            content = (
                MADE.sub(b"", path.read_bytes()) if path.suffix == ".html" else path.read_bytes()
            )
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def pushed(hub: Hub) -> dict[str, bytes]:
    try:
        files = hub.dataset(REPO).resolve("main").files
    except (KeyError, AttributeError):
        return {}
    return {path: blob.data for path, blob in files.items()}


def chosen(operations: list[str]) -> list[int]:
    """Every operation of the commit phase, and some of those before and after it."""
    journal = [i for i, name in enumerate(operations) if "commit.json" in name]
    moves = [i for i, name in enumerate(operations) if name.startswith("os.rename")]
    commit = {*range(min(journal), max(journal) + 2)} if journal else set()
    others = [i for i in range(len(operations)) if i not in commit]
    spread = others[:: max(1, len(others) // OTHERS)]
    return sorted({*commit, *moves, *spread} & {*range(len(operations))})


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.name)
def test_a_killed_command_is_completed_by_the_next_run(
    case: Killed,
    recorded: Path,
    run: Command,
    kill_hub: Hub,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    folder, template = tmp_path / "case", tmp_path / "template"
    shutil.copytree(recorded, folder / "demo")
    kill_hub.reset()
    for command in case.before:
        assert run(command, folder) == 0, folder.with_suffix(".said").read_text()
    shutil.copytree(folder, template)
    assert run(case.command, folder) == 0, folder.with_suffix(".said").read_text()
    operations = json.loads(folder.with_suffix(".operations").read_text())
    undisturbed, on_hub = contents(folder), pushed(kill_hub)
    assert operations
    kills = chosen(operations)
    record_property("tried", len(kills))
    for kill_at in kills:
        shutil.rmtree(folder)
        shutil.copytree(template, folder)
        kill_hub.reset()
        where = f"{case.name} killed at {kill_at}: {operations[kill_at]}"
        assert run(case.command, folder, kill_at) == -signal.SIGKILL, where
        scored = {
            path: path.stat().st_mtime_ns for path in folder.glob("*/topreward/*/episode_*.parquet")
        }
        code = run(case.command, folder)
        assert code == 0, (where, folder.with_suffix(".said").read_text())
        assert contents(folder) == undisturbed, where
        assert pushed(kill_hub) == on_hub, where
        assert {path: path.stat().st_mtime_ns for path in scored} == scored, where
