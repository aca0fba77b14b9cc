"""The programs that tests run, where one hangs."""

import time
from pathlib import Path

import psutil
import pytest
from programs import start_python

LAUNCHER = """
import subprocess, sys
print("launched", flush=True)
subprocess.run([sys.executable, "-c", *sys.argv[1:]], start_new_session=True)
"""
WORKER = """
import os, sys, time
def hang():
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    while True:
        time.sleep(1)
hang()
"""


def test_a_program_that_hangs_is_ended_and_shown(tmp_path: Path) -> None:
    number = tmp_path / "number"
    with start_python("-c", LAUNCHER, WORKER, number) as program:
        while not number.exists():
            assert program.process.poll() is None
            time.sleep(0.01)
        worker = psutil.Process(int(number.read_text()))
        program.stop()
        with pytest.raises(pytest.fail.Exception) as failed:
            program.read()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    for shown in ("launched", "in hang", "in run"):
        assert shown in str(failed.value)
