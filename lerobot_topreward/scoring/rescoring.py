"""Ask the VLM that made a dataset's labels once more: the same checkpoint, in the same way."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lerobot_topreward.data.dataset import fetch_videos
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import WORK_FOLDER, output_lock
from lerobot_topreward.records import Segment
from lerobot_topreward.scoring.run import identify_judge
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.output import check_lineage
from lerobot_topreward.storage.reader import LabelledDataset, default_output
from lerobot_topreward.storage.store import Shard, Store, list_shards, open_store
from lerobot_topreward.vlm.identity import BUILTIN, VlmConfig, VlmIdentity
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig


def list_labelled_shards(
    dataset: LabelledDataset,
    episodes: Sequence[int],
    controls: Sequence[str],
    *,
    asked: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Shard]:
    """List shards of labeled episodes, ascending; see `list_shards`.

    Raises:
        ValueError: an episode is not labeled.
    """
    segments: dict[int, list[Segment]] = {episode: [] for episode in sorted(episodes)}
    for scores in dataset.scores:
        if scores.segment.episode_index in segments:
            segments[scores.segment.episode_index].append(scores.segment)
    unlabeled = [episode for episode, found in segments.items() if not found]
    if unlabeled:
        raise ValueError(f"episodes {unlabeled} are not labeled")
    return list_shards(
        segments,
        controls,
        fingerprints=dataset.source.fingerprints.episodes,
        videos=_print_videos(dataset, list(segments)),
        asked=asked,
    )


def _print_videos(dataset: LabelledDataset, episodes: Sequence[int]) -> dict[int, str]:
    return video_prints(dataset.source, camera=dataset.key.camera, episodes=episodes)


def find_stores(dataset: LabelledDataset, output: Path | None) -> list[Store]:
    """Find the stores that may hold scores of the labels' key; new scores go into the last one.

    That is the labels' own store where it can be written to. A snapshot in the Hub's cache is no
    place for scores: they go to `output`, or where ``label`` would write.
    """
    folders = [dataset.labels]
    in_cache = dataset.source.revision is not None and dataset.labels == dataset.source.root
    if in_cache or not os.access(dataset.labels, os.W_OK | os.X_OK):
        other = default_output(dataset.source) if output is None else output
        folders.append(other.expanduser().absolute())
    digest = dataset.key.digest()
    return [Store(folder / WORK_FOLDER / digest, dataset.key, dataset.fps) for folder in folders]


@contextmanager
def claim_store(dataset: LabelledDataset, store: Store) -> Iterator[None]:
    """Keep other runs away from a store that is written to.

    Raises:
        UserError: another run holds its folder, or that belongs to another dataset.
    """
    output = store.folder.parents[1]
    with output_lock(output):
        if output != dataset.labels:
            check_lineage(
                output,
                dataset=dataset.source.repo_id,
                fingerprint=dataset.source.fingerprints.dataset,
                recordings=dataset.source.fingerprints.recordings,
            )
            open_store(output, dataset.key, fps=dataset.fps)
        yield


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


def identify_same(
    dataset: LabelledDataset,
    given: VlmConfig | None,
    server: ServerConfig | None = None,
    reward_model: RewardModelConfig | None = None,
) -> tuple[VlmConfig, ServerConfig, RewardModelConfig, VlmIdentity]:
    """Find the judge of the labels, and check that its scores compare with theirs.

    What is given says where it lies and on which device it runs, or which servers run it; whatever
    is left at its default is as it was for the labels. But a reward model must be named: LeRobot
    loads some with code from their repository, which the labels alone must not choose.

    Raises:
        UserError: it cannot be found, or something that changes a score differs: says what.
    """
    key, default = dataset.key, VlmConfig()
    given, server = given or default, server or ServerConfig()
    reward_model = _check_reward_model(key, reward_model or RewardModelConfig())
    if given.vlm == "auto":
        given = replace(given, vlm=default.vlm)
    names = ("vlm", "vlm_revision", "dtype", "quantize") if key.reward_model is None else ()
    options: dict[str, Any] = {
        name: getattr(key if getattr(given, name) == getattr(default, name) else given, name)
        for name in names
    }
    vlm = options.get("vlm", BUILTIN)
    folder = given.vlm == default.vlm and vlm != BUILTIN and "/" not in vlm
    if folder and key.server_video != "images" and not Path(vlm).is_dir():
        raise UserError(
            f"these labels were made with a checkpoint in a folder named '{vlm}', which is not "
            f"here; say where it lies: `vlm=FOLDER`"
        )
    if key.server is not None and not server.server:
        raise UserError(
            f"these labels were made by a server ({key.server}, model {key.server_model}); say where "
            "one is: `server=URL`"
        )
    if key.server is None and server.server:
        raise UserError(
            "these labels were made by a VLM in its own process, not by a server; leave out `server`"
        )
    if key.server is not None:
        # Its name there was right for the labels, and how the video was shown is theirs.
        model = server.server_model or key.server_model
        server = replace(server, server_model=model, server_video=key.server_video)
        if key.server_video == "images":
            options["vlm_revision"] = None if key.vlm_revision == "unknown" else key.vlm_revision
    config = replace(given, **options)
    identity = identify_judge(config, server, reward_model=reward_model)
    same = ScoreKey.pin(key, identity, camera=key.camera)
    for item in fields(ScoreKey):
        value, made_with = getattr(same, item.name), getattr(key, item.name)
        if value == made_with:
            continue
        option = item.name
        if option == "vlm" and key.reward_model is not None:
            option = "reward_path"
        rule = f"these labels were made with {option}={made_with}"
        if item.name == "prompt":
            raise UserError(
                "these labels were made with another version's prompt; label the dataset again"
            )
        if item.name == "head":
            raise UserError(
                f"these labels were made by a version that read the answers in {key.dtype}, not in "
                "float32; label the dataset again"
            )
        if item.name == "vlm_revision":
            where = "vlm" if key.reward_model is None else "reward_path"
            raise UserError(
                f"{rule}; `{where}` holds {value}, another checkpoint of this name: give that of "
                "the labels"
            )
        if item.name in ("server", "template"):
            raise UserError(
                f"{rule}; the server is now {same.server}, whose scores would not compare with "
                "them: start the one of the labels, or label again"
            )
        raise UserError(
            f"{rule}; `{option}={value}` would not compare with them: give `{option}={made_with}`"
        )
    return config, server, reward_model, identity


def _check_reward_model(key: ScoreKey, given: RewardModelConfig) -> RewardModelConfig:
    """Compare the reward model that is given with that of the labels, which may have none.

    Returns:
        It, with the labels' own commit where none is given.
    """
    if given.reward_model is None and key.reward_model is None:
        return given
    if key.reward_model is None:
        raise UserError(
            "these labels were made by a VLM, not by a reward model; leave out "
            f"`reward_model={given.reward_model}`"
        )
    if given.name != key.reward_model:
        path = key.vlm if "/" in key.vlm else "FOLDER"
        raise UserError(
            f"these labels were made by the reward model {key.reward_model}, of {key.vlm}; if you "
            f"trust it, say so: `reward_model={key.reward_model}` `reward_path={path}`"
        )
    commit = key.vlm_revision.partition("+")[0]
    if given.reward_revision is None and given.reward_path == key.vlm and "/" in key.vlm:
        return replace(given, reward_revision=commit)
    return given
