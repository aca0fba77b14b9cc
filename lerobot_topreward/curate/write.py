"""The curated dataset: its folder, what is in it, and ``curation.json``, which says why.

The folder is made whole beside its place by LeRobot's own deletion, with what that leaves behind
carried over, and then moved there. In ``curation.json``::

    {"format": 1, "version": ..., "source": {dataset, revision, fingerprint}, "labels": provenance,
     "rules": {...}, "threshold": nats or null, "trim": {...} or null, "kept": {old: new index},
     "dropped": {episode: [reasons]}, "notes": {episode: {"text", "tags"}},
     "trimmed": {old index: [start, stop]}, "fingerprint": ...}
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_topreward import __version__
from lerobot_topreward.curate.plan import CURATED, Plan
from lerobot_topreward.curate.trim import trim_dataset
from lerobot_topreward.data.dataset import fetch_videos, open_source, require_files
from lerobot_topreward.data.frames import FrameTable
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock, require_space, sync, write_file
from lerobot_topreward.files.copying import DATASET_PARTS, copy_file, dataset_files
from lerobot_topreward.files.jsonable import plain, read_json_object
from lerobot_topreward.publish.changes import CARD, CURATION_FILE
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.output import check_apart, check_writable, foreign_files
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, write_sidecar

_FORMAT = 1
_ADVICE = "Choose another `output`"
_OURS = {*DATASET_PARTS, CARD, CURATION_FILE, SIDECAR_NAME}


def prepare_output(output: Path, plan: Plan) -> dict[str, Any] | None:
    """Refuse a folder that cannot be written, or holds what is not ours.

    What a run that was killed has left is put back or removed first; nothing else is changed.

    Returns:
        The record of an earlier curation of the same dataset that is there; None without one.

    Raises:
        UserError: says what is in the way.
    """
    name, dataset = f"`output={output}`", plan.source
    for folder in {dataset.root, dataset.root if plan.labels is None else plan.labels.labels}:
        check_apart(output, folder.resolve(), name=name)
    check_writable(output.parent, name=name)
    _finish_interrupted(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"{name} must be a folder; it is a file")
    names = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    if not names:
        return None
    record = _read_record(output / CURATION_FILE)
    others = names - _OURS
    if record is None or others:
        advice = "curate did not write. Choose another folder"
        raise foreign_files(others or names, name=name, advice=advice)
    source, fingerprint = record["source"], dataset.fingerprints.dataset
    if source["fingerprint"] != fingerprint:
        raise UserError(
            f"{name} is not empty: it holds what was kept of {source['dataset']} "
            f"({source['fingerprint'][:12]}), not of {dataset.repo_id} "
            f"({fingerprint[:12]}). Choose another folder"
        )
    return record


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    record = read_json_object(path, advice=_ADVICE)
    source = record.get("source")
    if (
        record.get("format") != _FORMAT
        or not isinstance(source, dict)
        or not all(isinstance(source.get(name), str) for name in ("dataset", "fingerprint"))
    ):
        raise UserError(f"{path} must be a record of curate's format {_FORMAT}. {_ADVICE}")
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
def _replace_folder(output: Path, *, needed: int) -> Iterator[Path]:
    """Give a path to make a folder of about so many bytes at; move it into place when it is made.

    A whole folder is replaced by two renames, for which no journal is needed: the old one is moved
    away, then the new one takes its name. Whoever is killed between them leaves ``old`` in the work
    folder and nothing in its place, and the next run puts it back.
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


def write_curated(plan: Plan, output: Path) -> None:
    """Make the dataset that is left, with its labels; all of it or nothing.

    Args:
        plan: what is kept, and which part of each episode.
        output: after `prepare_output`; what an earlier curation left there is replaced.

    Raises:
        UserError: it cannot be written, another run makes it, or LeRobot cannot cut its videos.
    """
    source = plan.source
    fetch_videos(source)
    require_videos(plan)
    files = dataset_files(source.root, parts={*DATASET_PARTS, CARD})
    needed = sum((source.root / path).stat().st_size for path in files)
    with _replace_folder(output, needed=needed) as folder:
        name = f"local/{output.name}"
        if plan.dropped:
            from lerobot_topreward.curate.deletion import delete_dropped  # takes seconds

            delete_dropped(plan, folder, name=name)
            files = [path for path in files if path == Path(CARD)]
        else:
            folder.mkdir()
        for path in files:
            copy_file(source.root / path, folder / path)
        if plan.spans:
            new = {old: index for index, old in enumerate(plan.kept)}
            trim_dataset(folder, {new[old]: span for old, span in plan.spans.items()})
        made = open_source(repo_id=name, root=folder, revision=None)
        fingerprint = made.fingerprints.dataset
        if plan.labels is not None:
            write_sidecar(
                folder / SIDECAR_NAME,
                _select_rewards(plan, plan.labels, made.frames),
                fingerprint=fingerprint,
                provenance=curated_provenance(plan),
            )
        record = {**curation_record(plan), "fingerprint": fingerprint}
        write_file(folder / CURATION_FILE, json.dumps(record, indent=1))


def require_videos(plan: Plan) -> None:
    """Check that all files of the kept episodes are here.

    Raises:
        UserError: one is missing.
    """
    advice = "use `episodes_file`, which needs no videos"
    require_files(plan.source, plan.kept, advice=advice)


def _select_rewards(plan: Plan, labels: LabelledDataset, made: FrameTable) -> FrameRewards:
    """The labels of the frames that are left, in their new order."""
    frames = plan.source.frames
    rows = []
    for episode in plan.kept:
        whole = frames.index[frames.rows(episode)]
        span = plan.spans.get(episode, range(len(whole)))
        rows.append(whole[span.start : span.stop])
    return replace(
        labels.stored.take(np.concatenate(rows)),
        index=made.index,
        episode_index=made.episode_index,
        frame_index=made.frame_index,
    )


def curation_record(plan: Plan) -> dict[str, Any]:
    """Describe a curation in plain values; the same plan, the same record."""
    return plain(
        {
            "format": _FORMAT,
            "version": __version__,
            "source": _describe_source(plan),
            "labels": None if plan.labels is None else dict(plan.labels.provenance),
            "rules": plan.request,
            "threshold": None if plan.chosen is None else plan.chosen.threshold.value,
            "trim": plan.trim,
            "kept": {old: new for new, old in enumerate(plan.kept)},
            "dropped": {verdict.episode_index: verdict.reasons for verdict in plan.dropped},
            "notes": dict(sorted(plan.notes.items())),
            "trimmed": {old: (span.start, span.stop) for old, span in sorted(plan.spans.items())},
        }
    )


def curated_provenance(plan: Plan) -> dict[str, Any]:
    """Where the labels come from, and every curation since, this one last."""
    before = {} if plan.labels is None else dict(plan.labels.provenance)
    how = {"rules": plan.request, "trim": plan.trim, "version": __version__}
    labeled = set(plan.kept) - set(plan.unlabelled)
    counts = {"episodes_labelled": len(labeled), "episodes_total": len(plan.kept)}
    steps = [*before.get(CURATED, []), {**_describe_source(plan), **how}]
    return plain({**before, **counts, CURATED: steps})


def _describe_source(plan: Plan) -> dict[str, Any]:
    source = plan.source
    fingerprint = source.fingerprints.dataset
    return {"dataset": source.repo_id, "revision": source.revision, "fingerprint": fingerprint}
