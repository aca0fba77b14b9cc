"""The store of raw scores: one shard per episode and control, so that a run can stop at any moment.

::

    <output>/topreward/<key>/run.json                       how a run went, whose scores these are
    <output>/topreward/<key>/episode_000123.parquet         control "none"
    <output>/topreward/<key>/episode_000123.static.parquet  control "static", and so on
    <output>/topreward/<key>/blank_<digest>.parquet         a gray video, see `storage.blank`

The folder is named by the digest of a `ScoreKey`. A shard has one row per prefix:
``episode_index, segment_start, prefix_length`` (raw frames of the segment), ``frame_index`` (last
frame shown, within the episode), ``timestamp`` (s), ``log_prob_true, log_prob_false`` (nats, <= 0),
``control``; where a server gave only a bound of one, ``true_censored, false_censored`` (bool); where
a reward model gave it, ``log_prob_success`` (nats, <= 0).
Its metadata hold the episode's fingerprint, the print of its video and its segments: a
shard is used only for the episode that it was made from, under whatever number that has now, so a
dataset that grew, shrank or changed costs only its new episodes. The controls "swapped" and
"contrast1" to "contrast3" also note which other instruction each segment was asked about.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot_topreward.data.schedule import images_shown, prefix_lengths
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import (
    WORK_FOLDER,
    remove,
    replace_file,
    report_full_disk,
    sync,
    work_folder,
    write_file,
)
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.rows import SCHEMA, has_schema, is_filled, make_table, read_rows

NO_EPISODE = -1  # the index of a gray video's segment


@dataclass(frozen=True, slots=True)
class Shard:
    """An episode under one control: what a file of the store must have been made from.

    A gray video is of no episode: its one segment has the index `NO_EPISODE`.
    """

    segments: tuple[Segment, ...]  # of the whole episode, in the order of time
    control: str  # "none", one of `scorer.CONTROLS` or of `rewards.BASELINES`
    fingerprint: str  # the episode's; of a gray video its size
    video: str | None  # print of its video; None, where that is not here, reads any
    questions: tuple[str, ...] | None = None  # others asked, of each segment; None reads any

    @property
    def episode(self) -> int:
        """The episode's index now."""
        return self.segments[0].episode_index

    @property
    def name(self) -> str:
        """The file's name."""
        if self.episode != NO_EPISODE:
            return shard_name(self.episode, self.control)
        text = json.dumps(self.header(), sort_keys=True)
        return f"{self.control}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.parquet"

    def header(self) -> dict[str, Any]:
        """The metadata of the file; None stands where anything is read."""
        header = {
            "fingerprint": self.fingerprint,
            "video": self.video,
            "segments": [[part.start, part.length, part.instruction] for part in self.segments],
        }
        return header if self.questions is None else {**header, "asked": list(self.questions)}

    def matches(self, header: Mapping[str, Any]) -> bool:
        """Whether a file with this header was made from this episode and asked these questions."""
        wanted = self.header()
        return all(value in (None, header.get(name)) for name, value in wanted.items())


def list_shards(
    episodes: Mapping[int, Sequence[Segment]],
    controls: Sequence[str],
    *,
    fingerprints: Sequence[str],
    videos: Mapping[int, str],
    asked: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Shard]:
    """List what is wanted of a store, episode after episode.

    Args:
        episodes: their segments, in the order of time; those without any are left out.
        controls: "none", or any of `scorer.CONTROLS` and `rewards.BASELINES`.
        fingerprints: of all episodes of the dataset.
        videos: prints of their videos, as far as they are here.
        asked: by control, the other instruction that it asks, by the dataset's own. An episode
            with a segment that has none is left out. Controls that are not there are read whatever
            they asked.
    """
    shards = []
    for episode, segments in episodes.items():
        if not segments:
            continue
        for control in dict.fromkeys(controls):
            questions = None
            if asked is not None and control in asked:
                questions = tuple(asked[control].get(part.instruction, "") for part in segments)
                if not all(questions):
                    continue
            video = videos.get(episode)
            shards.append(Shard(tuple(segments), control, fingerprints[episode], video, questions))
    return shards


def shard_name(episode: int, control: str) -> str:
    """Name the file of an episode's shard."""
    suffix = "" if control == "none" else f".{control}"
    return f"episode_{episode:06d}{suffix}.parquet"


@dataclass(frozen=True, slots=True)
class Store:
    """The shards of one key."""

    folder: Path
    key: ScoreKey
    fps: float  # the dataset's clock, Hz
    damaged: set[int] = field(default_factory=set)  # episodes of which a read found such a shard
    # What was read before, and which file it was then: a run looks for what is missing and
    # then reads everything; see also `storage.kept_scores`.
    known: dict[Shard, tuple[tuple[int, ...], list[PrefixScores]]] = field(default_factory=dict)

    def path(self, episode: int, control: str) -> Path:
        """Where a shard is, whether or not it exists."""
        return self.folder / shard_name(episode, control)

    def write(self, shard: Shard, scores: Sequence[PrefixScores]) -> None:
        """Write the scores of every segment, in their order, whole or not at all.

        Raises:
            UserError: the disk is full.
        """
        table = make_table(scores, fps=self.fps)
        table = table.replace_schema_metadata({"topreward": json.dumps(shard.header())})
        path = self.folder / shard.name
        with report_full_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # no run of ours put it there
                remove(path)
            with replace_file(path) as draft:
                pq.write_table(table, draft)

    def read(self, shard: Shard) -> list[PrefixScores] | None:
        """Read the scores of every segment; None where there is no such shard.

        A shard is believed only if it holds a log-probability for every prefix of the schedule.
        """
        path = f"{self.folder}/{shard.name}"  # a Path is slow to make, for thousands of them
        try:
            status = os.stat(path)
        except OSError:
            return self._read_file(Path(path), shard)
        # No two of these are alike of a file that was changed, whatever time somebody gives it.
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        before, scores = self.known.get(shard, (None, None))
        if before != stamp:
            scores = self._read_file(Path(path), shard)
            if scores is not None:
                self.known[shard] = (stamp, scores)
        return scores and list(scores)

    def _read_file(self, path: Path, shard: Shard) -> list[PrefixScores] | None:
        if not os.path.lexists(path):
            return None
        try:
            if not path.is_file():  # reading a pipe would never end
                raise ValueError(f"{path} is no file")
            # In a tenth of the time of `pq.read_table`, which is made for folders.
            with pq.ParquetFile(path) as file:
                table = file.read(use_threads=False)
        except (OSError, pa.ArrowException, ValueError):
            self.damaged.add(shard.episode)
            return None
        # Another episode's shard is no damage: this one's number was given to another.
        header = _header_of(table.schema)
        if header and not shard.matches(header):
            return None
        if not header or not has_schema(table) or not self._is_whole(table, shard):
            self.damaged.add(shard.episode)
            return None
        return read_rows(table, shard.segments, control=shard.control)

    def _is_whole(self, table: pa.Table, shard: Shard) -> bool:
        """Compare with the table that scoring would write, whatever the log-probabilities are."""
        key, due = self.key, []
        for segment in shard.segments:
            shown = key.sample(segment.length, fps=self.fps)
            count = None if shard.episode == NO_EPISODE else key.prefix_count
            lengths = prefix_lengths(segment.length, shown, count=count)
            last = segment.start + shown[images_shown(lengths, shown) - 1]
            unknown = np.full(len(lengths), np.nan, dtype=np.float32)
            due.append(PrefixScores(segment, shard.control, lengths, last, unknown, unknown))
        return is_filled(table, make_table(due, fps=self.fps))

    def renumber(self, fingerprints: Sequence[str], videos: Mapping[int, str]) -> None:
        """Give shards the numbers that their episodes have now, as after others were deleted.

        Args:
            fingerprints: of all episodes.
            videos: prints of their videos, by episode, as far as they are here.
        """
        episodes: dict[str, list[int]] = defaultdict(list)
        for episode, fingerprint in enumerate(fingerprints):
            episodes[fingerprint].append(episode)
        headers = {
            path: _read_header(path)
            for path in sorted(self.folder.glob("episode_*.parquet"))
            if path.is_file()  # reading a pipe would never end
        }

        def fits(path: Path, episode: int) -> bool:
            header = headers.get(path, {})
            return header.get("fingerprint") == fingerprints[episode] and (
                videos.get(episode) in (None, header.get("video"))
            )

        # Two episodes may have changed places, and a run may be killed here. So every shard is
        # first copied to a number beyond those of the dataset, and only when all copies are on the
        # disk do they replace what is there. A run that died in between finds the copies again.
        copies: dict[Path, Path] = {}
        free = len(fingerprints) + len(headers)
        with report_full_disk(self.folder):
            for path, header in headers.items():
                control = path.stem.partition(".")[2] or "none"
                for episode in episodes.get(str(header.get("fingerprint")), []):
                    target = self.path(episode, control)
                    if target in copies or fits(target, episode) or not fits(path, episode):
                        continue
                    while (copy := self.path(free, control)) in headers:
                        free += 1
                    free += 1
                    if _copy(path, copy, episode=episode):
                        copies[target] = copy
            for target, copy in copies.items():
                os.replace(copy, target)


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


def list_stores(output: Path, *, fps: float) -> list[Store]:
    """Find every store in an output, by what its run.json says; the damaged ones are left out.

    Args:
        output: the folder that holds labels, or will.
        fps: the dataset's clock, Hz.
    """
    found = []
    for file in sorted((output / WORK_FOLDER).glob("*/run.json")):
        try:
            key = ScoreKey.from_json(read_run(file).get("scoring"))
        except (UserError, ValueError):
            continue
        if key.digest() == file.parent.name:
            found.append(Store(file.parent, key, fps))
    return found


def read_run(path: Path) -> dict[str, Any]:
    """Read a ``run.json``.

    Raises:
        UserError: it is damaged.
    """
    return read_json_object(path, advice="Delete it and run the command again")


def write_run(folder: Path, key: ScoreKey, run: Mapping[str, Any]) -> None:
    """Write the ``run.json`` of a store's folder, whole or not at all."""
    content = {**run, "scoring": key.to_json()}
    write_file(folder / "run.json", json.dumps(content, indent=2, sort_keys=True))


def _read_header(path: Path) -> dict[str, Any]:
    try:
        return _header_of(pq.read_schema(path))
    except (OSError, pa.ArrowException):
        return {}


def _header_of(schema: pa.Schema) -> dict[str, Any]:
    """The header of a shard; empty where it is damaged."""
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
