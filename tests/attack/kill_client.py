"""A process that runs commands in forks of itself, each killed before one of its file operations.

One JSON request and one answer a line. It imports everything once, so that a fork costs no more than
the command; it does no tensor work of its own, since threads do not survive a fork.
"""

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from lerobot_topreward.cli import main

for _name in (
    "lerobot.datasets.dataset_tools",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "transformers.models.qwen3_vl.processing_qwen3_vl",
    "lerobot_topreward.curate.command",
    "lerobot_topreward.label.command",
    "lerobot_topreward.report.command",
    "lerobot_topreward.vlm.loading",
    "lerobot_topreward.vlm.one_pass",
):
    import_module(_name)

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Which argument of the event is the descriptor of the folder that the path is relative to.
_CHANGES = {"os.rename": 2, "os.remove": 1, "os.link": 2, "os.mkdir": 2, "os.rmdir": 1}


def operation(event: str, arguments: tuple[Any, ...], *, watched: str) -> str | None:
    """Describe a change of a file in the watched folder; None for anything else."""
    if event == "open":
        if isinstance(arguments[0], int) or not (arguments[2] or 0) & _WRITES:
            return None
    elif event not in _CHANGES and not event.startswith("shutil."):
        return None
    path = os.fsdecode(arguments[0])
    if (position := _CHANGES.get(event)) is not None and arguments[position] != -1:
        path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[position]}"), path)
    there, parent = os.path.lexists(path), os.path.isdir(os.path.dirname(os.path.abspath(path)))
    if (event == "os.mkdir" and (there or not parent)) or (event == "os.remove" and not there):
        return None  # it will fail, and change nothing
    return f"{event} {path}" if os.path.abspath(path).startswith(watched) else None


def run(request: dict[str, Any]) -> None:
    """Run a command in this process, a fork, and end it."""
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    done: list[str] = []
    active = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not active:
            return
        found = operation(event, arguments, watched=request["watched"])
        if found is None:
            return
        if len(done) == request["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(found)

    sys.addaudithook(watch)
    code: Any = 70
    try:
        main(request["arguments"])
    except SystemExit as stopped:
        code = stopped.code
    finally:
        active = False
        sys.stdout.flush()
        Path(request["said"]).with_suffix(".operations").write_text(json.dumps(done))
        os._exit(code or 0)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
