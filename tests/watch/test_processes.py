"""The command beside a recorder, each in a process of its own, stopped and started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorder import start
from watching import Watching

LIMIT_S = 250


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def start_watch(watching: Watching) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "lerobot_topreward", "watch", "--root", str(watching.root)]
    words += ["--vlm", str(watching.vlm), "--output", str(watching.output), "--device", "cpu"]
    words += ["--min-success", "-1"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until_it_looks(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    while "scores go to" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_recorder_and_watch_are_stopped_and_go_on(
    watching: Watching, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_scored(episode: int) -> bool:
        return any(watching.output.glob(f"topreward/*/watch/episode_{episode:06d}.parquet"))

    started: list[subprocess.Popen[Any]] = []
    try:
        started.append(recorder := start(watching.root, (12, 9), go=tmp_path / "first"))
        started.append(watch := start_watch(watching))
        wait_until_it_looks(watch)
        (tmp_path / "first/0").touch()
        wait_for(lambda: is_scored(0))
        watch.kill()
        watch.communicate()
        recorder.send_signal(signal.SIGINT)  # as a person stops lerobot-record: it closes its files
        recorder.wait(LIMIT_S)
        started.append(
            recorder := start(
                watching.root, (9, 15), go=tmp_path / "second", resume=True, streaming=True
            )
        )
        started.append(watch := start_watch(watching))
        said = wait_until_it_looks(watch)
        (tmp_path / "second/0").touch()
        wait_for(lambda: is_scored(1))
        (tmp_path / "second/1").touch()
        assert recorder.wait(LIMIT_S) == 0
        said += watch.communicate(timeout=LIMIT_S)[0]
        assert watch.returncode == 0, said
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    assert [said.count(f"episode {i}    bad ") for i in range(3)] == [1, 1, 1], said
    assert "to record again      episodes 0..2" in said
    assert "of these scored now 0" in watching.label(watching.output, capsys)
    watching.label(tmp_path / "alone", capsys)
    both = [
        {path.name: path.read_bytes() for path in folder.glob("topreward/*/episode_*.parquet")}
        for folder in (watching.output, tmp_path / "alone")
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 3
