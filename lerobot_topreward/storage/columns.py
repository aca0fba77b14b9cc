"""The only writer of datasets: rewards become columns of a LeRobot v3.0 dataset.

============================  =======  ===========================================================
``topreward.log_prob``        float32  log P(True), nats, <= 0
``topreward.log_prob_false``  float32  log P(False), nats, <= 0
``topreward.progress``        float32  0..1
``topreward.advantage``       float32  progress gained over the horizon, -1..1
``topreward.labelled``        bool     False where an episode failed or was not asked for
``topreward.scored``          bool     the last frame of a scored prefix: its scores are raw
============================  =======  ===========================================================

If asked for, ``next.reward`` and ``next.success`` (see `NextRewards`) are written beside them; ours
are removed where they are not. All have shape (1,). Where ``labelled`` is False the others are 0, so
that every frame is finite. How they were made is in ``meta/info.json``, under ``info`` of
``topreward.log_prob``: LeRobot's own tools keep it there, and they drop the sidecar.
Their statistics are in ``meta/episodes`` and ``meta/stats.json``, without which LeRobot's own tools
would drop them. Only ``data/``, ``meta/episodes``, ``meta/stats.json`` and ``meta/info.json``
are written anew, beside the sidecar; no video is ever encoded again.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lerobot_topreward.data.info import DATA_DIR, EPISODES_DIR, INFO_PATH, STATS_PATH
from lerobot_topreward.files.atomic import DISK, FileOps, require_space, write_file
from lerobot_topreward.files.copying import (
    DATASET_PARTS,
    VIDEO_PARTS,
    can_clone,
    copy_file,
    dataset_files,
)
from lerobot_topreward.files.transaction import (
    MANIFEST,
    commit,
    finish_interrupted,
    staging_folder,
)
from lerobot_topreward.records import FrameRewards, NextRewards
from lerobot_topreward.storage.output import (
    check_output,
    describe_lineage,
    hash_file,
    visible_files,
)
from lerobot_topreward.storage.rewriting import Columns, stage_rewritten
from lerobot_topreward.storage.sidecar import (
    COLUMNS_BYTES,
    ROW_BYTES,
    SIDECAR_NAME,
    check_finite,
    write_sidecar,
)
from lerobot_topreward.storage.store import read_run

_ANNOUNCED_BYTES = 5_000_000  # of videos to be copied


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where each file of the output comes from; paths are relative to the dataset."""

    data: Sequence[Path]  # rewritten
    episodes: Sequence[Path]  # rewritten
    copied: Mapping[Path, bool]  # whether by a hard link, where that can be made
    current: Sequence[Path]  # in the output already
    stale: Sequence[Path]  # in the output, of an earlier layout of the same dataset


def write_columns(
    source_root: Path,
    rewards: FrameRewards,
    output: Path,
    *,
    fingerprint: str,
    provenance: Mapping[str, Any],
    recordings: Sequence[str] = (),
    sidecar: bool = True,
    link_videos: bool = False,
    overwrite: bool = False,
    next_rewards: NextRewards | None = None,
    console: Console | None = None,
    ops: FileOps = DISK,
) -> None:
    """Write a dataset with the reward columns, and its sidecar; all of it or nothing.

    Columns and sidecar that are already there are replaced, unless they were made of the same. Raw
    scores are left alone, hidden folders are not carried over. Memory is bounded by one row group.
    What was written is noted in ``topreward/written.json``, so that later changes are seen; not in
    place, where the dataset belongs to the user.

    Args:
        source_root: the dataset's folder, complete with its videos; unchanged unless it is
            `output`.
        rewards: every frame of the dataset.
        output: a folder that does not exist, holds at most ``topreward/`` or an
            earlier output for the same dataset, or is `source_root`.
        fingerprint: the dataset's.
        provenance: how the rewards were made, for the sidecar; ``dataset`` in it is its name.
        recordings: see `check_output`.
        sidecar: write it too; if not, an old one, which would disagree, is removed.
        link_videos: share the videos' bytes with the source, which tools that edit videos in place
            then change as well.
        overwrite: see `check_output`.
        next_rewards: of the same frames; the dataset has none of its own.
        console: is told of a large copy.
        ops: file operations.

    Raises:
        UserError: the output is in the way or cannot be written, or there is no room on the disk.
        ValueError: the rewards are not finite or not those of the dataset's frames.
    """
    check_finite(rewards)
    source_root, output = source_root.resolve(), output.resolve()
    dataset = str(provenance.get("dataset"))
    finish_interrupted(output, ops=ops)
    check_output(
        source_root,
        output,
        fingerprint=fingerprint,
        dataset=dataset,
        recordings=recordings,
        overwrite=overwrite,
    )
    plan = _plan_files(source_root, output, link_videos=link_videos, overwrite=overwrite)
    columns = Columns.of(rewards, next_rewards)
    made_of = _describe_inputs(source_root, plan, columns, {**provenance, "of": fingerprint})
    renew = overwrite or output == source_root or plan.copied or plan.stale
    if not renew and _is_made_of(made_of, output, sidecar=sidecar):
        return
    with staging_folder(output) as staging:
        named = (Path(STATS_PATH), Path(INFO_PATH), Path(SIDECAR_NAME))
        rewritten = [source_root / path for path in (*plan.data, *plan.episodes, *named)]
        needed = sum(path.stat().st_size for path in rewritten if path.is_file())
        needed += (COLUMNS_BYTES + ROW_BYTES) * len(rewards.index)  # in the data and the sidecar
        needed += _count_copied_bytes(plan, source_root, output, staging, console, ops)
        with require_space(output, needed=needed, ops=ops):
            stage_rewritten(
                source_root, staging, columns, provenance, data=plan.data, episodes=plan.episodes
            )
            if sidecar:
                write_sidecar(
                    staging / SIDECAR_NAME, rewards, fingerprint=fingerprint, provenance=provenance
                )
            for path, link in plan.copied.items():
                copy_file(source_root / path, staging / path, link=link, ops=ops)
            moves = [*plan.copied, *plan.data, *plan.episodes, Path(STATS_PATH)]
            stale = [*plan.stale]
            (moves if sidecar else stale).append(Path(SIDECAR_NAME))
            # info.json comes last: without it a half-moved folder is no dataset to anybody.
            last = Path(INFO_PATH)
            if output == source_root:
                stale.append(MANIFEST)
            else:
                files = {
                    path.as_posix(): hash_file(folder, path)
                    for folder, paths in ((staging, [*moves, last]), (output, plan.current))
                    for path in paths
                    if path.parts[0] in DATASET_PARTS and not path.name.startswith(".")
                }
                manifest = {
                    **describe_lineage(dataset, fingerprint, recordings),
                    "files": files,
                    "made_of": made_of,
                    "sidecar": hash_file(staging, Path(SIDECAR_NAME)) if sidecar else None,
                }
                write_file(staging / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
                moves.append(MANIFEST)
            commit(output, staging, [*moves, last], stale=stale, ops=ops)


def _plan_files(source_root: Path, output: Path, *, link_videos: bool, overwrite: bool) -> _Plan:
    # The files that LeRobot's load_nested_dataset takes, in its order.
    data, episodes = (
        [
            path.relative_to(source_root)
            for path in sorted((source_root / folder).glob("*/*.parquet"))
        ]
        for folder in (DATA_DIR, EPISODES_DIR)
    )
    rewritten = {*data, *episodes, Path(STATS_PATH), Path(INFO_PATH), Path(SIDECAR_NAME)}
    copied: dict[Path, bool] = {}
    current: list[Path] = []
    stale: set[Path] = set()
    if output != source_root:
        for path in dataset_files(source_root):
            if path in rewritten:
                continue
            link = link_videos and path.parts[0] in VIDEO_PARTS
            again = overwrite and path.parts[0] in DATASET_PARTS
            if not again and _is_current(path, source_root, output, link=link):
                current.append(path)
            else:
                copied[path] = link
        stale = {*visible_files(output)} - {*rewritten, *copied, *current}
    return _Plan(data, episodes, copied, current, sorted(stale))


def _describe_inputs(
    source_root: Path, plan: _Plan, columns: Columns, provenance: Mapping[str, Any]
) -> str:
    """Hash what an output is made of: the rewards, and the files of the source that are rewritten."""
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True, default=str).encode())
    for values in (columns.rewards.index, *columns.values.values()):
        digest.update(np.ascontiguousarray(values))
    for path in (*plan.data, *plan.episodes, Path(STATS_PATH), Path(INFO_PATH)):
        if (source_root / path).is_file():
            digest.update(f"{path}:{hash_file(source_root, path)};".encode())
    return digest.hexdigest()


def _is_made_of(made_of: str, output: Path, *, sidecar: bool) -> bool:
    """Tell whether an output, in which nobody has changed a column, is what would be written."""
    if not (output / MANIFEST).is_file():
        return False
    path, noted = Path(SIDECAR_NAME), read_run(output / MANIFEST)
    found = hash_file(output, path) if (output / path).is_file() else None
    as_wanted = (found is not None) == sidecar and noted.get("sidecar") == found
    return as_wanted and noted.get("made_of") == made_of


def _is_current(path: Path, source_root: Path, output: Path, *, link: bool) -> bool:
    """Tell whether an earlier output already holds a file: shared, an untouched copy, or edited."""
    if (output / path).is_symlink() or not (output / path).is_file():
        return False
    # A file of the dataset is current if it is the source's own or a copy that kept its time; any
    # other file, such as a card, if it is not older: somebody may have edited it in the output.
    ours, theirs = (output / path).stat(), (source_root / path).stat()
    if os.path.samestat(ours, theirs):
        return link
    if path.parts[0] in DATASET_PARTS:
        return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
    return ours.st_mtime_ns >= theirs.st_mtime_ns


def _count_copied_bytes(
    plan: _Plan,
    source_root: Path,
    output: Path,
    staging: Path,
    console: Console | None,
    ops: FileOps,
) -> int:
    """How many bytes the copies take on the disk; says so where it is much."""
    same_device = source_root.stat().st_dev == staging.stat().st_dev
    paths = [path for path, link in plan.copied.items() if not (link and same_device)]
    if not paths or can_clone(source_root / paths[0], staging, ops=ops):
        return 0
    sizes = {path: (source_root / path).stat().st_size for path in paths}
    videos = sum(size for path, size in sizes.items() if path.parts[0] in VIDEO_PARTS)
    if console is not None and videos >= _ANNOUNCED_BYTES:
        amount = f"{videos / 1e9:.1f} GB" if videos >= 1e9 else f"{videos / 1e6:.0f} MB"
        shared = "; `link_videos` would share them" if same_device else ""
        console.print(f"copying {amount} of videos to {output}{shared}")
    return sum(sizes.values())
