"""Ranks that score in processes of their own on this machine, one LocalPipelineExecutor each.

Not one for all of them: its pool waits forever when a process of its was killed, as by the kernel
when memory ran out (https://github.com/python/cpython/issues/66587), and so does Ray's.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

_POLL_S = 0.2
_GRACE_S = 30.0  # to finish an episode, before a process is killed


class Rank:
    """A process that runs a step as one rank of several."""

    def __init__(
        self, step: PipelineStep, rank: int, of: int, *, logs: Path, env: Mapping[str, str]
    ) -> None:
        """Start it; what it prints goes into ``logs``, and so does datatrove's own log."""
        # What is done is known by the store: a marker of completion knows of no change.
        executor = LocalPipelineExecutor(
            [step],
            tasks=of,
            workers=1,
            local_tasks=1,
            local_rank_offset=rank,
            logging_dir=str(logs),
            skip_completed=False,
        )
        logs.mkdir(parents=True, exist_ok=True)
        pickled = logs / f"executor_{rank:05d}.pik"
        save_executor(executor, pickled)
        self.printed = logs / f"rank_{rank:05d}.txt"
        with self.printed.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "datatrove.tools.launch_pickled_pipeline", str(pickled)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,  # a terminal sends Ctrl-C to us alone
            )

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to stop; a second time, to stop at once."""
        self._process.terminate()

    def end(self) -> None:
        """Wait a while for the end, then kill it; what it has started ends, too."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        if self._process.poll() != 0:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def save_executor(executor: PipelineExecutor, path: Path) -> None:
    """Write an executor as Slurm's jobs read it, too."""
    import dill

    with path.open("wb") as file:
        dill.dump(executor, file, fmode=dill.CONTENTS_FMODE)


def run_ranks(
    step: PipelineStep,
    environments: Sequence[Mapping[str, str]],
    *,
    logs: Path,
    watch: Callable[[], bool],
) -> list[Rank]:
    """Run a step in as many processes as there are environments, and wait for all of them.

    Args:
        step: what each of them runs.
        environments: variables that are added for each.
        logs: folder for what they print.
        watch: called again and again meanwhile; says whether the user asked to stop.

    Returns:
        The processes, which have ended.
    """
    ranks: list[Rank] = []
    told = False
    try:
        for i, env in enumerate(environments):
            ranks.append(Rank(step, i, len(environments), logs=logs, env=env))
        while any(rank.poll() is None for rank in ranks):
            if watch() and not told:
                told = True
                for rank in ranks:
                    rank.stop()
            time.sleep(_POLL_S)
        watch()
    except BaseException:
        for rank in ranks:
            rank.stop()
        raise
    finally:
        for rank in ranks:
            rank.end()
    return ranks


class WatchedStep(PipelineStep):
    """Runs a step in a process of its own, and fails when that is killed."""

    name = "watched"
    type = "topreward"

    def __init__(self, step: PipelineStep, *, logs: Path, env: Mapping[str, str]) -> None:
        """Take the step, the folder for what it prints and variables that it needs."""
        super().__init__()
        self.step, self.logs, self.env = step, logs, dict(env)

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Run the step as this rank.

        Raises:
            RuntimeError: it failed, or was killed.
        """
        process = Rank(self.step, rank, world_size, logs=self.logs, env=self.env)
        parent = os.getppid()
        try:
            while (code := process.poll()) is None:
                if os.getppid() != parent:  # whoever started us is gone, and starts another
                    process.stop()
                    break
                time.sleep(_POLL_S)
        finally:
            process.end()
        if code != 0:
            raise RuntimeError(f"rank {rank} ended with {code}; see {process.printed}")
