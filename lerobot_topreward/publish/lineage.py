"""Whether a dataset may replace what lies on the Hub: only itself, or earlier labels of itself."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi

from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.data.info import INFO_PATH
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.publish.changes import CURATION_FILE
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, fingerprint_of


@dataclass(frozen=True, slots=True)
class Lineage:
    """What tells a dataset, in its earlier and later states, from another one."""

    size: tuple[int, int]  # episodes, frames
    features: Mapping[str, tuple[str, tuple[int, ...]]]  # type and shape, ours left out
    tasks: Collection[str]
    made_from: str | None  # fingerprint of the dataset that it is a selection of
    fingerprint: str | None = None  # see `Fingerprints.dataset`; None while it is not made yet
    recordings: Collection[str] | None = None  # see `Fingerprints`; None while they are not known


def lineage_of(source: Source) -> Lineage:
    """Describe a dataset.

    Raises:
        UserError: It cannot be read or, where its ``data/`` has to be fetched, the Hub refuses.
    """
    found = source.fingerprints
    recordings = frozenset(found.recordings)
    return replace(_describe(source), fingerprint=found.dataset, recordings=recordings)


def _describe(source: Source) -> Lineage:
    """What the files in ``meta/`` and ``curation.json`` say."""
    made_from = None
    if (source.root / CURATION_FILE).is_file():
        record = read_json_object(source.root / CURATION_FILE, advice="curate again")
        origin = record.get("source")
        made_from = origin.get("fingerprint") if isinstance(origin, Mapping) else None
    return Lineage(
        size=(source.meta.total_episodes, source.meta.total_frames),
        features={
            name: (feature["dtype"], tuple(feature["shape"]))
            for name, feature in source.meta.features.items()
            if not name.startswith("topreward.")
        },
        tasks=frozenset(source.meta.tasks.values()),
        made_from=made_from,
    )


def find_difference(
    api: HfApi, repo_id: str, *, commit: str, ours: Lineage, for_labels: bool
) -> str | None:
    """Say why a commit on the Hub is neither a dataset nor earlier labels of it; None if it is.

    Args:
        api: The Hub's client.
        repo_id: The repository.
        commit: What would be replaced. Its videos are never fetched, its data only when needed.
        ours: What would replace it.
        for_labels: Whether labels of ``ours`` alone are put there, so that an earlier state of it
            counts even where it has none.

    Raises:
        UserError: The ``meta/info.json`` there is damaged.
    """
    patterns = ["meta/", SIDECAR_NAME, CURATION_FILE]
    root = Path(
        api.snapshot_download(
            repo_id, repo_type="dataset", revision=commit, allow_patterns=patterns
        )
    )
    if not (root / INFO_PATH).is_file():
        return None
    info = read_json_object(root / INFO_PATH, advice="Name another repository")
    episodes, frames = info.get("total_episodes"), info.get("total_frames")
    if not episodes and not frames:
        return None
    try:
        source = open_source(repo_id=repo_id, root=root, revision=None)
        why = _compare(source, ours, for_labels=for_labels)
    except UserError:
        why = "it cannot be read"
    return None if why is None else f"it has {episodes} episodes of {frames} frames in all, {why}"


def _compare(source: Source, ours: Lineage, *, for_labels: bool) -> str | None:
    # First what small files say; the recordings, for which `data/` has to be fetched, come last.
    theirs = _describe(source)
    if theirs.features != ours.features:
        changed = theirs.features.items() ^ ours.features.items()
        return f"its features differ in {', '.join(sorted({name for name, _ in changed})[:3])}"
    if not for_labels and not set(theirs.tasks) & set(ours.tasks):
        return "and none of your tasks"
    if ours.made_from is not None and theirs.made_from == ours.made_from:
        return None  # an earlier selection from the same dataset
    made_for = fingerprint_of(source.root / SIDECAR_NAME)
    if made_for is not None and made_for == ours.fingerprint and theirs.size == ours.size:
        return None  # other labels of the very same frames
    # Labels may lie there of an earlier state of this dataset, with fewer episodes or other tasks:
    # then some recordings are the same. Without labels it must be the same dataset.
    is_earlier = for_labels or made_for is not None
    if is_earlier and ours.recordings is None:
        return None  # not known before it is made
    theirs = lineage_of(source)
    if theirs.fingerprint == ours.fingerprint:
        return None
    if not is_earlier:
        return "without labels, and it is not the one that you labeled"
    shared = set(theirs.recordings or ()) & set(ours.recordings or ())
    return None if shared else "and none of your recordings"
