"""What a recording was found to be is kept, and believed of that recording alone."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import change_rows, make_recordings, record_arm

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.judging import kept_inspection
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.kept_inspection import Inspected, inspect_source, kept_in


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve episodes, the first of which stands still for a while."""
    recordings = make_recordings()
    recordings[0].values[50:72] = recordings[0].values[50]
    return record_arm(tmp_path_factory.mktemp("recorded") / "arm", recordings)


@pytest.fixture
def arm(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "arm")


def inspect(root: Path, labels: Path) -> Inspected:
    return inspect_source(open_source(repo_id=None, root=root, revision=None), labels=labels)


def keep(root: Path) -> tuple[Path, Inspection]:
    """Inspect a dataset and keep what was found in a folder beside it."""
    labels = root.with_name("labels")
    kept_in(labels).parent.mkdir(parents=True)
    found = inspect(root, labels)
    assert not found.kept
    found.keep(labels)
    return labels, found.inspection


def require_equal(first: Inspection, second: Inspection) -> None:
    assert first.findings == second.findings
    assert first.tasks == second.tasks
    assert [*first.motions] == [*second.motions]
    for one, other in zip(first.motions.values(), second.motions.values(), strict=True):
        for name in one.__slots__:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    for one, other in zip(first.coverage, second.coverage, strict=True):
        assert (one.task, one.episodes, one.names) == (other.task, other.episodes, other.names)
        np.testing.assert_array_equal(one.starts, other.starts, strict=True)


def test_what_was_found_comes_back_exactly(arm: Path) -> None:
    labels, found = keep(arm)
    assert any(motion.repeats for motion in found.motions.values())
    assert found.findings
    assert found.coverage
    again = inspect(arm, labels)
    assert again.kept
    require_equal(again.inspection, found)
    # Of other episodes, something else is found.
    source = open_source(repo_id=None, root=arm, revision=None)
    few = inspect_source(source, labels=labels, episodes=[1, 2])
    assert not few.kept
    assert [*few.inspection.motions] == [1, 2]


def change_value(root: Path) -> None:
    def change(action: np.ndarray, episode: np.ndarray) -> None:
        action[np.flatnonzero(episode == 3)[7], 2] += 1e-3

    change_rows(root, "action", change)


def change_time(root: Path) -> None:
    def change(timestamp: np.ndarray, episode: np.ndarray) -> None:
        timestamp[np.flatnonzero(episode == 3)[7]] += 1e-3

    change_rows(root, "timestamp", change)


def change_task(root: Path) -> None:
    path = root / "meta/tasks.parquet"
    tasks = pq.read_table(path).to_pandas()
    tasks.index = tasks.index.map(lambda text: f"{text} again")
    tasks.to_parquet(path)


def change_name(root: Path) -> None:
    path = root / "meta/info.json"
    path.write_text(path.read_text().replace("elbow.pos", "gripper_2.pos"))


def change_length(root: Path) -> None:
    (path,) = (root / "meta/episodes").glob("*/*.parquet")
    table = pq.read_table(path)
    lengths = table["length"].to_pylist()
    lengths[4] += 1
    place = table.schema.get_field_index("length")
    pq.write_table(table.set_column(place, "length", pa.array(lengths)), path)


@pytest.mark.parametrize(
    "change", [change_value, change_time, change_task, change_name, change_length]
)
def test_a_changed_recording_is_inspected_again(arm: Path, change: Callable[[Path], None]) -> None:
    labels, _ = keep(arm)
    change(arm)
    assert not inspect(arm, labels).kept


def test_other_checks_inspect_again(arm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, _ = keep(arm)
    monkeypatch.setattr(kept_inspection, "_digest_code", lambda: "of another version")
    assert not inspect(arm, labels).kept


def test_all_code_of_the_checks_counts() -> None:
    imported: set[str] = set()
    for name in kept_inspection._CODE:
        code = Path(kept_inspection.__file__).with_name(f"{name}.py").read_text()
        imported |= {*re.findall(r"from lerobot_topreward\.judging\.(\w+) import", code)}
    assert imported <= {*kept_inspection._CODE}


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    """Change what the file says of itself."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"topreward"])
    about = change(about) or about
    pq.write_table(table.replace_schema_metadata({"topreward": json.dumps(about)}), path)


def with_column(path: Path, name: str, cells: list) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    own = pa.array(cells * len(table), table.schema.field(name).type)
    pq.write_table(table.set_column(place, table.schema.field(name), own), path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "text": lambda path: path.write_text("{}"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "another table": lambda path: pq.write_table(pa.table({"digest": ["x"]}), path),
    "no metadata": lambda path: pq.write_table(
        pq.read_table(path).replace_schema_metadata(None), path
    ),
    "a list": lambda path: rewrite(path, lambda _: ["x"]),
    "no findings": lambda path: rewrite(path, lambda about: about.pop("findings") and None),
    "another level": lambda path: rewrite(
        path, lambda about: about.update(findings=[[1, "fatal", "jump", "x", None]])
    ),
    "no text": lambda path: rewrite(
        path, lambda about: about.update(findings=[[1, "broken", "jump", 7, None]])
    ),
    "no episode": lambda path: rewrite(
        path, lambda about: about.update(findings=[["1", "broken", "jump", "x", None]])
    ),
    "one frame": lambda path: rewrite(
        path, lambda about: about.update(findings=[[1, "broken", "jump", "x", [1]]])
    ),
    "frames in words": lambda path: rewrite(
        path, lambda about: about.update(findings=[[1, "broken", "jump", "x", "ab"]])
    ),
    "starts of nobody": lambda path: rewrite(
        path, lambda about: about.update(coverage=[["x", [0, 1], ["a"], [[0.0]]]])
    ),
    "null in a row": lambda path: with_column(path, "jerk", [None]),
    "null in a list": lambda path: with_column(path, "agreement", [[None, 1.0]]),
    "three ends": lambda path: with_column(path, "repeats", [[1, 2, 3]]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_found_anew(arm: Path, damage: str) -> None:
    labels, found = keep(arm)
    DAMAGE[damage](kept_in(labels))
    again = inspect(arm, labels)
    assert not again.kept
    require_equal(again.inspection, found)
    again.keep(labels)
    assert inspect(arm, labels).kept


def test_without_labels_nothing_is_read_or_kept(arm: Path) -> None:
    source = open_source(repo_id=None, root=arm, revision=None)
    found = inspect_source(source, labels=None)
    found.keep(arm)
    assert not kept_in(arm).exists()
    assert found.digest is None
