"""The store of raw scores: one shard per episode and control, so that a run can stop at any moment.

::

    <output>/topreward/<key>/run.json                       how the scores were made, what failed
    <output>/topreward/<key>/episode_000123.parquet         control "none"
    <output>/topreward/<key>/episode_000123.static.parquet  control "static", and so on

The key is a hash of everything that changes a raw score. A shard has one row per prefix:
``episode_index, segment_start, prefix_length`` (raw frames of the segment), ``frame_index`` (last
frame shown, within the episode), ``timestamp`` (s), ``log_prob_true, log_prob_false`` (nats, <= 0),
``control``. Its metadata hold the episode's fingerprint and segments: a shard is used only for the
episode that it was made from, under whatever number that has now, so a dataset that grew, shrank or
changed costs only its new episodes. The
control "swapped" also notes which other instruction each segment was asked about.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.schedule import images_shown, prefix_lengths, sample_frames
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.files.transaction import (
    MANIFEST,
    WORK_FOLDER,
    remove,
    sync,
    work_folder,
    write_file,
)
from lerobot_topreward.records import PrefixScores, Segment

SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("segment_start", pa.int64()),
        ("prefix_length", pa.int64()),
        ("frame_index", pa.int64()),
        ("timestamp", pa.float64()),
        ("log_prob_true", pa.float32()),
        ("log_prob_false", pa.float32()),
        ("control", pa.string()),
    ]
)

_EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreKey:
    """Everything that changes a raw score."""

    vlm: str
    vlm_revision: str
    dtype: str
    quantize: str | None
    engine: str
    prompt: str  # of an empty instruction
    camera: str  # feature key
    instruction: str | None  # what overrode the dataset's own tasks
    sample_fps: float
    final_frame: bool
    prefixes: int | None  # None: every sampled frame
    max_pixels: int | None
    max_images: int | None = None  # of a segment, evenly thinned

    @property
    def schedule(self) -> str:
        """Which frames are shown and when it is asked, in words."""
        last = " and the last frame" if self.final_frame else ""
        asked = "every one of them" if self.prefixes is None else f"{self.prefixes} prefixes"
        most = "" if self.max_images is None else f", at most {self.max_images}"
        return f"{self.sample_fps:g} per second{last}{most}; asked after {asked}"

    def digest(self) -> str:
        """A short hash that names the store's folder."""
        values = asdict(self)
        if self.max_images is None:  # scores from before there was this option stay of use
            del values["max_images"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Store:
    """The shards of one key."""

    folder: Path
    key: ScoreKey
    fps: float  # the dataset's clock, Hz
    damaged: set[int] = field(default_factory=set)  # episodes of which a read found such a shard

    def path(self, episode: int, control: str) -> Path:
        """Where a shard is, whether or not it exists."""
        suffix = "" if control == "none" else f".{control}"
        return self.folder / f"episode_{episode:06d}{suffix}.parquet"

    def write(
        self,
        scores: Sequence[PrefixScores],
        *,
        fingerprint: str,
        video: str | None,
        asked: Sequence[str] | None = None,
    ) -> None:
        """Write the shard of one episode and control, whole or not at all.

        Args:
            scores: of every segment of the episode, in their order.
            fingerprint: the episode's.
            video: print of the video that was scored, see `fingerprints.video_prints`.
            asked: what each segment was asked about, where that is not its own instruction.
        """
        first = scores[0]
        table = pa.concat_tables([_table(score, fps=self.fps) for score in scores])
        header = {
            "fingerprint": fingerprint,
            "video": video,
            "segments": _describe([s.segment for s in scores]),
        }
        if asked is not None:
            header["asked"] = list(asked)
        path = self.path(first.segment.episode_index, first.control)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        remove(partial)
        pq.write_table(table.replace_schema_metadata({"topreward": json.dumps(header)}), partial)
        sync(partial)
        if path.is_dir():  # put there by nobody's run
            remove(path)
        os.replace(partial, path)

    def renumber(self, fingerprints: Sequence[str], videos: Mapping[int, str]) -> None:
        """Give shards the numbers that their episodes have now, as after others were deleted.

        A run may die here: each is copied to a number that nobody has before any is replaced.

        Args:
            fingerprints: of all episodes.
            videos: prints of their videos, by episode, as far as they are here.
        """
        episodes: dict[str, list[int]] = defaultdict(list)
        for episode, fingerprint in enumerate(fingerprints):
            episodes[fingerprint].append(episode)
        shards = {
            path: _header(path)
            for path in sorted(self.folder.glob("episode_*.parquet"))
            if path.is_file()  # reading a pipe would never end
        }

        def fits(path: Path, episode: int) -> bool:
            header = shards.get(path, {})
            return header.get("fingerprint") == fingerprints[episode] and (
                videos.get(episode) in (None, header.get("video"))
            )

        copies: dict[Path, Path] = {}
        free = len(fingerprints) + len(shards)
        for path, header in shards.items():
            _, _, suffix = path.stem.partition(".")
            for episode in episodes.get(str(header.get("fingerprint")), []):
                target = self.path(episode, suffix or "none")
                if target in copies or fits(target, episode) or not fits(path, episode):
                    continue
                while (copy := self.path(free, suffix or "none")) in shards:
                    free += 1
                free += 1
                if _copy(path, copy, episode=episode):
                    copies[target] = copy
        for target, copy in copies.items():
            os.replace(copy, target)

    def read(
        self,
        segments: Sequence[Segment],
        control: str,
        *,
        fingerprint: str,
        video: str | None,
        asked: Sequence[str] | None = None,
    ) -> list[PrefixScores] | None:
        """Read an episode's shard; None where there is none that fits this episode.

        A shard is believed only if it holds a log-probability for every prefix of the schedule.

        Args:
            segments: of the episode, in their order.
            control: which shard.
            fingerprint: the episode's.
            video: print of its video now; None, where that is not here, takes any.
            asked: what each segment must have been asked about; None takes whatever it was.
        """
        episode = segments[0].episode_index
        path = self.path(episode, control)
        if not os.path.lexists(path):
            return None
        try:
            if not path.is_file():  # reading a pipe would never end
                raise ValueError
            table = pq.read_table(path)
        except (OSError, pa.ArrowException, ValueError):
            self.damaged.add(episode)
            return None
        header = _header_of(table.schema)
        wanted = {"fingerprint": fingerprint, "segments": _describe(segments)}
        if video is not None:
            wanted["video"] = video
        if asked is not None:
            wanted["asked"] = list(asked)
        if header and any(header.get(name) != value for name, value in wanted.items()):
            return None
        if (
            not header
            or not table.schema.equals(SCHEMA)
            or not self._is_whole(table, segments, control)
        ):
            self.damaged.add(episode)
            return None
        columns = {name: table[name].to_numpy() for name in SCHEMA.names if name != "control"}
        return [_scores(segment, control, columns) for segment in segments]

    def _is_whole(self, table: pa.Table, segments: Sequence[Segment], control: str) -> bool:
        wanted = [_unscored(segment, control, key=self.key, fps=self.fps) for segment in segments]
        due = pa.concat_tables([_table(scores, fps=self.fps) for scores in wanted])
        given = ["log_prob_true", "log_prob_false"]
        if table.drop_columns(given) != due.drop_columns(given):
            return False
        values = np.concatenate([table[name].to_numpy() for name in given])
        return bool(np.all(np.isfinite(values) & (values <= 0)))


def _unscored(segment: Segment, control: str, *, key: ScoreKey, fps: float) -> PrefixScores:
    """What a segment is asked, its answers left open."""
    shown = sample_frames(
        segment.length,
        fps=fps,
        sample_fps=key.sample_fps,
        final_frame=key.final_frame,
        max_images=key.max_images,
    )
    lengths = prefix_lengths(segment.length, shown, count=key.prefixes)
    last = shown[images_shown(lengths, shown) - 1]
    unknown = np.full(len(lengths), np.nan, dtype=np.float32)
    return PrefixScores(segment, control, lengths, segment.start + last, unknown, unknown)


def _header(path: Path) -> dict[str, Any]:
    try:
        return _header_of(pq.read_schema(path))
    except (OSError, pa.ArrowException):
        return {}


def _header_of(schema: pa.Schema) -> dict[str, Any]:
    """What a shard says of itself; nothing where it is damaged."""
    try:
        return dict(json.loads((schema.metadata or {})[b"topreward"]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}


def _copy(path: Path, copy: Path, *, episode: int) -> bool:
    """Copy a shard for another number of its episode, unless it is damaged."""
    try:
        table = pq.read_table(path)
        numbers = pa.array(np.full(len(table), episode))
        table = table.set_column(0, SCHEMA.field("episode_index"), numbers)
    except (OSError, pa.ArrowException):
        return False
    pq.write_table(table, copy)
    sync(copy)
    return True


def _describe(segments: Sequence[Segment]) -> list[list[Any]]:
    return [[segment.start, segment.length, segment.instruction] for segment in segments]


def _table(scores: PrefixScores, *, fps: float) -> pa.Table:
    rows = len(scores.prefix_length)
    columns = {
        "episode_index": np.full(rows, scores.segment.episode_index),
        "segment_start": np.full(rows, scores.segment.start),
        "prefix_length": scores.prefix_length,
        "frame_index": scores.frame_index,
        "timestamp": scores.frame_index / fps,
        "log_prob_true": scores.log_prob_true,
        "log_prob_false": scores.log_prob_false,
        "control": [scores.control] * rows,
    }
    return pa.table(columns, schema=SCHEMA)


def _scores(segment: Segment, control: str, columns: Mapping[str, np.ndarray]) -> PrefixScores:
    rows = columns["segment_start"] == segment.start
    return PrefixScores(
        segment=segment,
        control=control,
        prefix_length=columns["prefix_length"][rows],
        frame_index=columns["frame_index"][rows],
        log_prob_true=columns["log_prob_true"][rows],
        log_prob_false=columns["log_prob_false"][rows],
    )


def open_store(output: Path, key: ScoreKey, *, fps: float) -> Store:
    """Find or begin the store of a key, for a dataset of a frame rate in Hz.

    Raises:
        UserError: a link is in its place.
    """
    folder = work_folder(output) / key.digest()
    if folder.is_symlink():
        raise UserError(f"{folder} must be a folder, not a link; remove it and run again")
    folder.mkdir(parents=True, exist_ok=True)
    return Store(folder, key, fps)


def lineage(dataset: str, fingerprint: str, recordings: Sequence[str]) -> dict[str, Any]:
    """What tells later whose scores and labels these are, however the dataset changes until then.

    Args:
        dataset: its name, for people.
        fingerprint: the dataset's.
        recordings: fingerprints of its recordings, see `fingerprints.Fingerprints`.
    """
    # Of an episode without values there is nothing to know it by.
    prints = sorted({recording[:16] for recording in recordings} - {_EMPTY[:16]})
    return {"dataset": dataset, "fingerprint": fingerprint, "recordings": prints}


def check_lineage(
    output: Path, *, dataset: str, fingerprint: str, recordings: Sequence[str]
) -> bool:
    """Tell whether an output holds scores or labels of a dataset, and refuse those of another.

    Args:
        output: the folder.
        dataset: see `lineage`.
        fingerprint: see `lineage`.
        recordings: see `lineage`.

    Raises:
        UserError: it is another dataset's, or does not say whose it is.
    """
    paths = [*sorted((output / WORK_FOLDER).glob("*/run.json")), output / MANIFEST]
    records = [read_run(path) for path in paths if path.exists()]
    if not records:
        return False
    ours = lineage(dataset, fingerprint, recordings)
    for record in records:
        shared = {str(one) for one in _list(record.get("recordings"))} & {*ours["recordings"]}
        if shared or record.get("fingerprint") == fingerprint:
            return True
    there = records[-1]
    raise UserError(
        f"output folder {output} holds the labels of {there.get('dataset')} (fingerprint "
        f"{str(there.get('fingerprint'))[:12]}), which has no recording in common with {dataset} "
        f"(fingerprint {fingerprint[:12]}); choose another --output"
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_run(path: Path) -> dict[str, Any]:
    """Read a ``run.json``.

    Raises:
        UserError: it is damaged.
    """
    return read_json_object(path, advice="Delete it and run the command again")


def write_run(store: Store, key: ScoreKey, *, run: Mapping[str, Any]) -> Path:
    """Write ``run.json`` beside the shards, whole or not at all."""
    path = store.folder / "run.json"
    partial = path.with_name(".run.json.partial")
    scoring = {item.name: getattr(key, item.name) for item in fields(key)}
    write_file(partial, json.dumps({**run, "scoring": scoring}, indent=2, sort_keys=True))
    os.replace(partial, path)
    return path
