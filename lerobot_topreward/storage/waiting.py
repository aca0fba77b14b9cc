"""Scores of episodes whose dataset cannot be read yet, because its recorder has not closed it.

::

    <output>/topreward/<key>/watch/shown.json              sizes of images of these scores
    <output>/topreward/<key>/watch/episode_000123.parquet  as in the store

A store asks for a fingerprint of what was recorded, which is not known so early. These shards are
bound to what is: the key (VLM, camera, schedule), the episode's length and task, and a hash of the
pictures that its video was shown as. Where all of that is found again, they move into the store;
whatever does not fit is scored again. The print of the video would not do: LeRobot appends by
FFmpeg's concat demuxer, which adds parameter sets to the H.264 pictures that were there before.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.files.atomic import remove, write_file
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.records import Clip
from lerobot_topreward.storage.store import Shard, Store

_NOT_KNOWN = "recording"  # in place of a fingerprint
_SIZES = "shown.json"


def waiting_store(store: Store) -> Store:
    """Where the scores of a key wait, beside its store; it may not exist.

    Raises:
        UserError: a link or a file is in its place.
    """
    folder = store.folder / "watch"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} must be a folder, not a link or a file; remove it and run again")
    return Store(folder, store.key, store.fps)


def waiting_shard(clip: Clip) -> Shard:
    """The shard of an episode under one task, by the pictures that are shown of it."""
    frames = clip.frames
    if clip.scheduled is not None:
        frames = frames[np.isin(clip.frame_indices, clip.scheduled)]
    digest = hashlib.sha256(repr(frames.shape).encode())
    digest.update(np.ascontiguousarray(frames))
    return Shard((clip.segment,), "none", _NOT_KNOWN, digest.hexdigest())


def write_sizes(waiting: Store, shown: set[str]) -> None:
    """Note the sizes at which images of waiting scores were shown, in words."""
    write_file(waiting.folder / _SIZES, json.dumps({"shown": sorted(shown)}))


def read_sizes(waiting: Store) -> set[str]:
    """Read them; whoever wrote them is a stranger."""
    sizes: object = None
    if (waiting.folder / _SIZES).is_file():
        with suppress(UserError):
            sizes = read_json_object(waiting.folder / _SIZES, advice="Delete it").get("shown")
    return {size for size in sizes if isinstance(size, str)} if isinstance(sizes, list) else set()


def adopt(store: Store, shards: Sequence[Shard], source: Source) -> list[Shard]:
    """Move waiting scores into a store, as far as they are wanted and it lacks them.

    Args:
        store: the output is held by this process, and the store's sizes hold those of `read_sizes`.
        shards: of the dataset.
        source: the dataset, whose videos are here.

    Returns:
        Those that were moved.

    Raises:
        UserError: the disk is full, or a link is in the place of the waiting ones.
    """
    waiting, moved = waiting_store(store), list[Shard]()
    if not waiting.folder.is_dir():
        return moved
    for shard in shards:
        path = waiting.folder / shard.name
        if shard.control != "none" or not path.is_file():
            continue
        if len(shard.segments) == 1 and store.read(shard) is None:
            key = store.key
            with suppress(EpisodeError):  # who scores it says what is wrong with the video
                clip = read_clip(
                    source,
                    camera=key.camera,
                    segment=shard.segments[0],
                    sample_fps=key.sample_fps,
                    final_frame=key.final_frame,
                    max_images=key.max_images,
                )
                scores = waiting.read(waiting_shard(clip))
                if scores is not None:
                    store.write(shard, scores)
                    moved.append(shard)
        remove(path)
    if not any(waiting.folder.glob("episode_*.parquet")):
        remove(waiting.folder)
    return moved
