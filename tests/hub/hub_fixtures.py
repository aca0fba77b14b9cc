"""The fixtures of a Hub and of a process that talks to it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import serve
from hub_state import Hub


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    with serve(hub):
        yield hub


@pytest.fixture
def hub(hub_server: Hub) -> Hub:
    """An empty Hub."""
    hub_server.reset()
    return hub_server


@pytest.fixture(scope="session")
def client_process(
    hub_server: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    home = tmp_path_factory.mktemp("hub-home")
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("hub_client.py"))],
        env={**os.environ, **hub_server.environment(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def client(client_process: subprocess.Popen[str]) -> Callable[..., Any]:
    """Have a function of client.py run against the Hub; a UserError comes back as its text."""

    def ask(call: str, *, token: str | None = "hf_writer", **options: Any) -> Any:
        stdin, stdout = client_process.stdin, client_process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"call": call, "token": token, "options": options}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        return answer.get("error", answer.get("result"))

    return ask
