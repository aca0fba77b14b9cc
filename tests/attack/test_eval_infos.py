"""Evaluation files that are damaged, or were never LeRobot's."""

import json
from pathlib import Path
from typing import Any

import pytest

from lerobot_topreward.cli import main

_TASK = {"task_group": "arm", "task_id": 0, "metrics": {"successes": [True, False]}}


def _task(**changed: Any) -> dict[str, Any]:
    return {"per_task": [_TASK | changed]}


FILES: dict[str, bytes | dict[str, Any] | list[Any]] = {
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "cut": json.dumps(_task()).encode()[:40],
    "deep": b'{"per_task": ' + b"[" * 100_000,
    "long number": b'{"per_task": [' + b"9" * 50_000 + b"]}",
    "list": [1],
    "other": {"a": 1},
    "no list": {"per_task": {"0": _TASK}},
    "null": {"per_task": None},
    "no tasks": {"per_task": []},
    "number as task": {"per_task": [5]},
    "no group": _task(task_group=None),
    "true as id": _task(task_id=True),
    "fraction as id": _task(task_id=0.0),
    "no metrics": _task(metrics=[]),
    "no successes": _task(metrics={}),
    "text as successes": _task(metrics={"successes": "yes"}),
    "number as success": _task(metrics={"successes": [1]}),
    "text as success": _task(metrics={"successes": ["\x1b[2J" * 1000]}),
    "not a number": b'{"per_task": [{"task_group": "a", "task_id": 0, "metrics": {"successes": [NaN]}}]}',
    "no episodes": _task(metrics={"successes": []}),
    "twice": {"per_task": [_TASK, _TASK]},
    "episode is null": {"per_episode": [None]},
    "success is null": {"per_episode": [{"success": None, "seed": 1}]},
    "text as seed": {"per_episode": [{"success": True, "seed": "1"}]},
    "list as seed": {"per_episode": [{"success": True, "seed": [1]}]},
}


def _refused(file: Path, good: Path, capfd: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--policies", str(good), str(file)])
    said = capfd.readouterr()
    assert stopped.value.code == 2, said
    assert said.out == ""
    assert len(said.err.splitlines()) <= 2
    assert len(said.err) < 1000
    assert said.err.startswith("error: ")
    assert str(file) in said.err
    return said.err


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file as LeRobot writes it."""
    (tmp_path / "good.json").write_text(json.dumps(_task()))
    return tmp_path / "good.json"


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_evaluation_is_refused(
    tmp_path: Path, name: str, good: Path, capfd: pytest.CaptureFixture
) -> None:
    content = FILES[name]
    file = tmp_path / "bad.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert "eval_info.json" in _refused(file, good, capfd)


def test_a_file_without_end_or_of_any_size(
    tmp_path: Path, good: Path, capfd: pytest.CaptureFixture
) -> None:
    assert "must be a file" in _refused(Path("/dev/zero"), good, capfd)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**34)
    assert "at most 64 MiB" in _refused(tmp_path / "large.json", good, capfd)
