"""Python programs that tests run, which end before their test does and show what they printed."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
import pytest

# How a program of two processes begins, which meet on a free port.
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
_LIMIT_S = 200  # less than pytest gives a test, so that the program is stopped and shown first
_STACKS_S = 10  # for a process to print where it is


class Program:
    """A program that runs."""

    def __init__(self, process: subprocess.Popen[str], out: IO[str], err: IO[str]) -> None:
        """Take its first process, and the files that all of them print to.

        They are not pipes, which are open for as long as any process has one.
        """
        self.process = process
        self._out, self._err = out, err
        self._stopping = threading.Lock()
        self._was_stopped = False

    def stop(self) -> None:
        """End all processes, each of which first prints where its threads are."""
        with self._stopping:
            if self.process.poll() is not None:
                return
            self._was_stopped = True
            workers: list[psutil.Process] = []
            # A launcher starts its workers in process groups of their own.
            with suppress(psutil.NoSuchProcess):
                workers = psutil.Process(self.process.pid).children(recursive=True)
            # One after another, as they print to the same file; the launcher first, which would end
            # the others when one has ended.
            for process in (self.process, *workers):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGABRT)
                    try:
                        process.wait(_STACKS_S)
                    except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                        process.kill()

    def read(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and return what was printed; fail the test if it was stopped."""
        code = self.process.wait()
        with self._stopping:
            self._out.seek(0)
            self._err.seek(0)
            out, err = self._out.read(), self._err.read()
        if self._was_stopped:
            pytest.fail(f"stopped, as it did not end by itself:\n{out}\n{err}", pytrace=False)
        return subprocess.CompletedProcess(self.process.args, code, out, err)


@contextmanager
def start_python(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    limit_s: float = _LIMIT_S,
    takes_ctrl_c: bool = False,
) -> Iterator[Program]:
    """Start Python, and stop it after a time, and when the block ends.

    The background job of a shell ignores Ctrl-C, and so does what it starts, but for `takes_ctrl_c`.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=out,
            stderr=err,
            text=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {})},
            preexec_fn=take_ctrl_c if takes_ctrl_c else None,
        )
        program = Program(process, out, err)
        timer = threading.Timer(limit_s, program.stop)
        timer.start()
        try:
            yield program
        finally:
            timer.cancel()
            timer.join()
            program.stop()
            process.wait()


def run_python(
    *arguments: str | Path, env: Mapping[str, str] | None = None, limit_s: float = _LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Run Python and return what it printed; fail the test if it does not end in time."""
    with start_python(*arguments, env=env, limit_s=limit_s) as program:
        return program.read()


def take_ctrl_c() -> None:
    """What a program that is started calls first, so that it can be stopped by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
