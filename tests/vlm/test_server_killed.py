"""A run that loses its server, or is killed, goes on where it was: same scores as undisturbed."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from vllm_server import serve

from lerobot_topreward.vlm.loading import Vlm

RecordDataset = Callable[..., Path]

pytestmark = pytest.mark.slow


def start(root: Path, vlm: Path, output: Path, *urls: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lerobot_topreward", "label", "--root", str(root)]
    command += ["--vlm", str(vlm), "--output", str(output), "--concurrency", "3"]
    command += ["--skip-check", "--write", "sidecar", "--server", *urls]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root.parent
    )


def finish(process: subprocess.Popen[str], *, limit_s: float = 200) -> tuple[int, str]:
    """Its exit code and what it said."""
    said = process.communicate(timeout=limit_s)[0]
    return process.returncode, " ".join(said.split())


def shards(output: Path) -> dict[str, bytes]:
    found = sorted(output.glob("topreward/*/episode_*.parquet"))
    return {path.name: path.read_bytes() for path in found}


def linger(number: int, body: Mapping[str, Any]) -> None:
    time.sleep(0.05)


def wait_for_shards(process: subprocess.Popen[str], output: Path, count: int) -> None:
    deadline = time.monotonic() + 200
    while len(shards(output)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(30,) * 12, cameras=("front",))


@pytest.fixture(scope="module")
def undisturbed(
    recorded: Path, tiny_vlm: Path, served_vlm: Vlm, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("whole") / "out"
    with serve(served_vlm) as state:
        process = start(recorded, tiny_vlm, output, state.url)
        assert finish(process)[0] == 0
    return shards(output)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_client_that_is_stopped_goes_on(
    recorded: Path,
    tiny_vlm: Path,
    served_vlm: Vlm,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    output = tmp_path / "out"
    with serve(served_vlm, fault=linger) as state:
        process = start(recorded, tiny_vlm, output, state.url)
        wait_for_shards(process, output, 2)
        process.send_signal(number)
        # Ctrl-C ends with the episode at hand, without waiting for those in flight beside it.
        assert finish(process, limit_s=30)[0] == (130 if number == signal.SIGINT else -number)
        kept = shards(output)
        assert 2 <= len(kept) < 12
        asked = len(state.bodies)
        assert finish(start(recorded, tiny_vlm, output, state.url))[0] == 0
        assert len(state.bodies) - asked == 2 + 7 * (12 - len(kept))
    assert shards(output) == undisturbed


def test_a_server_that_is_killed_and_started_again_loses_nothing(
    recorded: Path,
    tiny_vlm: Path,
    served_vlm: Vlm,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    with serve(served_vlm, fault=linger) as state:
        process = start(recorded, tiny_vlm, output, state.url)
        wait_for_shards(process, output, 2)
    code, said = finish(process, limit_s=60)
    assert code == 2
    assert "no server is left" in said
    assert 2 <= len(shards(output)) < 12
    with serve(served_vlm) as state:
        assert finish(start(recorded, tiny_vlm, output, state.url))[0] == 0
    assert shards(output) == undisturbed


def test_of_two_servers_one_is_killed(
    recorded: Path,
    tiny_vlm: Path,
    served_vlm: Vlm,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    with serve(served_vlm, fault=linger) as survivor:
        with serve(served_vlm, fault=linger) as dying:
            process = start(recorded, tiny_vlm, output, dying.url, survivor.url)
            wait_for_shards(process, output, 2)
        assert finish(process)[0] == 0
    assert shards(output) == undisturbed
