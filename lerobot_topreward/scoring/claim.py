"""What commands beside label note in a store that they add scores to; what label noted there stays."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from lerobot_topreward import __version__
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.records import Clip
from lerobot_topreward.scoring.scorer import SizedScorer
from lerobot_topreward.storage.output import describe_lineage
from lerobot_topreward.storage.store import Store, read_run, write_run


def claim_store(
    store: Store, source: Source, *, camera: str, state: str, config: Mapping[str, Any]
) -> set[str]:
    """Note in a store whose scores it holds, and give its shards the numbers of their episodes.

    Args:
        store: of the scores; the output is held by this process.
        source: the dataset.
        camera: whose videos are scored.
        state: of a store that is new.
        config: of the command that made it, if it is new.

    Returns:
        The sizes at which images were shown so far.

    Raises:
        UserError: the store's ``run.json`` is damaged.
    """
    file = store.folder / "run.json"
    run: dict[str, Any] = {
        "version": __version__,
        "python": sys.version.split()[0],
        "config": config,
        "state": state,
        "failed": {},
        "broken": {},
        "labelled": None,
        "seconds": None,
    }
    if file.is_file():
        run = read_run(file)
        if run.get("fingerprint") != source.fingerprints.dataset:
            everything = range(source.meta.total_episodes)
            prints = video_prints(source, camera=camera, episodes=everything)
            store.renumber(source.fingerprints.episodes, prints)
    ours = source.fingerprints
    run |= describe_lineage(source.repo_id, ours.dataset, ours.recordings)
    run["revision"] = source.revision
    sizes = run.get("shown")
    shown = {size for size in sizes if isinstance(size, str)} if isinstance(sizes, list) else set()
    write_run(store.folder, store.key, {**run, "shown": sorted(shown)})
    return shown


def note_sizes(scorer: SizedScorer, store: Store, shown: set[str]) -> Callable[[Clip], None]:
    """Make a function that notes in a store, once each, the sizes at which images are shown."""

    def look(clip: Clip) -> None:
        size = describe_size(scorer, clip)
        if size not in shown:
            shown.add(size)
            write_shown(store, shown)

    return look


def describe_size(scorer: SizedScorer, clip: Clip) -> str:
    """Say at which size a clip's images are shown, as ``run.json`` does."""
    (height, width), (of_height, of_width) = scorer.shown_size(clip), clip.size
    return f"{width}x{height} of {of_width}x{of_height}"


def write_shown(store: Store, shown: set[str]) -> None:
    """Note in a store all sizes at which images were shown; whose it is is noted there already."""
    run = read_run(store.folder / "run.json")
    write_run(store.folder, store.key, {**run, "shown": sorted(shown)})
