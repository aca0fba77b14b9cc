"""Ways in which a stranger damages a dataset."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"
CAMERA = "observation.images.front"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
NOWHERE = "is a link to nothing"
OUTSIDE = "leads out of the dataset"
IRREGULAR = "must be a regular file"

Break = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    name: str
    damage: Break
    says: str  # nothing where the labels must be those of the whole dataset


def write(name: str, content: bytes) -> Break:
    return lambda root: (root / name).write_bytes(content)


def info(**changes: Any) -> Break:
    def edit(root: Path) -> None:
        content = json.loads((root / INFO).read_text()) | changes
        (root / INFO).write_text(json.dumps(content))

    return edit


def without(key: str) -> Break:
    def edit(root: Path) -> None:
        content = json.loads((root / INFO).read_text())
        del content[key]
        (root / INFO).write_text(json.dumps(content))

    return edit


def feature(name: str, **changes: Any) -> Break:
    """Change a feature's description; a value of ... removes the key."""

    def edit(root: Path) -> None:
        content = json.loads((root / INFO).read_text())
        changed = {**content["features"].get(name, {}), **changes}
        content["features"][name] = {k: v for k, v in changed.items() if v is not ...}
        (root / INFO).write_text(json.dumps(content))

    return edit


def table(name: str, change: Callable[[pa.Table], pa.Table]) -> Break:
    return lambda root: pq.write_table(change(pq.read_table(root / name)), root / name)


def column(name: str, key: str, values: Any, kind: pa.DataType | None = None) -> Break:
    """Replace a column by values, by what a function makes of its own, or, with None, by nothing."""

    def change(whole: pa.Table) -> pa.Table:
        place = whole.schema.get_field_index(key)
        assert place >= 0
        if values is None:
            return whole.remove_column(place)
        new = values(whole[key].to_pylist()) if callable(values) else values
        return whole.set_column(place, key, pa.array(new, kind or whole.schema.field(key).type))

    return table(name, change)


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


def truncated(name: str, kept: float = 0.5) -> Break:
    return lambda root: os.truncate(root / name, int(kept * (root / name).stat().st_size))


def flipped(name: str) -> Break:
    """Overwrite the first pages of a file, leaving its footer as it is."""

    def damage(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[:4] + b"\xa5" * 200 + content[204:])

    return damage


def gone(name: str) -> Break:
    return lambda root: (
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    )


def replaced(name: str, make: Callable[[Path], object]) -> Break:
    def damage(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return damage


def linked(name: str, target: str | None = None) -> Break:
    """Put a link in the place of a file: to a copy outside the dataset, or to a target."""

    def damage(root: Path) -> None:
        outside = root.parent / "outside"
        outside.mkdir()
        shutil.move(root / name, outside / "file")
        (root / name).symlink_to(target or outside / "file")

    return damage


def linked_folder(name: str) -> Break:
    def damage(root: Path) -> None:
        shutil.move(root / name, root.parent / "outside")
        (root / name).symlink_to(root.parent / "outside")

    return damage


def oddities(name: str) -> list[Case]:
    """What may stand in the place of any file that is read."""
    return [
        Case(f"{name} is a folder", replaced(name, Path.mkdir), IRREGULAR),
        Case(f"{name} is a pipe", replaced(name, os.mkfifo), f"{IRREGULAR}; it is a pipe"),
        Case(f"{name} leads outside", linked(name), OUTSIDE),
        Case(f"{name} leads to /dev/zero", linked(name, "/dev/zero"), OUTSIDE),
        Case(f"{name} leads nowhere", linked(name, "/nowhere/at/all"), NOWHERE),
        Case(f"{name} leads to itself", linked(name, Path(name).name), NOWHERE),
    ]


def described(**changes: Any) -> Mapping[bytes, bytes]:
    return {b"huggingface": json.dumps(changes).encode()}
