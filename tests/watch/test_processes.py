"""The command beside a recorder, each in a process of its own, stopped and started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from recorder import start
from watching import Watching

LIMIT_S = 250


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def watch(watching: Watching, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "lerobot_topreward", "watch", "--root", str(watching.root)]
    words += ["--vlm", str(watching.vlm), "--output", str(watching.output), "--device", "cpu"]
    words += ["--min-success", "-1", *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_recorder_and_watch_are_stopped_and_go_on(
    watching: Watching, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = start(watching.root, (12, 9, 15), wait_s=4)
    first = watch(watching)
    try:
        wait_for(lambda: any(watching.output.glob("topreward/*/watch/episode_000000.parquet")))
        first.kill()
        first.wait()
        recorder.send_signal(signal.SIGINT)  # as a person stops lerobot-record: it closes its files
        recorder.wait(LIMIT_S)
        recorder = start(watching.root, (8,), wait_s=4, resume=True)
        assert recorder.wait(LIMIT_S) == 0
        second = watch(watching, "--until-episodes", "1")
        said = second.communicate(timeout=LIMIT_S)[0]
        assert second.returncode == 0, said
    finally:
        for process in (recorder, first):
            process.kill()
    assert said.count("bad ") >= 2, said
    assert "to record again" in said
    assert "--dataset.episodes=[" in said
    assert "of these scored now 0" in watching.label(watching.output, capsys)
    watching.label(tmp_path / "alone", capsys)
    both = [
        {path.name: path.read_bytes() for path in folder.glob("topreward/*/episode_*.parquet")}
        for folder in (watching.output, tmp_path / "alone")
    ]
    assert both[0] == both[1]
    assert len(both[0]) >= 2
