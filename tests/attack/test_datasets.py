"""Datasets that a stranger damaged: refused in a sentence before a VLM is loaded, or labelled."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corruptions import LABELLED, REFUSED
from damage import VIDEO, Case, gone, oddities

import lerobot_topreward.vlm.loading
from lerobot_topreward.cli import main

KIND = "dataset corruptions"
pytestmark = pytest.mark.slow  # a minute for all


@pytest.fixture(scope="module")
def whole(record_dataset: Callable[..., Path]) -> Path:
    return record_dataset(
        lengths=(4, 3, 5), tasks=("lift", "open"), cameras=("front",), size=(48, 64)
    )


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "dataset")


def state(folder: Path) -> dict[str, object]:
    """What is in a folder, links and pipes among it."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        content = None if path.is_dir() else path.lstat().st_ino
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = content
    return found


def run(root: Path, *options: str | Path, command: str = "label") -> int:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--root", str(root), *map(str, options)])
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name[:60])
def test_refused_before_a_vlm_is_loaded(
    dataset: Path,
    tiny_vlm: Path,
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a VLM was loaded")

    monkeypatch.setattr(lerobot_topreward.vlm.loading, "load_vlm", refuse)
    case.damage(dataset)
    before = state(dataset.parent)
    assert run(dataset, "--vlm", tiny_vlm, "--output", dataset.parent / "output") == 2
    said = capfd.readouterr().err
    assert case.says in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2
    assert {k: v for k, v in state(dataset.parent).items() if "output" not in k} == before
    left = [path for path in (dataset.parent / "output").rglob("*") if path.is_file()]
    assert [path.name for path in left] in ([], [".lock"])


@pytest.fixture(scope="module")
def labels(whole: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    output = tmp_path_factory.mktemp("labels") / "output"
    assert run(whole, "--vlm", tiny_vlm, "--output", output) == 0
    return pq.read_table(output / "topreward_progress.parquet")


@pytest.mark.parametrize("case", LABELLED, ids=lambda case: case.name)
def test_what_lerobot_bears_is_labelled(
    dataset: Path,
    tiny_vlm: Path,
    labels: pa.Table,
    case: Case,
    capfd: pytest.CaptureFixture[str],
) -> None:
    case.damage(dataset)
    before = state(dataset)
    capfd.readouterr()
    assert run(dataset, "--vlm", tiny_vlm, "--output", dataset.parent / "output") == 0
    assert "Traceback" not in capfd.readouterr().err
    found = pq.read_table(dataset.parent / "output/topreward_progress.parquet")
    assert found.drop_columns([]).equals(labels)
    assert state(dataset) == before


@pytest.mark.parametrize("case", [*REFUSED, *LABELLED], ids=lambda case: case.name[:60])
def test_check_says_what_it_found_or_refuses(
    dataset: Path, case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    case.damage(dataset)
    before = state(dataset.parent)
    code = run(dataset, command="check")
    said = capfd.readouterr()
    assert code in (0, 2, 3)
    assert "Traceback" not in said.out + said.err
    assert state(dataset.parent) == before
    if code == 2:
        assert said.out == ""
        assert len(said.err.strip().splitlines()) <= 2
    else:
        assert "nothing found in" in " ".join(said.out.split())


@pytest.mark.parametrize(
    "case",
    [*oddities(VIDEO), Case("no videos", gone("videos"), ""), *LABELLED],
    ids=lambda c: c.name,
)
def test_check_of_pictures_says_what_it_found_or_refuses(
    dataset: Path, case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    case.damage(dataset)
    before = state(dataset.parent)
    assert run(dataset, "--video", command="check") in (0, 2, 3)
    assert "Traceback" not in "".join(capfd.readouterr())
    assert state(dataset.parent) == before
