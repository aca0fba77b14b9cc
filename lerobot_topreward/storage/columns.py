"""The only writer of datasets: rewards become columns of a LeRobot v3.0 dataset.

============================  =======  ===========================================================
``topreward.log_prob``        float32  log P(True), nats, <= 0
``topreward.log_prob_false``  float32  log P(False), nats, <= 0
``topreward.progress``        float32  0..1
``topreward.advantage``       float32  progress gained over the horizon, -1..1
``topreward.labelled``        bool     False where an episode failed or was not asked for
``topreward.scored``          bool     the last frame of a scored prefix: its scores are raw
============================  =======  ===========================================================

All have shape (1,). Where ``labelled`` is False the others are 0, so that every frame is finite.
How they were made stands in ``meta/info.json``, under ``info`` of ``topreward.log_prob``: LeRobot's
own tools keep it there, and they drop the sidecar.
Their statistics stand in ``meta/episodes`` and ``meta/stats.json``, without which LeRobot's own
tools would drop them. Only ``data/``, ``meta/episodes``, ``meta/stats.json`` and ``meta/info.json``
are written anew, beside the sidecar; no video is ever encoded again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.utils import DATA_DIR, EPISODES_DIR, INFO_PATH, STATS_PATH, serialize_dict
from rich.console import Console

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.files.transaction import (
    DATASET_PARTS,
    MANIFEST,
    WORK_FOLDER,
    FileOps,
    can_clone,
    commit,
    dataset_files,
    finish_interrupted,
    place,
    space_reported,
    staging_folder,
    write_file,
)
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.run_record import check_lineage, describe_lineage
from lerobot_topreward.storage.sidecar import (
    SIDECAR_NAME,
    SIDECAR_ROW_BYTES,
    check_finite,
    fingerprint_of,
    stage_sidecar,
)

COLUMNS = {  # -> attribute of FrameRewards
    "topreward.log_prob": "log_prob_true",
    "topreward.log_prob_false": "log_prob_false",
    "topreward.progress": "progress",
    "topreward.advantage": "advantage",
    "topreward.labelled": "labelled",
    "topreward.scored": "scored",
}
FEATURES: dict[str, dict[str, Any]] = {
    name: {
        "dtype": "bool" if attribute in ("labelled", "scored") else "float32",
        "shape": [1],
        "names": None,
    }
    for name, attribute in COLUMNS.items()
}
DESCRIBED = "topreward.log_prob"  # the feature whose info says how all of them were made
# Nothing of one dataset alone: LeRobot merges only datasets whose features are equal.
_DESCRIPTION = ("scoring", "normalize", "scale", "debias", "horizon_frames")

_LINKED = ("videos", "images")  # where the bytes are
_SAID_FROM_BYTES = 5_000_000
_ENDS_BYTES = 2**20  # of a long video, hashed at its head and at its tail

_COLUMNS_ROW_BYTES = 18  # before compression

Stats = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where each file of the output comes from; paths are relative to the dataset."""

    data: Sequence[Path]  # rewritten
    episodes: Sequence[Path]  # rewritten
    copied: Sequence[Path]
    linked: Sequence[Path]  # where links can be made; else copied too
    current: Sequence[Path]  # in the output already
    stale: Sequence[Path]  # in the output, of an earlier layout of the same dataset
    rewritten_bytes: int


def check_output(
    source_root: Path,
    output: Path,
    *,
    fingerprint: str,
    dataset: str,
    recordings: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Refuse what cannot be written, is not ours or would be lost; changes nothing.

    Worth calling before hours of scoring.

    Args:
        source_root: the dataset's folder.
        output: where the labelled dataset goes; the same folder to label it in place.
        fingerprint: the dataset's.
        dataset: its name.
        recordings: fingerprints of its recordings: labels of one of them are this dataset's, however
            it has grown, been corrected or renamed since.
        overwrite: discard what somebody has changed in the output since it was written.

    Raises:
        UserError: says what is in the way.
    """
    source_root, output = source_root.resolve(), output.resolve()
    if output == source_root:
        if (source_root / INFO_PATH).is_symlink():
            raise UserError(
                f"the dataset in {source_root} belongs to the Hub's cache, which other programs "
                "trust to be unchanged; name an output folder instead of labelling it in place"
            )
        dataset_files(source_root, parts=("data", "meta"))
    elif output.is_relative_to(source_root) or source_root.is_relative_to(output):
        raise UserError(
            f"output folder {output} must not lie within the dataset {source_root}, nor around it"
        )
    else:
        dataset_files(source_root)
        if output.is_dir():
            ours = check_lineage(
                output, dataset=dataset, fingerprint=fingerprint, recordings=recordings
            )
            _check_contents(
                output, ours=ours or fingerprint_of(output / SIDECAR_NAME) == fingerprint
            )
            if not overwrite:
                _check_unchanged(output)
    folder = next(path for path in (output, *output.parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        state = "not writable" if folder.is_dir() else "not a folder"
        raise UserError(f"output folder {output} cannot be written: {folder} is {state}")


def _check_contents(output: Path, *, ours: bool) -> None:
    names = sorted({entry.name for entry in output.iterdir()} - {WORK_FOLDER})
    if names and not ours:
        raise UserError(
            f"output folder {output} is not empty: it holds {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}, which labelling did not write. Choose another "
            "output folder"
        )


def _check_unchanged(output: Path) -> None:
    """Refuse to replace a labelled dataset in which somebody has worked."""
    paths = _visible(output)
    if not paths:
        return
    if (output / MANIFEST).exists():
        manifest = read_json_object(output / MANIFEST, advice="Delete it, then see --overwrite")
        written = manifest.get("files")
        written = written if isinstance(written, dict) else {}
        prints = {path.as_posix(): _print(output / path, path) for path in paths}
        changes = [
            *(
                f"{name} was changed"
                for name in prints
                if written.get(name, 0) not in (0, prints[name])
            ),
            *(f"{name} was added" for name in prints if name not in written),
            *(f"{name} was removed" for name in sorted(written.keys() - prints)),
        ]
        if not changes:
            return
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        what = f"is not as it was written: {', '.join(changes[:3])}{more}"
    else:
        what = f"holds a dataset that may have been edited: there is no {MANIFEST}"
    raise UserError(
        f"output folder {output} {what}.\nKeep that: label --root {output} --in-place. Or discard "
        "it: --overwrite"
    )


def _visible(output: Path) -> list[Path]:
    files = dataset_files(output, parts=DATASET_PARTS)
    return [path for path in files if not path.name.startswith(".")]


def _print(path: Path, relative: Path) -> list[int | str]:
    """The size and a hash of a file; of long videos, those of both ends."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if relative.parts[0] not in _LINKED or size <= 2 * _ENDS_BYTES:
            return [size, hashlib.file_digest(stream, "sha256").hexdigest()]
        head = stream.read(_ENDS_BYTES)
        stream.seek(-_ENDS_BYTES, os.SEEK_END)
        return [size, hashlib.sha256(head + stream.read()).hexdigest()]


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
    console: Console | None = None,
    ops: FileOps | None = None,
) -> None:
    """Write a dataset with the reward columns, and its sidecar; all of it or nothing.

    Columns and sidecar that are already there are replaced. Raw scores are left alone, hidden
    folders are not carried over. Memory is bounded by one row group. What was written is noted in
    ``topreward/written.json``, so that later changes are seen; not in place, where the dataset is
    a person's own.

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
        console: is told of a large copy.
        ops: file operations; the real ones when None.

    Raises:
        UserError: the output is in the way or cannot be written, or there is no room on the disk.
        ValueError: the rewards are not finite or not those of the dataset's frames.
    """
    check_finite(rewards)
    ops = ops or FileOps()
    source_root, output = source_root.resolve(), output.resolve()
    finish_interrupted(output, ops=ops)
    dataset = str(provenance.get("dataset"))
    check_output(
        source_root,
        output,
        fingerprint=fingerprint,
        dataset=dataset,
        recordings=recordings,
        overwrite=overwrite,
    )
    with staging_folder(output) as staging:
        plan = _plan(source_root, output, link_videos=link_videos, overwrite=overwrite)
        needed = plan.rewritten_bytes + (_COLUMNS_ROW_BYTES + SIDECAR_ROW_BYTES) * len(
            rewards.index
        )
        needed += _announced(plan, source_root, output, staging, console=console, ops=ops)
        with space_reported(output, needed=needed, ops=ops):
            _stage_rewritten(source_root, staging, plan, rewards, provenance)
            if sidecar:
                stage_sidecar(
                    staging / SIDECAR_NAME, rewards, fingerprint=fingerprint, provenance=provenance
                )
            for paths in (plan.copied, plan.linked):
                for path in paths:
                    link = paths is plan.linked
                    place(source_root / path, staging / path, link=link, ops=ops)
            # info.json comes last: without it a half-moved folder is no dataset to anybody.
            moves = [
                *plan.copied,
                *plan.linked,
                *plan.data,
                *plan.episodes,
                Path(STATS_PATH),
                *([Path(SIDECAR_NAME)] if sidecar else []),
                Path(INFO_PATH),
            ]
            stale = [*plan.stale, *([] if sidecar else [Path(SIDECAR_NAME)])]
            if output == source_root:
                stale.append(MANIFEST)
            else:
                files = {
                    path.as_posix(): _print(folder / path, path)
                    for folder, paths in ((staging, moves), (output, plan.current))
                    for path in paths
                    if path.parts[0] in DATASET_PARTS and not path.name.startswith(".")
                }
                manifest = {**describe_lineage(dataset, fingerprint, recordings), "files": files}
                write_file(staging / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
                moves.insert(-1, MANIFEST)
            commit(output, staging, moves, stale=stale, ops=ops)


def _announced(
    plan: _Plan,
    source_root: Path,
    output: Path,
    staging: Path,
    *,
    console: Console | None,
    ops: FileOps,
) -> int:
    """How many bytes the copies take on the disk; says so where it is much."""
    same_device = source_root.stat().st_dev == staging.stat().st_dev
    paths = [*plan.copied, *([] if same_device else plan.linked)]
    if not paths or can_clone(source_root / paths[0], staging, ops=ops):
        return 0
    sizes = {path: (source_root / path).stat().st_size for path in paths}
    videos = sum(size for path, size in sizes.items() if path.parts[0] in _LINKED)
    if console is not None and videos >= _SAID_FROM_BYTES:
        amount = f"{videos / 1e9:.1f} GB" if videos >= 1e9 else f"{videos / 1e6:.0f} MB"
        shared = "; --link-videos would share them" if same_device else ""
        console.print(f"copying {amount} of videos to {output}{shared}")
    return sum(sizes.values())


def _plan(source_root: Path, output: Path, *, link_videos: bool, overwrite: bool) -> _Plan:
    data = _parquet_files(source_root, DATA_DIR)
    episodes = _parquet_files(source_root, EPISODES_DIR)
    rewritten = {*data, *episodes, Path(STATS_PATH), Path(INFO_PATH), Path(SIDECAR_NAME)}
    copied, linked, current, stale = [], [], [], set()
    if output != source_root:
        for path in dataset_files(source_root):
            ours = path.parts[0] in DATASET_PARTS
            link = link_videos and path.parts[0] in _LINKED
            if path in rewritten:
                continue
            if not (overwrite and ours) and _is_current(path, source_root, output, link=link):
                current.append(path)
            else:
                (linked if link else copied).append(path)
        stale = {*_visible(output)} - {*rewritten, *copied, *linked, *current}
    return _Plan(
        data=data,
        episodes=episodes,
        copied=copied,
        linked=linked,
        current=current,
        stale=sorted(stale),
        rewritten_bytes=sum(_size(source_root / path) for path in rewritten),
    )


def _parquet_files(root: Path, folder: str) -> list[Path]:
    # The files that LeRobot's load_nested_dataset takes, in its order.
    return [path.relative_to(root) for path in sorted((root / folder).glob("*/*.parquet"))]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_current(path: Path, source_root: Path, output: Path, *, link: bool) -> bool:
    """Tell whether an earlier output already holds a file: shared, an untouched copy, or edited."""
    if (output / path).is_symlink() or not (output / path).is_file():
        return False
    ours, theirs = (output / path).stat(), (source_root / path).stat()
    if os.path.samestat(ours, theirs):
        return link
    if path.parts[0] in DATASET_PARTS:
        return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
    return ours.st_mtime_ns >= theirs.st_mtime_ns


def _stage_rewritten(
    source_root: Path,
    staging: Path,
    plan: _Plan,
    rewards: FrameRewards,
    provenance: Mapping[str, Any],
) -> None:
    frames = sum(pq.read_metadata(source_root / path).num_rows for path in plan.data)
    if frames != len(rewards.index):
        raise ValueError(f"{len(rewards.index)} rewards for a dataset of {frames} frames")
    for path in plan.data:
        _rewrite(source_root / path, staging / path, lambda t: _with_rewards(t, rewards))
    stats = _episode_stats(rewards)
    for path in plan.episodes:
        _rewrite(source_root / path, staging / path, lambda t: _with_stats(t, stats))
    all_stats = _load_json(source_root / STATS_PATH)
    ours: dict[str, Any] = aggregate_stats(list(stats.values()))
    # It goes through a set: in our order, equal labels make equal files.
    all_stats.update(serialize_dict({name: ours[name] for name in FEATURES}))
    info = _load_json(source_root / INFO_PATH)
    described = {name: provenance[name] for name in _DESCRIPTION if name in provenance}
    info["features"] = {
        **info["features"],
        **FEATURES,
        DESCRIBED: {**FEATURES[DESCRIBED], **({"info": described} if described else {})},
    }
    for path, content in ((STATS_PATH, all_stats), (INFO_PATH, info)):
        # The form in which LeRobot's write_json leaves them.
        write_file(staging / path, json.dumps(content, indent=4, ensure_ascii=False))


def _load_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _rewrite(source: Path, target: Path, extend: Callable[[pa.Table], pa.Table]) -> None:
    """Copy a parquet file through `extend`, row group by row group."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetFile(source) as file:
        schema = extend(file.schema_arrow.empty_table()).schema
        # The settings of LeRobot's own writer.
        with pq.ParquetWriter(target, schema, compression="snappy", use_dictionary=True) as writer:
            for group in range(file.num_row_groups):
                writer.write_table(extend(file.read_row_group(group)))


def _with_rewards(table: pa.Table, rewards: FrameRewards) -> pa.Table:
    rows = _locate(table, rewards)
    table = table.drop_columns([name for name in FEATURES if name in table.column_names])
    for name, attribute in COLUMNS.items():
        table = table.append_column(name, pa.array(getattr(rewards, attribute)[rows]))
    metadata = dict(table.schema.metadata or {})
    if b"huggingface" in metadata:
        # What `datasets` takes the types from; a column it does not list is one too many.
        described = json.loads(metadata[b"huggingface"])
        described["info"]["features"].update(
            {name: {"dtype": f["dtype"], "_type": "Value"} for name, f in FEATURES.items()}
        )
        metadata[b"huggingface"] = json.dumps(described).encode()
    return table.replace_schema_metadata(metadata)


def _locate(table: pa.Table, rewards: FrameRewards) -> Int64[np.ndarray, " rows"]:
    index = table["index"].to_numpy()
    rows = np.minimum(np.searchsorted(rewards.index, index), len(rewards.index) - 1)
    for name in ("index", "episode_index", "frame_index"):
        if not np.array_equal(table[name].to_numpy(), getattr(rewards, name)[rows]):
            raise ValueError(f"the rewards are not those of the dataset's frames: {name} differs")
    return rows


def _episode_stats(rewards: FrameRewards) -> dict[int, Stats]:
    stats: dict[int, Stats] = {}
    order = np.argsort(rewards.episode_index, kind="stable")
    episodes, starts = np.unique(rewards.episode_index[order], return_index=True)
    for episode, rows in zip(episodes, np.split(order, starts[1:]), strict=True):
        values = {name: getattr(rewards, source)[rows] for name, source in COLUMNS.items()}
        stats[int(episode)] = compute_episode_stats(values, FEATURES)
    return stats


def _with_stats(table: pa.Table, stats: Mapping[int, Stats]) -> pa.Table:
    ours = tuple(f"stats/{name}/" for name in FEATURES)
    table = table.drop_columns([name for name in table.column_names if name.startswith(ours)])
    episodes = table["episode_index"].to_pylist()
    example = next(iter(stats.values()))
    for name in FEATURES:
        for key in example[name]:
            kind = pa.list_(pa.int64() if key == "count" else pa.float64())
            # An episode without frames is listed and has no statistics.
            values = [stats[e][name][key].tolist() if e in stats else None for e in episodes]
            table = table.append_column(f"stats/{name}/{key}", pa.array(values, kind))
    return table
