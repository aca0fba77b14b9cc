"""Scores of controls: what the same VLM says of the same episodes when it should say otherwise.

Each control is one more pass over the sampled episodes. Its shards lie beside those of the labels,
so that it is paid for once and can be stopped at any moment.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import BASELINES
from lerobot_topreward.scoring.other_instructions import choose_swapped
from lerobot_topreward.scoring.rescoring import (
    claim_store,
    fetch_shard_videos,
    find_stores,
    identify_same,
    list_labelled_shards,
)
from lerobot_topreward.scoring.run import Outcome, load_scorer, score_shards
from lerobot_topreward.scoring.scorer import CONTROLS, check_controls
from lerobot_topreward.scoring.servers import print_requests, try_servers
from lerobot_topreward.storage.blank import read_blanks
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Shard, Store
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig


@dataclass(frozen=True, slots=True)
class ControlScores:
    """What controls score beside the real videos of the same episodes."""

    real: tuple[PrefixScores, ...]  # control "none", of the episodes asked for
    controls: Mapping[str, list[PrefixScores]]  # by control, those that could be scored
    scored: int = 0  # episodes that went through the VLM now
    reasons: Mapping[str, str] = field(default_factory=dict)  # control -> why it was left out
    failed: Mapping[int, str] = field(default_factory=dict)  # episode -> reason


def score_controls(
    dataset: LabelledDataset,
    *,
    controls: Sequence[str],
    episodes: Sequence[int],
    vlm: VlmConfig | None,
    swapped_instruction: str | None,
    output: Path | None,
    console: Console,
    server: ServerConfig | None = None,
    reward_model: RewardModelConfig | None = None,
) -> ControlScores:
    """Score controls of labeled episodes, those that no earlier run has scored.

    New shards go to `output` where the labels' own folder cannot be written to. For the VLM, or the
    servers that run it, see `identify_same`; for the instruction that "swapped" asks, `choose_swapped`.

    Raises:
        UserError: something that the user can fix; whatever was scored is kept.
        KeyboardInterrupt: the user stopped it; whatever was scored is kept.
    """
    check_controls(controls)
    # List what is wanted: which episode under which control, and what that asks.
    own = [scores.segment.instruction for scores in dataset.scores]
    asked = {"swapped": choose_swapped(own, given=swapped_instruction)}
    wanted = list_labelled_shards(dataset, episodes, controls, asked=asked)
    reasons = {}
    if "swapped" in controls and all(shard.control != "swapped" for shard in wanted):
        reasons["swapped"] = (
            "every episode has the same instruction, so there is no other one to ask; give another "
            "task's with `swapped_instruction=TEXT`"
        )
    # See what the stores have.
    stores = find_stores(dataset, output)
    todo = [shard for shard in wanted if _read(stores, shard) is None]
    # Score the rest.
    outcome = Outcome()
    if todo:
        todo = fetch_shard_videos(dataset, todo)
        config, server, reward_model, identity = identify_same(dataset, vlm, server, reward_model)
        with claim_store(dataset, stores[-1]):
            scorer = load_scorer(
                config, dataset.key, identity=identity, server=server, reward_model=reward_model
            )
            if dataset.key.server is not None:
                print_requests(dataset.source, dataset.key, todo, console=console)
            try_servers(scorer, dataset.source, dataset.key, todo, console=console)
            outcome = score_shards(dataset.source, stores[-1], todo, scorer, console=console)
        if outcome.interrupted:
            raise KeyboardInterrupt
    # Read it back.
    found: dict[str, list[PrefixScores]] = {name: [] for name in controls if name not in reasons}
    for shard in wanted:
        found[shard.control] += _read(stores, shard) or []
    chosen = set(episodes)
    real = tuple(scores for scores in dataset.scores if scores.segment.episode_index in chosen)
    return ControlScores(real, found, outcome.answered, reasons, outcome.failed)


def read_controls(
    dataset: LabelledDataset, *, output: Path | None = None
) -> Mapping[str, list[PrefixScores]]:
    """Read the controls that earlier runs scored, into the labels' own folder or the output.

    Returns:
        What there is of each control, without the controls of which there is nothing.
    """
    found: dict[str, list[PrefixScores]] = defaultdict(list)
    for scores in _read_stored(dataset, find_stores(dataset, output), CONTROLS):
        found[scores.control].append(scores)
    return {control: found[control] for control in CONTROLS if control in found}


def read_baselines(dataset: LabelledDataset, *, output: Path | None = None) -> list[PrefixScores]:
    """Read what formulas subtract and is no control of `read_controls`, as far as it was scored."""
    stores = find_stores(dataset, output)
    found = _read_stored(dataset, stores, BASELINES["contrast"])
    return [*found, *read_blanks(stores, dataset.source, dataset.scores)]


def _read_stored(
    dataset: LabelledDataset, stores: Sequence[Store], controls: Sequence[str]
) -> list[PrefixScores]:
    """Read what stores hold of some controls; where they hold none, no video is looked at."""
    there = [
        name
        for name in controls
        if any(any(store.folder.glob(f"*.{name}.parquet")) for store in stores)
    ]
    shards = list_labelled_shards(dataset, dataset.episodes, there) if there else []
    return [scores for shard in shards for scores in _read(stores, shard) or []]


def _read(stores: Sequence[Store], shard: Shard) -> list[PrefixScores] | None:
    found = (store.read(shard) for store in stores)
    return next((scores for scores in found if scores is not None), None)


def sample_episodes(dataset: LabelledDataset, count: int, *, seed: int = 0) -> list[int]:
    """Draw labeled episodes; see `spread_episodes`."""
    texts: dict[int, list[str]] = defaultdict(list)
    for scores in dataset.scores:
        texts[scores.segment.episode_index].append(scores.segment.instruction)
    return spread_episodes(texts, count, success={}, seed=seed)


def spread_episodes(
    instructions: Mapping[int, Sequence[str]],
    count: int,
    *,
    success: Mapping[int, bool],
    seed: int = 0,
) -> list[int]:
    """Draw episodes, ascending, as evenly from every outcome, and there from every task, as can be.

    A larger sample of the same seed holds the smaller one, so that its scores are used again.

    Args:
        instructions: of the segments of each episode that can be drawn.
        count: episodes.
        success: by episode, as far as it is known.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    places = []
    for kind, outcome in enumerate((True, False, None)):
        tasks: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for episode, texts in instructions.items():
            if success.get(episode) == outcome:
                tasks[tuple(texts)].append(episode)
        turns = [
            (turn, position, episode)
            for position, members in enumerate(tasks.values())
            for turn, episode in enumerate(rng.permutation(members).tolist())
        ]
        places += [(place, kind, episode) for place, (*_, episode) in enumerate(sorted(turns))]
    return sorted(episode for *_, episode in sorted(places)[:count])
