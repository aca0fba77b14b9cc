"""A Slurm and a Ray of one node, for as long as a test runs."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

_START_S = 60


@contextmanager
def start_slurm() -> Iterator[dict[str, str]]:
    """Start Slurm's daemons; gives the variables with which its commands find them.

    Skips the test where they are not installed or do not start.
    """
    daemons = ("munged", "slurmctld", "slurmd")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    found = {name: shutil.which(name, path=path) for name in (*daemons, "sbatch")}
    if missing := [name for name, place in found.items() if place is None]:
        pytest.skip(f"no Slurm here ({', '.join(missing)}): apt-get install slurm-wlm munge")
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    # Not a folder of pytest's, whose paths are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, _Children() as children:
        folder = Path(name)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        (folder / "spool").mkdir()
        config = folder / "slurm.conf"
        config.write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={_free_port()}
SlurmdPort={_free_port()}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        )
        (folder / "state").mkdir()
        env = {"SLURM_CONF": str(config)}
        munge = [f"--key-file={key}", f"--log-file={folder}/munge.log"]
        munge += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munge.pid"]
        munge += [f"--seed-file={folder}/munge.seed"]
        children.start([str(found["munged"]), "--force", "--foreground", *munge])
        wait_until((folder / "munge.sock").exists)
        children.start([str(found["slurmctld"]), "-D"], env)
        children.start([str(found["slurmd"]), "-D"], env)

        def is_idle() -> bool:
            return "idle" in _ask("sinfo", "--noheader", env=env)

        try:
            wait_until(is_idle)
        except TimeoutError:
            pytest.skip(f"Slurm does not start here: {children.printed()[-2000:]}")
        try:
            yield env
        finally:  # what runs would outlive the daemons
            _ask("scancel", f"--user={user}", env=env)
            with suppress(TimeoutError):
                wait_until(lambda: not slurm_jobs(env), limit_s=30)


def slurm_jobs(env: dict[str, str]) -> str:
    """What waits or runs; empty when all have ended."""
    return _ask("squeue", "--noheader", env=env)


@contextmanager
def start_ray() -> Iterator[str]:
    """Start a Ray of one node; gives its address. Skips the test where Ray is not installed."""
    if find_spec("ray") is None:
        pytest.skip("no Ray here: pip install 'lerobot-topreward[ray]'")
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, _Children() as children:
        options = [
            *("--head", "--block", "--num-cpus=4", "--disable-usage-stats"),
            *(f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1"),
            *(f"--temp-dir={folder}", "--include-dashboard=false"),
            *("--object-store-memory=100000000", "--memory=16000000000"),
        ]
        program = [sys.executable, "-m", "ray.scripts.scripts"]
        children.start([*program, "start", *options])

        def answers() -> bool:
            status = [*program, "status", "--address", address]
            return subprocess.run(status, capture_output=True, check=False).returncode == 0

        wait_until(answers)
        yield address


class _Children:
    """Processes that end with the block, and whatever they have started."""

    def __enter__(self) -> "_Children":
        self._processes: list[subprocess.Popen[bytes]] = []
        self._out = tempfile.TemporaryFile()
        return self

    def start(self, command: list[str], env: dict[str, str] | None = None) -> None:
        """Start one."""
        self._processes.append(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        )

    def printed(self) -> str:
        """What all of them have printed."""
        self._out.seek(0)
        return self._out.read().decode(errors="replace")

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            started: list[psutil.Process] = []
            with suppress(psutil.NoSuchProcess):
                started = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            for each in started:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()
            process.wait()
        self._out.close()


def wait_until(condition: Callable[[], bool], *, limit_s: float = _START_S) -> None:
    """Wait for something that happens by itself.

    Raises:
        TimeoutError: it does not.
    """
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {limit_s} s")
        time.sleep(0.2)


def _ask(*command: str, env: dict[str, str]) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **env}
    ).stdout


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
