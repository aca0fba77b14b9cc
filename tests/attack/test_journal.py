"""Files that a stranger put beside a dataset, for the next run to read back or write through."""

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

KIND = "crafted files"

RecordDataset = Callable[..., Path]
Hashes = Callable[[Path], dict[str, str]]

STAGING = ".staging-x"
DEEP = "[" * 100_000


@dataclass(frozen=True)
class Outside:
    """A journal of the right form; `{home}` in a path is a folder outside the output."""

    name: str
    moves: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    staging: str = STAGING
    expected: str = "leaves the output folder"


JOURNALS = [
    Outside("move-up", moves=("../home/bashrc",)),
    Outside("delete-up", stale=("../home/bashrc",)),
    Outside("move-absolute", moves=("{home}/bashrc",)),
    Outside("delete-absolute", stale=("{home}/bashrc",)),
    Outside("absolute-inside", stale=("{output}/README.md",)),
    Outside("up-and-down", stale=("data/../README.md",)),
    Outside("through-a-link", moves=("linked/bashrc",)),
    Outside("delete-through-a-link", stale=("linked/bashrc",)),
    Outside("through-a-circle", moves=("circle/x",), expected="commit.json"),
    Outside("the-output-itself", moves=(".",)),
    Outside("nothing", moves=("",)),
    Outside("null-byte", moves=("a\0b",)),
    Outside("null-byte-stale", stale=("a\0b",)),
    Outside("surrogate", moves=("\ud800",), expected="surrogates not allowed"),
    Outside("surrogate-stale", stale=("\ud800",), expected="surrogates not allowed"),
    Outside("too-long", moves=("a" * 5000,), expected="commit.json"),
    Outside("a-folder", stale=("folder",), expected="is a folder"),
    Outside("raw-scores", stale=("topreward/key/shard",), expected="among the raw scores"),
    Outside("raw-scores-moved", moves=("topreward/key/shard",), expected="among the raw scores"),
    Outside("our-lock", stale=("topreward/.lock",), expected="among the raw scores"),
    Outside("staging-up", staging="../..", expected="no staging folder"),
    Outside("staging-deep", staging=".staging-x/1/2", expected="no staging folder"),
    Outside("staging-absolute", staging="{home}", expected="no staging folder"),
    Outside("staging-missing", staging=".staging-y", expected="no folder beside it"),
    Outside("staging-linked", staging=".staging-link", expected="no folder beside it"),
    Outside("staged-link", moves=("passwd",), expected="not a regular file"),
    Outside("staged-pipe", moves=("pipe",), expected="not a regular file"),
    Outside("staged-folder", moves=("deep",), expected="not a regular file"),
    Outside("staged-elsewhere", moves=("away/bashrc",), expected="leaves the staging folder"),
]

GARBAGE = {
    "cut": "{",
    "empty": "",
    "list": "[]",
    "null": "null",
    "number": "1",
    "no-keys": "{}",
    "no-stale": '{"staging": ".staging-x", "moves": []}',
    "one-more": '{"staging": ".staging-x", "moves": [], "stale": [], "then": "x"}',
    "text-for-a-list": '{"staging": ".staging-x", "moves": "ab", "stale": []}',
    "numbers": '{"staging": ".staging-x", "moves": [1], "stale": []}',
    "null-list": '{"staging": ".staging-x", "moves": null, "stale": []}',
    "null-staging": '{"staging": null, "moves": [], "stale": []}',
    "deep": DEEP,
    "not-utf8": b"\xff\xfe",
}


@pytest.fixture(scope="session")
def dataset(record_dataset: RecordDataset) -> Path:
    return record_dataset(lengths=(3, 2), cameras=("front",), size=(32, 32))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / "bashrc").write_text("mine")
    return home


@pytest.fixture
def output(tmp_path: Path, home: Path) -> Path:
    """What an archive can hold beside a dataset."""
    output = tmp_path / "demo_topreward"
    for name in ("README.md", "folder/file", "topreward/key/shard"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("old")
    staging = output / "topreward" / STAGING
    (staging / "deep").mkdir(parents=True)
    (staging / "bashrc").write_text("evil")
    (staging / "passwd").symlink_to(home / "bashrc")
    os.mkfifo(staging / "pipe")
    (staging / "away").symlink_to(home)
    (output / "topreward/.staging-link").symlink_to(home)
    (output / "linked").symlink_to(home)
    (output / "circle").symlink_to("circle")
    return output


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused, in two lines at most."""

    def run(*arguments: str | Path, code: int = 2) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        said = capfd.readouterr()
        assert stopped.value.code == code, said
        assert "Traceback" not in said.err
        assert len(said.err.strip().splitlines()) <= 2, said.err
        return said.err

    return run


def label(dataset: Path, output: Path, vlm: Path) -> tuple[str | Path, ...]:
    return ("label", "--root", dataset, "--vlm", vlm, "--output", output, "--write", "sidecar")


@pytest.fixture(scope="session")
def labelled_once(dataset: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("journal") / "out"
    with pytest.raises(SystemExit, match="0"):
        main(list(map(str, label(dataset, output, tiny_vlm))))
    return output


@pytest.fixture
def labelled(labelled_once: Path, tmp_path: Path) -> Path:
    """The output of a run that has ended, to be damaged."""
    return shutil.copytree(labelled_once, tmp_path / "out")


@pytest.mark.parametrize("case", JOURNALS, ids=lambda case: case.name)
def test_a_journal_reaches_nothing_outside(
    case: Outside,
    dataset: Path,
    output: Path,
    home: Path,
    tiny_vlm: Path,
    hashes: Hashes,
    refused: Callable[..., str],
) -> None:
    def filled(text: str) -> str:
        return text.replace("{home}", str(home)).replace("{output}", str(output))

    journal = {
        "staging": filled(case.staging),
        "moves": list(map(filled, case.moves)),
        "stale": list(map(filled, case.stale)),
    }
    path = output / "topreward/commit.json"
    path.write_text(json.dumps(journal))
    before = hashes(output) | hashes(home)
    said = refused(*label(dataset, output, tiny_vlm))
    assert case.expected in said
    assert f"Delete {path}" in said
    assert {**hashes(output), **hashes(home)}.items() >= before.items()


@pytest.mark.parametrize("in_place", [False, True], ids=["output", "in-place"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_journal_of_garbage_is_one_sentence(
    garbage: str,
    in_place: bool,
    dataset: Path,
    tmp_path: Path,
    tiny_vlm: Path,
    hashes: Hashes,
    refused: Callable[..., str],
) -> None:
    root = shutil.copytree(dataset, tmp_path / "demo")
    folder = (root if in_place else tmp_path / "demo_topreward") / "topreward"
    (folder / STAGING).mkdir(parents=True)
    content = GARBAGE[garbage]
    (folder / "commit.json").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    before = hashes(root)
    options = ("--in-place",) if in_place else ()
    said = refused("label", "--root", root, "--vlm", tiny_vlm, *options)
    assert f"{folder / 'commit.json'}" in said
    assert "Delete" in said
    assert {name: hashes(root)[name] for name in before} == before


SHARD_DAMAGE: dict[str, Callable[[Path], object]] = {
    "first-row": lambda path: pq.write_table(pq.read_table(path).slice(0, 1), path),
    "no-rows": lambda path: pq.write_table(pq.read_table(path).slice(0, 0), path),
    "not-finite": lambda path: put(path, "log_prob_true", float("nan")),
    "infinite": lambda path: put(path, "log_prob_false", float("-inf")),
    "positive": lambda path: put(path, "log_prob_true", 0.5),
    "other-prefix": lambda path: put(path, "prefix_length", 2),
    "other-frame": lambda path: put(path, "frame_index", 99),
    "other-control": lambda path: put(path, "control", "static"),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "no-header": lambda path: pq.write_table(
        pq.read_table(path).replace_schema_metadata(None), path
    ),
    "header-list": lambda path: head(path, b"[1]"),
    "header-deep": lambda path: head(path, DEEP.encode()),
    "header-garbage": lambda path: head(path, b"\xff{"),
}


def put(path: Path, column: str, value: object) -> None:
    table = pq.read_table(path)
    values = [value, *table[column].to_pylist()[1:]]
    number, field = table.schema.get_field_index(column), table.schema.field(column)
    pq.write_table(table.set_column(number, field, pa.array(values, field.type)), path)


def head(path: Path, header: bytes) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"topreward": header}), path)


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_a_damaged_shard_is_scored_again_and_named(
    damage: str,
    dataset: Path,
    labelled: Path,
    tiny_vlm: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = list(map(str, label(dataset, labelled, tiny_vlm)))
    (first, second) = sorted(labelled.glob("topreward/*/episode_*.parquet"))
    whole, kept = first.read_bytes(), second.stat().st_mtime_ns
    SHARD_DAMAGE[damage](first)
    capfd.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(command)
    said = capfd.readouterr().out
    assert "the stored scores of episode 0 are damaged: scored again" in said
    assert first.read_bytes() == whole
    assert second.stat().st_mtime_ns == kept


def to_victim(path: Path, victim: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(victim)


def moved(path: Path, victim: Path) -> None:
    path.rename(victim.parent / "moved")
    path.symlink_to(victim.parent / "moved")


@dataclass(frozen=True)
class Planted:
    """A link or garbage where the next run writes or reads; `*` in a path is the store's name."""

    name: str
    path: str
    plant: Callable[[Path, Path], object] = to_victim
    expected: str | None = None  # None: the run goes on, and writes elsewhere


PLANTED = [
    Planted("lock", "topreward/.lock", expected=".lock must not be a link"),
    Planted("run-draft", "topreward/*/.run.json.partial"),
    Planted("shard-draft", "topreward/*/.episode_000000.parquet.partial"),
    Planted("sidecar-draft", ".topreward_progress.parquet.partial"),
    Planted("work-folder", "topreward", moved, "must be a folder, not a link"),
    Planted("store", "topreward/*", moved, "must be a folder, not a link"),
    *(
        Planted(
            f"run-{name}",
            "topreward/*/run.json",
            lambda path, _, text=text: path.write_text(text),
            "run.json must hold a JSON object",
        )
        for name, text in (("list", "[]"), ("null", "null"), ("cut", "{"), ("deep", DEEP))
    ),
    Planted(
        "run-pipe",
        "topreward/*/run.json",
        lambda path, _: (path.unlink(), os.mkfifo(path)),
        "run.json must be a file",
    ),
    Planted(
        "run-of-nobody",
        "topreward/*/run.json",
        lambda path, _: path.write_text(
            '{"dataset": [], "fingerprint": {}, "recordings": {"a": 1}}'
        ),
        "no recording in common",
    ),
]


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_nothing_is_written_through_a_planted_link(
    case: Planted,
    dataset: Path,
    labelled: Path,
    home: Path,
    tiny_vlm: Path,
    hashes: Hashes,
    refused: Callable[..., str],
) -> None:
    command = label(dataset, labelled, tiny_vlm)
    (store,) = (path for path in (labelled / "topreward").iterdir() if path.is_dir())
    (store / "episode_000000.parquet").unlink()
    case.plant(labelled / case.path.replace("*", store.name), home / "bashrc")
    before = hashes(home)
    said = refused(*command, code=0 if case.expected is None else 2)
    assert case.expected is None or case.expected in said
    assert hashes(home) == before
