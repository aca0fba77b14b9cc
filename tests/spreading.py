"""What tests of many processes compare, and how one of these processes is killed."""

import os
import random
import time
from collections.abc import Callable, Iterable
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
        and path.name not in ("run.json", "scores.parquet", ".lock", "commit.json")
        and path.relative_to(output).parts[:2] != ("topreward", "logs")
    }


def scored(output: Path) -> dict[str, int]:
    """When each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in output.glob("topreward/*/*_*.parquet")}


def has_whole_share(names: Iterable[str]) -> bool:
    """Whether either half of twelve episodes, which is the share of one of two, is all there."""
    episodes = {int(name[8:14]) for name in names if name.startswith("episode_")}
    return {*range(6)} <= episodes or {*range(6, 12)} <= episodes


def kill_one(output: Path, is_running: Callable[[], bool], chance: random.Random) -> None:
    """Kill one of the two processes that score, after a random number of shards.

    These are fewer than the six episodes of a share, so whichever is killed had some left. Looking
    for processes takes as long as scoring an episode, so that comes first, while they import.
    """
    after, until = chance.randint(1, 4), time.monotonic() + 400  # the machine may be busy
    found: list[psutil.Process] = []
    while len(found) < 2 or len(scored(output)) < after:
        assert is_running()
        assert time.monotonic() < until
        if len(found) < 2:
            found = _find_scoring(output)
        time.sleep(0.005)
    chance.choice(found).kill()


def _find_scoring(output: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any(str(output) in part for part in line) and "python" in line[0]:
            found += [process] if any("launch_pickled" in part for part in line) else []
    return found
