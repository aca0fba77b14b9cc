"""What tests of many processes compare, and how one of these processes is killed."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

# Each of these tests takes a minute or more, as every process imports PyTorch first.
KILLS = range(int(os.environ.get("LEROBOT_TOPREWARD_KILLS", "0")))
for_clusters = pytest.mark.skipif(
    not KILLS,
    reason="takes minutes; set LEROBOT_TOPREWARD_KILLS to how often processes are killed at random",
)


def contents(output: Path) -> dict[str, bytes]:
    """Everything that a run makes, without what tells the time, is locked or is a log."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
        and path.name not in ("run.json", ".lock", "commit.json")
        and path.relative_to(output).parts[:2] != ("topreward", "logs")
    }


def scored(output: Path) -> dict[str, int]:
    """When each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in output.glob("topreward/*/*_*.parquet")}


def kill_one(output: Path, is_running: Callable[[], bool], chance: random.Random) -> None:
    """Kill one of the processes that score, after a random number of shards.

    These are fewer than the six episodes of a share, so whichever is killed had some left.
    """
    after, until = chance.randint(1, 4), time.monotonic() + 400  # the machine may be busy
    while len(scored(output)) < after:
        assert is_running()
        assert time.monotonic() < until
        time.sleep(0.01)
    here = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any(str(output) in part for part in line) and "python" in line[0]:
            here += [process] if any("launch_pickled" in part for part in line) else []
    chance.choice(here).kill()
