"""The curves of other judges: whatever else than the labels' own scores lies beside the labels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from lerobot_topreward.data.dataset import segments
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import Formula, Scale, label_rewards
from lerobot_topreward.scoring.rescoring import find_stores
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Store, list_shards, list_stores
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig

_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class OtherCurve:
    """What another judge says of a segment: progress after each prefix, straight in between."""

    judge: int  # which, counted from 1: 0 is the labels' own
    frame: Int64[np.ndarray, " prefixes"]  # last frame of each prefix, within the episode
    progress: Float[np.ndarray, " prefixes"]  # 0..1, per task over what this judge scored


def read_others(
    dataset: LabelledDataset,
) -> tuple[Sequence[str], Mapping[int, Sequence[OtherCurve]]]:
    """Read what other judges scored of the labeled episodes, as compare leaves it.

    Returns:
        The judges' names, the labels' own first, and the curves of each episode.
    """
    outputs = dict.fromkeys(store.folder.parents[1] for store in find_stores(dataset, None))
    stores = {
        store.key.digest(): store
        for output in outputs
        for store in list_stores(output, fps=dataset.fps)
        if store.key != dataset.key
    }
    keys, curves = [dataset.key], defaultdict(list)
    for store in stores.values():
        scores = _read(dataset, store)
        if not scores:
            continue
        rewards = label_rewards(
            scores,
            dataset.source.frames.episode_index,
            horizon=dataset.horizon,
            normalize="task",
            formula=Formula(_choose_scale(store.key, dataset)),
        )
        for part in scores:
            frame = part.segment.start + part.prefix_length - 1
            progress = rewards.episode(part.segment.episode_index).progress[frame]
            rounded = np.round(progress.astype(np.float64), _DECIMALS)
            curves[part.segment.episode_index].append(OtherCurve(len(keys), frame, rounded))
        keys.append(store.key)
    return name_judges(keys) if len(keys) > 1 else (), curves


def _choose_scale(key: ScoreKey, dataset: LabelledDataset) -> Scale:
    """A reward model's own progress; of a VLM what the labels are made of, if a VLM made them."""
    if RewardModelConfig(reward_model=key.reward_model).gives_progress:
        return "prob"
    return "log-prob" if dataset.key.reward_model is not None else dataset.formula.scale


def _read(dataset: LabelledDataset, store: Store) -> list[PrefixScores]:
    """Read what a store holds of the labeled episodes as they are now."""
    key, source = store.key, dataset.source
    there = [episode for episode in dataset.episodes if store.path(episode, "none").exists()]
    if not there or key.camera not in source.meta.camera_keys:
        return []
    try:
        cut = segments(source, there, instruction=key.instruction)
    except UserError:  # a key is a stranger's: its instruction need not be one
        return []
    shards = list_shards(
        cut,
        ["none"],
        fingerprints=source.fingerprints.episodes,
        videos=video_prints(source, camera=key.camera, episodes=there),
    )
    return [scores for shard in shards for scores in store.read(shard) or ()]


def name_judges(keys: Sequence[ScoreKey]) -> list[str]:
    """Name judges, each by its model and by what tells it from others of the same model."""
    groups: dict[str, list[dict[str, object]]] = defaultdict(list)
    for key in keys:
        groups[key.judge].append(key.to_json())
    names = []
    for key in keys:
        own, group = key.to_json(), groups[key.judge]
        told = {
            name: value
            for name, value in own.items()
            if len({_say(each.get(name)) for each in group}) > 1
        }
        words = [f"{name} {_say(value)}" for name, value in told.items() if name != "prompt"]
        names.append(f"{key.judge} ({', '.join(words)})" if words else key.judge)
    return names


def _say(value: object) -> str:
    return "default" if value is None else str(value)[:40]
