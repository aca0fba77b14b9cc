"""What a run costs, said before it."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import lerobot_topreward.label.estimate
from lerobot_topreward.cli import main


def run(*options: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["label", *map(str, options)])
    return int(stopped.value.code or 0)


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(
    record_dataset: Callable[..., Path],
    tiny_vlm: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, output = record_dataset(cameras=("front",)), tmp_path / "labelled"
    options = ("--root", dataset, "--output", output, "--vlm", tiny_vlm, "--control", "all")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run(*options, "--dry-run") == 0
    printed = capfd.readouterr().out
    assert "nothing was scored or written" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    found = re.search(r"estimate +(\d+) videos, (\d+) prefixes, ([\d,]+) tokens", printed)
    assert found is not None
    assert run(*options) == 0
    assert "estimate" not in capfd.readouterr().out  # it is done at once
    tables = [pq.read_table(path) for path in output.glob("topreward/*/*_*.parquet")]
    gray = [table for table in tables if table["control"][0].as_py() == "blank"]
    assert gray
    assert int(found[1]) == 3 + len(gray)
    assert int(found[2]) == sum(map(len, tables))
    # A run that takes long says it, too.
    monkeypatch.setattr(lerobot_topreward.label.estimate, "_LONG", 0)
    assert run(*options, "--force") == 0
    assert found.group() in capfd.readouterr().out
    assert run(*options, "--dry-run") == 0
    assert "estimate" not in capfd.readouterr().out  # all is scored


def test_a_long_run_without_a_gpu_names_other_ways(
    record_dataset: Callable[..., Path],
    tiny_vlm: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ("--root", record_dataset(cameras=("front",)), "--vlm", tiny_vlm, "--device", "cpu")
    options = (*options, "--output", tmp_path / "labelled", "--dry-run")
    assert run(*options) == 0
    assert "no GPU" not in capfd.readouterr().out
    monkeypatch.setattr("lerobot_topreward.label.estimate._LONG", 0)
    assert run(*options) == 0
    printed = capfd.readouterr().out
    for way in ("check and curate", "--config laptop", "--server", "--job.target"):
        assert way in printed
