"""An inspection is kept beside the labels, so that a recording which has not changed is read once.

What was found is believed only with a digest of all that it was made of: every value, time, task and
name of the recording, and the code of the checks.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.recording import RecordedDataset, open_recorded
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import (
    WORK_FOLDER,
    remove,
    replace_file,
    report_full_disk,
)
from lerobot_topreward.judging.coverage import Coverage
from lerobot_topreward.judging.findings import inspect_dataset
from lerobot_topreward.judging.inspection import Inspection
from lerobot_topreward.judging.motion import Motion
from lerobot_topreward.records import Finding

_ROWS = ("episode_index", "frame_index", "timestamp", "task_index")  # of data/, besides the values
# What it is computed by, beside the reader of recordings.
_CODE = ("coverage", "defects", "inspection", "motion", "profile")
_LEVELS = get_args(get_type_hints(Finding)["level"])
_NUMBERS = (
    *("seconds", "idle_share", "longest_idle", "jerk", "path", "reversals", "resumes", "saturated"),
)
_SCHEMA = pa.schema(
    [("episode_index", pa.int64()), ("task", pa.string())]
    + [(name, pa.float64()) for name in _NUMBERS]
    + [("idle", pa.list_(pa.bool_())), ("agreement", pa.list_(pa.float64()))]
    + [("repeats", pa.list_(pa.int64()))]  # none, or the first and the last frame
)


@dataclass(frozen=True, slots=True)
class Inspected:
    """An inspection, and whether it was kept beside the labels already."""

    inspection: Inspection
    digest: str | None  # of what it was made of; None where that cannot be said
    kept: bool = False

    def keep(self, labels: Path) -> None:
        """Keep it beside the labels, whose folder this process holds, unless it is kept."""
        if self.digest is not None and not self.kept:
            keep_inspection(kept_in(labels), self.inspection, digest=self.digest)


def inspect_source(
    source: Source, *, labels: Path | None, episodes: Sequence[int] | None = None
) -> Inspected:
    """Check episodes of a dataset, or all, whose data are here; what is kept is not found again.

    Args:
        source: the dataset.
        labels: the folder in which ``label`` keeps what it found; None where there are no labels.
        episodes: all by default.

    Raises:
        UserError: ``meta/`` or ``data/`` cannot be read.
    """
    option = f"the dataset in {source.root}"
    recorded = open_recorded(source.root, repo_id=source.repo_id, option=option)
    chosen = range(len(recorded.lengths)) if episodes is None else episodes
    digest = None
    if labels is not None:
        try:
            digest = digest_recording(source, recorded, chosen)
        except (pa.ArrowException, OSError, LookupError):
            digest = None  # the checks say what is wrong with the files
    if labels is not None and digest is not None:
        found = recall_inspection(kept_in(labels), digest=digest)
        if found is not None:
            return Inspected(found, digest, kept=True)
    return Inspected(inspect_dataset(recorded, chosen), digest)


def try_inspecting(source: Source, *, labels: Path) -> Inspection | UserError:
    """Check all episodes of a labeled dataset, or give the reason why not, where that stops nothing."""
    try:
        return inspect_source(source, labels=labels).inspection
    except UserError as error:
        return error


def kept_in(labels: Path) -> Path:
    """Where the inspection of a dataset is kept, given the folder of its labels."""
    return labels / WORK_FOLDER / "recording.parquet"


def digest_recording(source: Source, recorded: RecordedDataset, episodes: Sequence[int]) -> str:
    """Hash all that an inspection of these episodes is made of, the code of the checks included.

    Raises:
        UserError: ``data/`` cannot be read.
        pyarrow.ArrowException: it lacks a column.
    """
    digest = hashlib.sha256(_digest_code().encode())
    about = (recorded.fps, recorded.signals, recorded.columns, recorded.lengths)
    rest = (sorted(recorded.tasks.items()), sorted(recorded.files.items()), list(episodes))
    digest.update(repr((about, rest)).encode())
    digest.update(source.fingerprints.dataset.encode())  # the values
    for name in recorded.files:
        # In the order of the file, as the inspection reads it.
        table = pq.read_table(source.root / name, columns=[*_ROWS])
        types = pq.read_schema(source.root / name)
        digest.update(repr([str(types.field(column).type) for column in recorded.columns]).encode())
        for column in _ROWS:
            values = table[column].combine_chunks().to_numpy(zero_copy_only=False)
            digest.update(f"{column}:{values.dtype}:{len(values)};".encode())
            digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


@cache
def _digest_code() -> str:
    """Hash what the inspection is computed by: another version may find something else."""
    own = [Path(__file__).with_name(f"{name}.py") for name in _CODE]
    reader = Path(__file__).parents[1] / "data/recording.py"
    return hashlib.sha256(b"".join(module.read_bytes() for module in (*own, reader))).hexdigest()


def keep_inspection(path: Path, inspection: Inspection, *, digest: str) -> None:
    """Write an inspection and the digest of what it was made of; the folder exists.

    Raises:
        UserError: the disk is full.
    """
    motions = [*inspection.motions.values()]
    columns: dict[str, list[Any]] = {
        name: [getattr(motion, name) for motion in motions] for name in _SCHEMA.names
    }
    columns["repeats"] = [list(motion.repeats or ()) for motion in motions]
    findings = [
        [each.episode_index, each.level, each.defect, each.text, each.frames]
        for each in inspection.findings
    ]
    coverage = [
        [each.task, each.episodes, each.names, each.starts.tolist()] for each in inspection.coverage
    ]
    about = {"digest": digest, "findings": findings, "coverage": coverage}
    table = pa.table(columns, schema=_SCHEMA.with_metadata({"topreward": json.dumps(about)}))
    if path.is_dir():  # no run of ours put it there
        remove(path)
    with report_full_disk(path.parent), replace_file(path) as draft:
        pq.write_table(table, draft)


def recall_inspection(path: Path, *, digest: str) -> Inspection | None:
    """Read an inspection that was made of the same; None where there is none, or it is damaged."""
    try:
        if not path.is_file():  # reading a pipe would never end
            return None
        schema = pq.read_schema(path)
        about = json.loads((schema.metadata or {})[b"topreward"])
        if about["digest"] != digest or not schema.equals(_SCHEMA):
            return None
        motions = _read_motions(pq.read_table(path))
        coverage = tuple(_read_coverage(*each) for each in about["coverage"])
        findings = tuple(_read_finding(*each) for each in about["findings"])
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, RecursionError):
        return None
    tasks = {episode: motion.task for episode, motion in motions.items()}
    return Inspection(findings, motions, tasks, coverage)


def _read_motions(table: pa.Table) -> dict[int, Motion]:
    """Raises ValueError where a row is not what was written."""
    table = table.combine_chunks()
    if any(column.null_count for column in table.columns):
        raise ValueError("a null")
    found = {name: table[name].to_pylist() for name in ("episode_index", "task", *_NUMBERS)}
    lists: dict[str, list[np.ndarray]] = {}
    for name in ("idle", "agreement", "repeats"):
        cells = table[name].combine_chunks()
        values = cells.flatten()
        if values.null_count:
            raise ValueError("a null")
        lengths = np.diff(cells.offsets.to_numpy())
        lists[name] = np.split(
            values.to_numpy(zero_copy_only=False).astype(values.type.to_pandas_dtype()),
            np.cumsum(lengths)[:-1],
        )
    motions: dict[int, Motion] = {}
    for row in range(len(table)):
        repeats = lists["repeats"][row].tolist()
        if len(repeats) not in (0, 2):
            raise ValueError("no run of frames")
        motion = Motion(
            **{name: values[row] for name, values in found.items()},
            idle=lists["idle"][row],
            agreement=lists["agreement"][row],
            repeats=(repeats[0], repeats[1]) if repeats else None,
        )
        motions[motion.episode_index] = motion
    return motions


def _read_finding(
    episode: int | None, level: Any, defect: str, text: str, frames: list[int] | None
) -> Finding:
    numbers = [] if episode is None else [episode]
    run = None
    if frames is not None:
        first, last = frames
        run = first, last
        numbers += run
    if level not in _LEVELS or {type(number) for number in numbers} - {int}:
        raise ValueError("no finding")
    if type(defect) is not str or type(text) is not str:
        raise ValueError("no finding")
    return Finding(episode, level, defect, text, run)


def _read_coverage(task: str, episodes: list[int], names: list[str], starts: list) -> Coverage:
    if type(task) is not str or {type(episode) for episode in episodes} - {int}:
        raise ValueError("no coverage")
    if {type(name) for name in names} - {str}:
        raise ValueError("no coverage")
    poses = np.array(starts, dtype=np.float64)
    if poses.shape != (len(episodes), len(names)):
        raise ValueError("no coverage")
    return Coverage(task, tuple(episodes), tuple(names), poses)
