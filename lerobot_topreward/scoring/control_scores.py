"""Scores of controls: what the same VLM says of the same episodes when it should say otherwise.

Each control is one more pass over the sampled episodes. Its shards lie beside those of the labels,
so that it is paid for once and can be stopped at any moment.
"""

import hashlib
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.scoring.rescoring import (
    claim_store,
    fetch_shard_videos,
    find_stores,
    identify_same,
    list_labelled_shards,
)
from lerobot_topreward.scoring.run import Outcome, load_scorer, score_shards
from lerobot_topreward.scoring.scorer import CONTROLS, check_controls
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Shard, Store
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.prompts import require_text


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
) -> ControlScores:
    """Score controls of labeled episodes, those that no earlier run has scored.

    New shards go to `output` where the labels' own folder cannot be written to. For the VLM, see
    `identify_same`; for the instruction that "swapped" asks, `choose_swapped`.

    Raises:
        UserError: something that the user can fix; whatever was scored is kept.
        KeyboardInterrupt: the user stopped it; whatever was scored is kept.
    """
    check_controls(controls)
    # List what is wanted: which episode under which control, and what that asks.
    swapped = choose_swapped(dataset, given=swapped_instruction)
    wanted = list_labelled_shards(dataset, episodes, controls, swapped=swapped)
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
        config, identity = identify_same(dataset, vlm)
        with claim_store(dataset, stores[-1]):
            scorer = load_scorer(config, dataset.key, identity=identity)
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
    stores = find_stores(dataset, output)
    found: dict[str, list[PrefixScores]] = defaultdict(list)
    for shard in list_labelled_shards(dataset, dataset.episodes, CONTROLS):
        if scores := _read(stores, shard):
            found[shard.control] += scores
    return {control: found[control] for control in CONTROLS if control in found}


def _read(stores: Sequence[Store], shard: Shard) -> list[PrefixScores] | None:
    found = (store.read(shard) for store in stores)
    return next((scores for scores in found if scores is not None), None)


def sample_episodes(dataset: LabelledDataset, count: int, *, seed: int = 0) -> list[int]:
    """Draw labeled episodes, ascending, as evenly from every task as can be.

    A larger sample of the same seed holds the smaller one, so that its scores are used again.
    """
    texts: dict[int, list[str]] = defaultdict(list)
    for scores in dataset.scores:
        texts[scores.segment.episode_index].append(scores.segment.instruction)
    tasks: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for episode, instructions in texts.items():
        tasks[tuple(instructions)].append(episode)
    rng = np.random.default_rng(seed)
    turns = [
        (turn, position, episode)
        for position, members in enumerate(tasks.values())
        for turn, episode in enumerate(rng.permutation(members).tolist())
    ]
    return sorted(episode for _, _, episode in sorted(turns)[:count])


def choose_swapped(dataset: LabelledDataset, *, given: str | None) -> dict[str, str]:
    """Choose the other instruction for each instruction of the dataset that has one.

    That is the given one, or by default another episode's, spread over them all and the same
    whichever episodes are sampled.

    Raises:
        UserError: the given one is blank, holds control tokens, or is what the episodes were asked
            about already.
    """

    def simplify(text: str) -> str:  # case, spaces and a full stop make no other instruction
        return " ".join(text.casefold().split()).strip(string.punctuation + " ")

    own = list(dict.fromkeys(scores.segment.instruction for scores in dataset.scores))
    if given is not None and not simplify(given):
        raise UserError("`swapped_instruction` must be another task's instruction; it is blank")
    if given is not None:
        require_text(given, what="`swapped_instruction`", fix="Say it without")
    swapped = {}
    for text in own:
        pool = own if given is None else [given]
        # Any order will do that a new task does not change: scores of the old ones stay of use.
        ranks = {
            hashlib.sha256(f"{text}\0{other}".encode()).hexdigest(): other
            for other in pool
            if simplify(other) != simplify(text)
        }
        if ranks:
            swapped[text] = ranks[min(ranks)]
    if given is not None and not swapped:
        raise UserError(
            f"`swapped_instruction='{given}'` is what every episode was asked about already; give "
            "another task's"
        )
    return swapped
