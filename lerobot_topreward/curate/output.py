"""The folder of a curated dataset: made whole beside its place, then moved there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lerobot_topreward.curate.record import read_record
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock, require_space, sync
from lerobot_topreward.files.copying import DATASET_PARTS, dataset_files
from lerobot_topreward.publish.changes import CARD, CURATION_FILE
from lerobot_topreward.storage.output import check_apart, check_writable, foreign_files
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.sidecar import SIDECAR_NAME

_OURS = {*DATASET_PARTS, CARD, CURATION_FILE, SIDECAR_NAME}


def prepare_output(output: Path, dataset: LabelledDataset) -> dict[str, Any] | None:
    """Refuse a folder that cannot be written, or holds what is not ours.

    What a run that was killed has left is put back or removed first; nothing else is changed.

    Returns:
        The record of an earlier curation of the same dataset that is there; None without one.

    Raises:
        UserError: says what is in the way.
    """
    name = f"--output {output}"
    for folder in (dataset.source.root, dataset.labels):
        check_apart(output, folder.resolve(), name=name)
    check_writable(output.parent, name=name)
    _finish_interrupted(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"{name} must be a folder; it is a file")
    names = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    if not names:
        return None
    record = read_record(output)
    others = names - _OURS
    if record is None or others:
        advice = "curate did not write. Choose another folder"
        raise foreign_files(others or names, name=name, advice=advice)
    source = record["source"]
    if source["fingerprint"] != dataset.source.fingerprints.dataset:
        raise UserError(
            f"{name} is not empty: it holds what was kept of {source['dataset']} "
            f"({source['fingerprint'][:12]}), not of {dataset.source.repo_id} "
            f"({dataset.source.fingerprints.dataset[:12]}). Choose another folder"
        )
    return record


def _work_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.curate")


def _finish_interrupted(output: Path) -> None:
    """Put back what a run was about to replace when it was killed, and remove what it had made."""
    work = _work_folder(output)
    if not os.path.lexists(work):
        return
    if work.is_symlink() or not work.is_dir():
        raise UserError(f"{work} must be a folder that curate made; remove it and run again")
    with output_lock(work):
        old = work / "old"
        if old.is_dir() and not old.is_symlink() and not os.path.lexists(output):
            old.rename(output)
            sync(output.parent)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def replace_folder(output: Path, *, needed: int) -> Iterator[Path]:
    """Make a folder beside its place, and move it there when all of it is written.

    A whole folder is replaced by two renames, for which no journal is needed: the old one is moved
    away, then the new one takes its name. Whoever is killed between them leaves ``old`` in the work
    folder and nothing in its place, and the next run puts it back.

    Args:
        output: from `prepare_output`; what an earlier curation left there is replaced.
        needed: bytes to be written, estimated.

    Yields:
        A path that does not exist yet, to make the folder at.

    Raises:
        UserError: another run makes the same folder, or there is no room on the disk.
    """
    work = _work_folder(output)
    draft, old = work / "draft", work / "old"
    with output_lock(work):
        try:
            with require_space(work, needed=needed):
                yield draft
            for folder, _, names in draft.walk():
                for name in names:
                    sync(folder / name)
                sync(folder)
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
        finally:
            # The lock's file goes with it: nobody else can have opened it with success.
            shutil.rmtree(work, ignore_errors=True)


def count_bytes(dataset: LabelledDataset) -> int:
    """How much a dataset takes on the disk, without its raw scores.

    Raises:
        UserError: a link leaves the dataset, or a file is not a regular one.
    """
    root = dataset.source.root
    parts = {*DATASET_PARTS, CARD}
    return sum((root / path).stat().st_size for path in dataset_files(root, parts=parts))
