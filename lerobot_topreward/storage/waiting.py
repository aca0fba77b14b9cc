"""Scores of episodes whose dataset cannot be read yet, because its recorder has not closed it.

::

    <output>/topreward/<key>/watch/shown.json              sizes of images of these scores
    <output>/topreward/<key>/watch/episode_000123.parquet  as in the store

A store asks for a fingerprint of what was recorded, which is not known so early. These shards are
bound to what is: the key (VLM, camera, schedule), the episode's length and task, and the print of
its video. Where all of that is found again, they move into the store; whatever does not fit is
scored again.
"""

import json
from collections.abc import Sequence
from contextlib import suppress

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import remove, write_file
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.records import Segment
from lerobot_topreward.storage.store import Shard, Store

_NOT_KNOWN = "recording"  # in place of a fingerprint
_SIZES = "shown.json"


def waiting_store(store: Store) -> Store:
    """Where the scores of a key wait, beside its store; it may not exist.

    Raises:
        UserError: a link is in its place.
    """
    folder = store.folder / "watch"
    if folder.is_symlink():
        raise UserError(f"{folder} must be a folder, not a link; remove it and run again")
    return Store(folder, store.key, store.fps)


def waiting_shard(segments: Sequence[Segment], video: str) -> Shard:
    """The shard of an episode whose fingerprint is not known, by the print of its video."""
    return Shard(tuple(segments), "none", _NOT_KNOWN, video)


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


def adopt(store: Store, shards: Sequence[Shard]) -> list[Shard]:
    """Move waiting scores into a store, as far as they are wanted and it lacks them.

    Args:
        store: the output is held by this process, and the store's sizes hold those of `read_sizes`.
        shards: of the dataset, which can be read now.

    Returns:
        Those that were moved.

    Raises:
        UserError: the disk is full, or a link is in the place of the waiting ones.
    """
    waiting = waiting_store(store)
    if not waiting.folder.is_dir():
        return []
    moved: list[Shard] = []
    for shard in shards:
        if shard.control != "none" or shard.video is None:
            continue
        scores = waiting.read(waiting_shard(shard.segments, shard.video))
        if scores is None:
            continue
        if store.read(shard) is None:
            store.write(shard, scores)
            moved.append(shard)
        remove(waiting.folder / shard.name)
    if not any(waiting.folder.glob("episode_*.parquet")):
        remove(waiting.folder)
    return moved
