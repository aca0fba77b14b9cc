"""A label command in a process of its own, which can be stopped in the middle."""

import subprocess
import sys
import time
from pathlib import Path


def start(root: Path, vlm: Path, output: Path, *urls: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lerobot_topreward", "label", "--root", str(root)]
    command += ["--vlm", str(vlm), "--output", str(output), "--concurrency", "3"]
    command += ["--skip-check", "--write", "sidecar", "--server", *urls]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root.parent
    )


def finish(process: subprocess.Popen[str], *, limit_s: float = 200) -> tuple[int, str]:
    """Its exit code and what it said."""
    said = process.communicate(timeout=limit_s)[0]
    return process.returncode, " ".join(said.split())


def shards(output: Path) -> dict[str, bytes]:
    found = sorted(output.glob("topreward/*/episode_*.parquet"))
    return {path.name: path.read_bytes() for path in found}


def wait_for_shards(process: subprocess.Popen[str], output: Path, count: int) -> None:
    deadline = time.monotonic() + 200
    while len(shards(output)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
