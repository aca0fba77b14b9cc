"""What may not be followed, shared or overwritten: links out of a dataset, and a person's work."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot_topreward.cli import main

KIND = "links out of the dataset"
pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]
Hashes = Callable[[Path], dict[str, str]]
Run = Callable[..., str]


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def move_out(path: Path, outside: Path) -> None:
    outside.mkdir()
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)


@dataclass(frozen=True)
class Link:
    """Something in a dataset that a copy must not take along."""

    name: str
    add: Callable[[Path], object]  # to the dataset's folder
    expected: tuple[str, ...]


LINKS = [
    Link(
        "passwd",
        lambda root: link(root / "meta/x", "/etc/passwd"),
        ("meta/x", "leads out of the dataset, to /etc/passwd"),
    ),
    Link("tree", lambda root: link(root / "up", "/usr"), ("/up", "to /usr")),
    Link("parent", lambda root: link(root / "up", ".."), ("/up", "leads out of the dataset")),
    Link("neighbour", lambda root: link(root / "a", "../b"), ("/a", "a link to nothing")),
    Link("itself", lambda root: link(root / "self", "."), ("/self", "it is a folder")),
    Link("circle", lambda root: link(root / "meta/a", "a"), ("meta/a", "a link to nothing")),
    Link(
        "two-link-circle",
        lambda root: (link(root / "a", "b"), link(root / "b", "a")),
        ("/a", "a link to nothing"),
    ),
    Link(
        "loop-deep",
        lambda root: link(root / "a/b/c", "../.."),
        ("/a/b/c", "it is a folder"),
    ),
    Link("dangling", lambda root: link(root / "meta/gone", "nowhere"), ("meta/gone", "to nothing")),
    Link("zero", lambda root: link(root / "zero", "/dev/zero"), ("/zero", "to /dev/zero")),
    Link(
        "pipe", lambda root: os.mkfifo(root / "meta/pipe"), ("meta/pipe", "must be a regular file")
    ),
    Link(
        "video-outside",
        lambda root: move_out(next(root.rglob("*.mp4")), root.parent / "outside"),
        (".mp4", "leads out of the dataset"),
    ),
    Link(
        "videos-outside",
        lambda root: move_out(root / "videos", root.parent / "outside"),
        ("/videos", "leads out of the dataset"),
    ),
    Link(
        "through-a-link",
        lambda root: (link(root / "b", "/etc/hostname"), link(root / "a", "b")),
        ("/a", "to /etc/hostname"),
    ),
]


@pytest.fixture(scope="session")
def recorded(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(3, 2), cameras=("front",), size=(32, 32))


@pytest.fixture
def root(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "demo")


@pytest.fixture
def run(tiny_vlm: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Label, and return what was said; refusals have two lines at most."""

    def label(*options: str | Path, code: int = 0) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["label", "--vlm", str(tiny_vlm), *map(str, options)])
        said = capfd.readouterr()
        assert stopped.value.code == code, said
        assert "Traceback" not in said.err
        assert code == 0 or len(said.err.strip().splitlines()) <= 2, said.err
        return said.out if code == 0 else said.err

    return label


@pytest.mark.parametrize("case", LINKS, ids=lambda case: case.name)
def test_what_leaves_the_dataset_is_not_copied(
    case: Link, root: Path, run: Run, tmp_path: Path
) -> None:
    case.add(root)
    said = run("--root", root, "--output", tmp_path / "out", code=2)
    where, what = case.expected
    assert f"{where} " in said
    assert any(word in said for word in what.split("|")), said
    assert not (tmp_path / "out").exists()


def test_the_hubs_cache_links_into_its_own_blobs(recorded: Path, run: Run, tmp_path: Path) -> None:
    repo = tmp_path / "datasets--me--robot"
    snapshot = shutil.copytree(recorded, repo / "snapshots" / ("0" * 40))
    (repo / "blobs").mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.rglob("*") if p.is_file())):
        blob = shutil.move(path, repo / "blobs" / str(number))
        path.symlink_to(os.path.relpath(blob, path.parent))
    run("--root", snapshot, "--output", tmp_path / "out")
    copies = list((tmp_path / "out").rglob("*.mp4"))
    assert copies
    assert not any(path.is_symlink() for path in copies)
    link(snapshot / "meta/x", "/etc/passwd")
    said = run("--root", snapshot, "--output", tmp_path / "out", code=2)
    assert "meta/x leads out of the dataset" in said


def overwrite_in_place(path: Path, content: bytes) -> None:
    """As shutil.move across file systems does, in LeRobot's reencode_videos."""
    with path.open("r+b") as stream:
        stream.truncate()
        stream.write(content)


def only_video(root: Path) -> Path:
    (video,) = root.rglob("*.mp4")
    return video


def test_editing_the_copys_videos_in_place_leaves_the_source(
    root: Path, run: Run, tmp_path: Path, hashes: Hashes
) -> None:
    before = hashes(root)
    run("--root", root, "--output", tmp_path / "out")
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file()):
        overwrite_in_place(path, b"edited")
    assert hashes(root) == before


def test_links_are_made_only_when_asked_for_and_are_undone(
    root: Path, run: Run, tmp_path: Path, hashes: Hashes
) -> None:
    before, out = hashes(root), tmp_path / "out"
    run("--root", root, "--output", out, "--link-videos")
    assert only_video(out).samefile(only_video(root))
    shared = [p for p in out.rglob("*") if p.is_file() and p.stat().st_nlink > 1]
    assert shared == [only_video(out)]
    run("--root", root, "--output", out)
    assert not only_video(out).samefile(only_video(root))
    assert only_video(root).stat().st_nlink == 1
    assert hashes(root) == before


@pytest.mark.parametrize("written", ["{}", "{}/.", "{}/../demo", "{}/meta/..", "linked"])
def test_the_dataset_is_not_its_own_output(
    root: Path, run: Run, tmp_path: Path, hashes: Hashes, written: str
) -> None:
    before = hashes(root)
    link(tmp_path / "linked", root)
    output = tmp_path / "linked" if written == "linked" else written.format(root)
    assert "use --in-place" in run("--root", root, "--output", output, code=2)
    assert hashes(root) == before


def correct_tasks(out: Path) -> None:
    path = out / "meta/tasks.parquet"
    tasks = pq.read_table(path).to_pandas()
    tasks.index = tasks.index.str.upper()
    tasks.to_parquet(path)


def rewrite_data(out: Path) -> None:
    path = out / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.field(0).name, table.column(0)), path)
    os.utime(path, ns=(0, 0))


def note_success(out: Path) -> None:
    path = out / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("success", pa.array([True] * len(table))), path)


def add(out: Path, name: str) -> None:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(b"mine")


@dataclass(frozen=True)
class Work:
    """What a person did in the labelled copy."""

    name: str
    change: Callable[[Path], object]
    expected: str


WORK = [
    Work("tasks", correct_tasks, "meta/tasks.parquet was changed"),
    Work("success", note_success, "meta/episodes/chunk-000/file-000.parquet was changed"),
    Work("data", rewrite_data, "data/chunk-000/file-000.parquet was changed"),
    Work(
        "episode",
        lambda out: add(out, "data/chunk-000/file-001.parquet"),
        "data/chunk-000/file-001.parquet was added",
    ),
    Work("notes", lambda out: add(out, "meta/notes.md"), "meta/notes.md was added"),
    Work(
        "video",
        lambda out: overwrite_in_place(only_video(out), b"edited"),
        "file-000.mp4 was changed",
    ),
    Work("video-gone", lambda out: only_video(out).unlink(), "file-000.mp4 was removed"),
    Work(
        "no-manifest",
        lambda out: (out / "topreward/written.json").unlink(),
        "there is no topreward/written.json",
    ),
    Work(
        "manifest-of-garbage",
        lambda out: (out / "topreward/written.json").write_text("[]"),
        "written.json must hold a JSON object",
    ),
]


@pytest.mark.parametrize("case", WORK, ids=lambda case: case.name)
def test_a_persons_work_in_the_copy_is_not_lost(
    case: Work, root: Path, run: Run, tmp_path: Path, hashes: Hashes
) -> None:
    source, out = hashes(root), tmp_path / "out"
    run("--root", root, "--output", out)
    undisturbed = hashes(out)
    case.change(out)
    edited = hashes(out)
    said = run("--root", root, "--output", out, code=2)
    assert case.expected in said
    assert hashes(out) == edited
    assert hashes(root) == source
    if case.name == "manifest-of-garbage":
        (out / "topreward/written.json").unlink()
    else:
        assert f"label --root {out} --in-place" in said
    run("--root", root, "--output", out, "--overwrite")
    volatile = {name for name in undisturbed if name.endswith("run.json")}
    after = hashes(out)
    assert {k: v for k, v in after.items() if k not in volatile} == {
        k: v for k, v in undisturbed.items() if k not in volatile
    }


def test_what_was_kept_in_place_is_not_overwritten_later(
    root: Path, run: Run, tmp_path: Path, hashes: Hashes
) -> None:
    out = tmp_path / "out"
    run("--root", root, "--output", out)
    correct_tasks(out)
    run("--root", out, "--in-place")
    kept = hashes(out)
    assert "there is no topreward/written.json" in run("--root", root, "--output", out, code=2)
    assert hashes(out) == kept


def test_a_persons_other_files_stay(root: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("--root", root, "--output", out)
    for name in ("README.md", "notes/today.md", "meta/.DS_Store", ".git/HEAD"):
        add(out, name)
    link(out / "elsewhere", "/usr")
    run("--root", root, "--output", out)
    for name in ("README.md", "notes/today.md", "meta/.DS_Store", ".git/HEAD"):
        assert (out / name).read_bytes() == b"mine"
    assert (out / "elsewhere").is_symlink()


def test_two_datasets_of_one_name_do_not_share_an_output(
    record_dataset: RecordDataset, run: Run, tmp_path: Path, hashes: Hashes
) -> None:
    size = {"cameras": ("front",), "size": (32, 32)}
    first = record_dataset(lengths=(3, 2), seed=1, **size)
    second = record_dataset(lengths=(3, 2), seed=2, **size)
    assert first.name == second.name
    out = tmp_path / "out"
    run("--root", first, "--output", out)
    before = hashes(out)
    said = run("--root", second, "--output", out, code=2)
    assert said.count("local/dataset") == 2
    assert "no recording in common" in said
    assert "no recording in common" in run("--root", second, "--output", out, "--overwrite", code=2)
    assert hashes(out) == before


def test_a_renamed_dataset_is_still_itself(root: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("--root", root, "--in-place")
    run("--root", root, "--output", out)
    renamed = root.rename(tmp_path / "renamed")
    assert "of these scored now  0" in run("--root", renamed, "--in-place")
    correct_tasks(renamed)
    run("--root", renamed, "--output", out)
    manifest = json.loads((out / "topreward/written.json").read_text())
    assert manifest["dataset"] == "local/renamed"
    assert len(manifest["recordings"]) == 2
