"""The folder of a curated dataset: made whole beside its place, then moved there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerobot_topreward.curate.record import read_record
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock
from lerobot_topreward.files.transaction import (
    DATASET_PARTS,
    FileOps,
    dataset_files,
    space_reported,
    sync,
)
from lerobot_topreward.publish.changes import CARD, CURATION_FILE
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.sidecar import SIDECAR_NAME

_OURS = {*DATASET_PARTS, CARD, CURATION_FILE, SIDECAR_NAME}


def check_output(output: Path, dataset: LabelledDataset) -> dict[str, Any] | None:
    """Refuse a folder that cannot be written, or holds what is not ours.

    What a run that was killed has left is put back or removed first; nothing else is changed.

    Args:
        output: where the curated dataset goes.
        dataset: what is curated.

    Returns:
        The record of an earlier curation of the same dataset that is there; None without one.

    Raises:
        UserError: says what is in the way.
    """
    root = dataset.source.root.resolve()
    for taken in (root, dataset.labels.resolve()):
        if output.is_relative_to(taken) or taken.is_relative_to(output):
            raise UserError(
                f"--output {output} must not lie within the dataset {taken}, nor around it"
            )
    parent = next(path for path in output.parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        state = "not writable" if parent.is_dir() else "not a folder"
        raise UserError(f"--output {output} cannot be written: {parent} is {state}")
    _finish_interrupted(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} must be a folder; it is a file")
    if not output.is_dir() or not any(output.iterdir()):
        return None
    return _earlier(output, dataset)


def _earlier(output: Path, dataset: LabelledDataset) -> dict[str, Any]:
    record = read_record(output)
    others = sorted({entry.name for entry in output.iterdir()} - _OURS)
    if record is None or others:
        held = others or sorted(entry.name for entry in output.iterdir())
        raise UserError(
            f"--output {output} is not empty: it holds {', '.join(held[:3])}"
            f"{', ...' if len(held) > 3 else ''}, which curate did not write. Choose another folder"
        )
    source = record["source"]
    if source["fingerprint"] != dataset.source.fingerprints.dataset:
        raise UserError(
            f"--output {output} is not empty: it holds what was kept of {source['dataset']} "
            f"({source['fingerprint'][:12]}), not of {dataset.source.repo_id} "
            f"({dataset.source.fingerprints.dataset[:12]}). Choose another folder"
        )
    return record


def _beside(output: Path) -> Path:
    return output.with_name(f".{output.name}.curate")


def _finish_interrupted(output: Path) -> None:
    """Put back what a run was about to replace when it was killed, and remove what it had made."""
    beside = _beside(output)
    if not os.path.lexists(beside):
        return
    if beside.is_symlink() or not beside.is_dir():
        raise UserError(f"{beside} must be a folder that curate made; remove it and run again")
    with output_lock(beside):
        old = beside / "old"
        if old.is_dir() and not old.is_symlink() and not os.path.lexists(output):
            old.rename(output)
            sync(output.parent)
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def made_beside(output: Path, *, needed: int) -> Iterator[Path]:
    """Make a folder beside its place, and move it there when all of it is written.

    Args:
        output: from `check_output`; what an earlier curation left there is replaced.
        needed: bytes to be written, estimated.

    Yields:
        A path that does not exist yet, to make the folder at.

    Raises:
        UserError: another run makes the same folder, or there is no room on the disk.
    """
    beside = _beside(output)
    draft, old = beside / "draft", beside / "old"
    with output_lock(beside):
        try:
            with space_reported(beside, needed=needed, ops=FileOps()):
                yield draft
            for folder, _, names in draft.walk():
                for name in names:
                    sync(folder / name)
                sync(folder)
            _swap(draft, output, old=old)
        finally:
            # The lock's file goes with it: nobody else can have opened it with success.
            shutil.rmtree(beside, ignore_errors=True)


def _swap(draft: Path, output: Path, *, old: Path) -> None:
    replaces = output.exists()
    if replaces:
        output.rename(old)
    try:
        draft.rename(output)
    except BaseException:
        if replaces:
            old.rename(output)
        raise
    sync(output.parent)


def dataset_bytes(dataset: LabelledDataset) -> int:
    """How much a dataset takes on the disk, without its raw scores.

    Raises:
        UserError: a link leaves the dataset, or a file is not a regular one.
    """
    root = dataset.source.root
    return sum(
        (root / path).stat().st_size for path in dataset_files(root, parts={*DATASET_PARTS, CARD})
    )
