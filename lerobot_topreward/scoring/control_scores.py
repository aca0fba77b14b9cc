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

from lerobot_topreward.console import EpisodeProgress, stop_on_signal
from lerobot_topreward.data.video_prints import video_prints
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import output_lock
from lerobot_topreward.records import PrefixScores, Segment
from lerobot_topreward.scoring.job import Job, asked
from lerobot_topreward.scoring.rescoring import (
    identify_same,
    output_of,
    same_vlm,
    scoring_job,
    stores_of,
    writable_store,
)
from lerobot_topreward.scoring.run import load_scorer, score_episodes
from lerobot_topreward.scoring.scorer import check_controls
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Store
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
    config = same_vlm(dataset, vlm)
    swapped = swapped_instructions(dataset, given=swapped_instruction)
    folder = output_of(dataset, output)
    shards = _shards(dataset, episodes, folder)
    reasons = {}
    if "swapped" in controls and not shards.askable("swapped", swapped):
        reasons["swapped"] = ONE_INSTRUCTION
    controls = [control for control in dict.fromkeys(controls) if control not in reasons]
    todo = shards.missing(controls, swapped)
    failed: Mapping[int, str] = {}
    if todo:
        job = scoring_job(dataset, episodes=list(todo), vlm=config, output=folder)
        failed = _score(dataset, job, todo, swapped, console=console)
    chosen = set(episodes)
    return ControlScores(
        real=tuple(one for one in dataset.scores if one.segment.episode_index in chosen),
        controls={control: shards.read_all(control, swapped) for control in controls},
        scored=len(todo) - len(failed),
        reasons=reasons,
        failed=failed,
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
    shards = _shards(dataset, dataset.episodes, output_of(dataset, output))
    found = {control: shards.read_all(control, swapped) for control in controls}
    return {control: scores for control, scores in found.items() if scores}


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


@dataclass(frozen=True, slots=True)
class _Shards:
    """The shards of some episodes, in the labels' own store or in another folder's."""

    parts: Mapping[int, list[Segment]]  # by episode
    fingerprints: Sequence[str]  # by episode
    videos: Mapping[int, str]  # prints, by episode
    stores: Sequence[Store]

    def read(
        self, episode: int, control: str, swapped: Mapping[str, str] | None
    ) -> list[PrefixScores] | None:
        for store in self.stores:
            found = store.read(
                self.parts[episode],
                control,
                fingerprint=self.fingerprints[episode],
                video=self.videos.get(episode),
                asked=asked(self.parts[episode], control, swapped),
            )
            if found is not None:
                return found
        return None

    def read_all(self, control: str, swapped: Mapping[str, str] | None) -> list[PrefixScores]:
        found = [self.read(episode, control, swapped) for episode in self.askable(control, swapped)]
        return [one for parts in found if parts is not None for one in parts]

    def missing(
        self, controls: Sequence[str], swapped: Mapping[str, str]
    ) -> dict[int, tuple[str, ...]]:
        todo: dict[int, tuple[str, ...]] = {}
        for control in controls:
            for episode in self.askable(control, swapped):
                if self.read(episode, control, swapped) is None:
                    todo[episode] = (*todo.get(episode, ()), control)
        return dict(sorted(todo.items()))

    def askable(self, control: str, swapped: Mapping[str, str] | None) -> list[int]:
        """Episodes that the control can ask about: all but those without another instruction."""
        if control != "swapped" or swapped is None:
            return list(self.parts)
        return [
            episode
            for episode, parts in self.parts.items()
            if all(part.instruction in swapped for part in parts)
        ]


def _shards(dataset: LabelledDataset, episodes: Sequence[int], output: Path) -> _Shards:
    parts: dict[int, list[Segment]] = {episode: [] for episode in sorted(episodes)}
    for one in dataset.scores:
        if one.segment.episode_index in parts:
            parts[one.segment.episode_index].append(one.segment)
    lacking = [episode for episode, found in parts.items() if not found]
    if lacking:
        raise ValueError(f"episodes {lacking} are not labelled")
    return _Shards(
        parts=parts,
        fingerprints=dataset.source.fingerprints.episodes,
        videos=video_prints(dataset.source, camera=dataset.key.camera, episodes=list(parts)),
        stores=stores_of(dataset, output),
    )


def _score(
    dataset: LabelledDataset,
    job: Job,
    todo: Mapping[int, Sequence[str]],
    swapped: Mapping[str, str],
    *,
    console: Console,
) -> dict[int, str]:
    identity = identify_same(dataset, job)
    with output_lock(job.output):
        store = writable_store(dataset, job.output)
        scorer = load_scorer(job.config, identity)
        with (
            EpisodeProgress(console, episodes=len(todo)) as progress,
            stop_on_signal(console) as stop,
        ):
            failed = score_episodes(
                job, todo, scorer, store, progress=progress, stop=stop, swapped=swapped
            )
        if stop.asked and progress.done < len(todo):
            raise KeyboardInterrupt
    return failed
