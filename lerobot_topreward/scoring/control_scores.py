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
from lerobot_topreward.files.atomic import output_lock
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.scoring.rescoring import (
    choose_output,
    choose_vlm,
    fetch_shard_videos,
    find_stores,
    identify_same,
    list_labelled_shards,
    open_output_store,
)
from lerobot_topreward.scoring.run import Outcome, load_scorer, score_shards
from lerobot_topreward.scoring.scorer import check_controls
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Shard, Store
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.prompts import require_text

ONE_INSTRUCTION = (
    "every episode has the same instruction, so there is no other one to ask; give another task's "
    "with --swapped-instruction TEXT"
)


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
    """Score controls of labelled episodes, those that no earlier run has scored.

    Args:
        dataset: what is scored, and how it was.
        controls: any of `scoring.CONTROLS`.
        episodes: labelled episodes.
        vlm: where the VLM of the labels lies and on which device it runs; its defaults mean
            whatever made the labels.
        swapped_instruction: what "swapped" asks; by default another episode's instruction.
        output: where shards go when the labels' own folder cannot be written to.
        console: what is told of progress.

    Raises:
        UserError: something that the user can mend; whatever was scored is kept.
        KeyboardInterrupt: the user stopped it; whatever was scored is kept.
    """
    check_controls(controls)
    config = choose_vlm(dataset, vlm)
    folder = choose_output(dataset, output)
    stores = find_stores(dataset, folder)
    # List what is wanted: which episode under which control, and what that asks.
    swapped = swapped_instructions(dataset, given=swapped_instruction)
    wanted = list_labelled_shards(dataset, episodes, controls, swapped=swapped)
    reasons = {}
    if "swapped" in controls and all(shard.control != "swapped" for shard in wanted):
        reasons["swapped"] = ONE_INSTRUCTION
    # See what the stores have.
    todo = [shard for shard in wanted if _read(stores, shard) is None]
    # Score the rest.
    outcome = Outcome()
    if todo:
        todo = fetch_shard_videos(dataset, todo)
        identity = identify_same(dataset, config)
        with output_lock(folder):
            store = open_output_store(dataset, folder)
            scorer = load_scorer(dataset.key, config, identity)
            outcome = score_shards(dataset.source, store, todo, scorer, console=console)
        if outcome.interrupted:
            raise KeyboardInterrupt
    # Read it back.
    chosen = set(episodes)
    scores = _read_all(stores, wanted)
    return ControlScores(
        real=tuple(one for one in dataset.scores if one.segment.episode_index in chosen),
        controls={control: scores[control] for control in controls if control not in reasons},
        scored=outcome.answered,
        reasons=reasons,
        failed=outcome.failed,
    )


def stored_controls(
    dataset: LabelledDataset,
    *,
    controls: Sequence[str],
    swapped_instruction: str | None = None,
    output: Path | None = None,
) -> Mapping[str, list[PrefixScores]]:
    """Read the controls that earlier runs scored; asks no VLM.

    Args:
        dataset: a labelled dataset.
        controls: any of `scoring.CONTROLS`.
        swapped_instruction: what "swapped" must have asked; whatever it was if not given.
        output: where shards went when the labels' own folder could not be written to.

    Returns:
        What there is of each control, without the controls of which there is nothing.
    """
    check_controls(controls)
    swapped = None
    if swapped_instruction is not None:
        swapped = swapped_instructions(dataset, given=swapped_instruction)
    wanted = list_labelled_shards(dataset, dataset.episodes, controls, swapped=swapped)
    stores = find_stores(dataset, choose_output(dataset, output))
    scores = _read_all(stores, wanted)
    return {control: scores[control] for control in controls if scores[control]}


def _read_all(stores: Sequence[Store], shards: Sequence[Shard]) -> dict[str, list[PrefixScores]]:
    """The stored scores by control, in the order of the shards."""
    found: dict[str, list[PrefixScores]] = defaultdict(list)
    for shard in shards:
        found[shard.control] += _read(stores, shard) or []
    return found


def _read(stores: Sequence[Store], shard: Shard) -> list[PrefixScores] | None:
    found = (store.read(shard) for store in stores)
    return next((scores for scores in found if scores is not None), None)


def sample_episodes(dataset: LabelledDataset, count: int, *, seed: int = 0) -> list[int]:
    """Draw labelled episodes, as evenly from every task as can be.

    A larger sample of the same seed holds the smaller one, so that its scores are used again.

    Args:
        dataset: a labelled dataset.
        count: how many, >= 1; all of them when there are fewer.
        seed: of the draw.

    Returns:
        Episode indices, ascending.
    """
    tasks: dict[tuple[str, ...], list[int]] = defaultdict(list)
    texts: dict[int, list[str]] = defaultdict(list)
    for one in dataset.scores:
        texts[one.segment.episode_index].append(one.segment.instruction)
    for episode, parts in texts.items():
        tasks[tuple(parts)].append(episode)
    rng = np.random.default_rng(seed)
    turns = [
        (turn, position, episode)
        for position, members in enumerate(tasks.values())
        for turn, episode in enumerate(rng.permutation(members).tolist())
    ]
    return sorted(episode for _, _, episode in sorted(turns)[:count])


def swapped_instructions(dataset: LabelledDataset, *, given: str | None) -> dict[str, str]:
    """Choose the other instruction for each instruction of the dataset.

    Args:
        dataset: a labelled dataset.
        given: the other instruction; by default that of another episode, spread over them all,
            and the same whichever episodes are sampled.

    Returns:
        By instruction; those for which there is no other one are left out.

    Raises:
        UserError: the given one is blank, holds control tokens, or is what the episodes were asked about already.
    """
    own = list(dict.fromkeys(one.segment.instruction for one in dataset.scores))
    if given is not None and not _plain(given):
        raise UserError("--swapped-instruction must be another task's instruction; it is blank")
    if given is not None:
        require_text(given, what="--swapped-instruction", fix="Say it without")
    pool = own if given is None else [given]
    swapped = {}
    for text in own:
        if others := [other for other in pool if _plain(other) != _plain(text)]:
            swapped[text] = min(others, key=lambda other: _draw(text, other))
    if given is not None and not swapped:
        raise UserError(
            f"--swapped-instruction '{given}' is what every episode was asked about already; give "
            "another task's"
        )
    return swapped


def _draw(text: str, other: str) -> str:
    # Any order that a new task does not change: scores of the old ones stay of use.
    return hashlib.sha256(f"{text}\0{other}".encode()).hexdigest()


def _plain(text: str) -> str:
    """Case, spaces and a full stop do not make another instruction."""
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")
