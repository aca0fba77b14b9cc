"""Ask the VLM that made a dataset's labels once more: the same checkpoint, in the same way."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lerobot_topreward.data.dataset import fetch_videos
from lerobot_topreward.data.fingerprints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.transaction import WORK_FOLDER
from lerobot_topreward.records import Segment
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.reader import LabelledDataset, default_output
from lerobot_topreward.storage.run_record import check_lineage
from lerobot_topreward.storage.store import Shard, Store, list_shards, open_store
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig, VlmIdentity, identify


def choose_vlm(dataset: LabelledDataset, given: VlmConfig | None) -> VlmConfig:
    """The options that load the VLM of the labels again.

    Args:
        dataset: its labels say which VLM it was, and how it was loaded.
        given: where it lies and on which device it runs; whatever is left at its default is as it
            was for the labels.

    Raises:
        UserError: an option contradicts the labels, or the labels name a folder only.
    """
    key, default = dataset.key, VlmConfig()
    given = given or default
    for name in ("dtype", "quantize"):
        value, made_with = getattr(given, name), getattr(key, name)
        if value not in (getattr(default, name), made_with):
            raise UserError(_describe_difference(name, made_with, value))
    vlm = key.vlm if given.vlm == default.vlm else given.vlm
    if given.vlm == default.vlm and vlm != BUILTIN and "/" not in vlm and not Path(vlm).is_dir():
        raise UserError(
            f"these labels were made with a checkpoint in a folder named '{vlm}', which is not "
            f"here; say where it lies: --vlm FOLDER"
        )
    made_with: dict[str, Any] = {"dtype": key.dtype, "quantize": key.quantize}
    revision = given.vlm_revision or key.vlm_revision
    return replace(given, vlm=vlm, vlm_revision=revision, **made_with)


def identify_same(dataset: LabelledDataset, vlm: VlmConfig) -> VlmIdentity:
    """Pin a VLM, and check that its scores compare with the labels'.

    Raises:
        UserError: it cannot be found, or something that changes a score differs: says what.
    """
    identity, then = identify(vlm), dataset.key
    now = ScoreKey.pin(then, identity, camera=then.camera)
    for item in fields(ScoreKey):
        value, made_with = getattr(now, item.name), getattr(then, item.name)
        if value != made_with:
            raise UserError(_describe_difference(item.name, made_with, value))
    return identity


def _describe_difference(name: str, made_with: object, value: object) -> str:
    if name == "prompt":
        return "these labels were made with another version's prompt; label the dataset again"
    rule = f"these labels were made with {name}={made_with}"
    if name == "vlm_revision":
        return (
            f"{rule}; --vlm holds {value}, another checkpoint of this name: give that of the labels"
        )
    option = f"--{name.replace('_', '-')}"
    return f"{rule}; {option} {value} would not compare with them: give {option} {made_with}"


def list_labelled_shards(
    dataset: LabelledDataset,
    episodes: Sequence[int],
    controls: Sequence[str],
    *,
    swapped: Mapping[str, str] | None = None,
) -> list[Shard]:
    """List shards of labelled episodes, ascending; see `list_shards`.

    Raises:
        ValueError: an episode is not labelled.
    """
    segments: dict[int, list[Segment]] = {episode: [] for episode in sorted(episodes)}
    for scores in dataset.scores:
        if scores.segment.episode_index in segments:
            segments[scores.segment.episode_index].append(scores.segment)
    unlabelled = [episode for episode, found in segments.items() if not found]
    if unlabelled:
        raise ValueError(f"episodes {unlabelled} are not labelled")
    return list_shards(
        segments,
        controls,
        fingerprints=dataset.fingerprints.episodes,
        videos=_print_videos(dataset, list(segments)),
        swapped=swapped,
    )


def _print_videos(dataset: LabelledDataset, episodes: Sequence[int]) -> dict[int, str]:
    camera = dataset.key.camera
    return video_prints(dataset.source, dataset.frames, camera=camera, episodes=episodes)


def fetch_shard_videos(dataset: LabelledDataset, shards: Sequence[Shard]) -> list[Shard]:
    """Fetch the videos of shards that are to be scored, and note their prints.

    Raises:
        UserError: the dataset lacks the camera that was scored, or the Hub refuses.
    """
    camera, cameras = dataset.key.camera, dataset.source.meta.camera_keys
    if camera not in cameras:
        raise UserError(
            f"these labels were made with camera={camera}, which the dataset no longer has; it "
            f"has: {', '.join(cameras)}. Label it again"
        )
    episodes = list(dict.fromkeys(shard.episode for shard in shards))
    fetch_videos(dataset.source, camera, episodes)
    videos = _print_videos(dataset, episodes)
    return [replace(shard, video=videos.get(shard.episode)) for shard in shards]


def choose_output(dataset: LabelledDataset, output: Path | None) -> Path:
    """The folder in whose store more scores go: the labels' own, where that can be written to.

    A snapshot in the Hub's cache is no place for them.

    Args:
        dataset: what is scored.
        output: where else; as ``label`` would choose if not given.
    """
    in_cache = dataset.source.revision is not None and dataset.labels == dataset.source.root
    if not in_cache and os.access(dataset.labels, os.W_OK | os.X_OK):
        return dataset.labels
    if output is not None:
        return output.expanduser().absolute()
    return default_output(dataset.source)


def find_stores(dataset: LabelledDataset, output: Path) -> list[Store]:
    """Where scores of the labels' key may be: the labels' own store, then that of the output."""
    digest = dataset.key.digest()
    folders = dict.fromkeys([dataset.labels, output])
    return [Store(folder / WORK_FOLDER / digest, dataset.key, dataset.fps) for folder in folders]


def open_output_store(dataset: LabelledDataset, output: Path) -> Store:
    """Open the store of the labels' key in an output folder.

    Raises:
        UserError: the folder belongs to another dataset.
    """
    if output == dataset.labels:
        return dataset.store
    check_lineage(
        output,
        dataset=dataset.source.repo_id,
        fingerprint=dataset.fingerprint,
        recordings=dataset.fingerprints.recordings,
    )
    return open_store(output, dataset.key, fps=dataset.fps)
