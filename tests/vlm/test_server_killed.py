"""A run that loses its server, or is killed, goes on where it was: same scores as undisturbed."""

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from label_process import finish, shards, start, wait_for_shards
from vllm_server import serve

from lerobot_topreward.vlm.loading import Vlm

RecordDataset = Callable[..., Path]

pytestmark = pytest.mark.slow


def linger(number: int, body: Mapping[str, Any]) -> None:
    time.sleep(0.05)


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
