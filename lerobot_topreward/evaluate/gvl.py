"""The baseline GVL: asked once per episode, its answers kept beside the labels' raw scores.

::

    <output>/topreward/<key>/gvl_<hash>/episode_000123.json

The hash is of the prompt, the number of frames, the seed and the length of an answer. A file holds
what was shown and what was written; it is read strictly each time, so that a rule that changes
costs nothing.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lerobot_topreward.console import EpisodeProgress, stop_on_signal
from lerobot_topreward.data.video import read_clips
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.evaluate.gvl_question import (
    FRAMES,
    PROMPT_FRAME,
    PROMPT_START,
    PROMPT_TASK,
    TOKENS_PER_FRAME,
    Generator,
    GvlAnswer,
    GvlQuestion,
    GvlResult,
    ask,
    prompt,
    read_answer,
)
from lerobot_topreward.files.atomic import full_disk_reported, output_lock
from lerobot_topreward.files.transaction import write_file
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.job import Job
from lerobot_topreward.scoring.rescoring import (
    identify_same,
    output_of,
    same_vlm,
    scoring_job,
    stores_of,
    writable_store,
)
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.vlm.identity import VlmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class _Protocol:
    """What changes an answer, beside the VLM and how it is shown a dataset."""

    frames: int
    seed: int

    def folder(self) -> str:
        """The folder of its answers."""
        text = json.dumps(
            [PROMPT_START, PROMPT_TASK, PROMPT_FRAME, self.frames, self.seed, TOKENS_PER_FRAME]
        )
        return f"gvl_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def gvl_baseline(
    dataset: LabelledDataset,
    *,
    episodes: Sequence[int],
    vlm: VlmConfig | None,
    console: Console,
    frames: int = FRAMES,
    seed: int = 0,
    output: Path | None = None,
    generator: Generator | None = None,
) -> GvlResult:
    """Ask the VLM of the labels, in the manner of GVL, how far shuffled frames of episodes are.

    Args:
        dataset: what is asked about; frames are chosen among those that the labels' VLM was shown.
        episodes: labelled episodes.
        vlm: where the VLM of the labels lies and on which device it runs, see `same_vlm`.
        console: what is told of progress.
        frames: images shown per segment at most, the first one included, >= 2.
        seed: of the shuffling.
        output: where answers go when the labels' own folder cannot be written to.
        generator: who answers; the VLM of the labels if not given.

    Raises:
        UserError: something that the user can mend; whatever was answered is kept.
        KeyboardInterrupt: the user stopped it; whatever was answered is kept.
    """
    if frames < 2:
        raise UserError(f"the baseline needs at least 2 frames of an episode; got {frames}")
    config = same_vlm(dataset, vlm)
    folder = output_of(dataset, output)
    job = scoring_job(dataset, episodes=sorted(episodes), vlm=config, output=folder)
    protocol = _Protocol(frames=frames, seed=seed)
    place = Path(protocol.folder())
    found = {episode: _read(dataset, job, place, episode) for episode in job.segments}
    todo = [episode for episode, answers in found.items() if answers is None]
    failed: dict[int, str] = {}
    if todo:
        with output_lock(folder):
            generator = generator or _load(dataset, job)
            store = writable_store(dataset, folder)
            failed = _ask_all(job, todo, generator, protocol, store.folder / place, console=console)
    found |= {episode: _read(dataset, job, place, episode) for episode in todo}
    return GvlResult(
        answers=tuple(answer for parts in found.values() for answer in parts or []),
        asked=len(todo) - len(failed),
        failed=failed,
    )


def _load(dataset: LabelledDataset, job: Job) -> Generator:
    """Load the VLM; transformers is imported here, so that a re-run without questions is quick."""
    identity = identify_same(dataset, job)
    from lerobot_topreward.vlm.generate import TextGenerator
    from lerobot_topreward.vlm.loading import load_vlm

    return TextGenerator(load_vlm(job.config.vlm, identity), max_pixels=job.config.max_pixels)


def _ask_all(
    job: Job,
    todo: Sequence[int],
    generator: Generator,
    protocol: _Protocol,
    place: Path,
    *,
    console: Console,
) -> dict[int, str]:
    failed: dict[int, str] = {}
    answers: list[dict[str, Any]] = []
    clips = read_clips(
        job.source,
        camera=job.camera,
        segments=[part for episode in todo for part in job.parts(episode)],
        sample_fps=job.config.sample_fps,
        final_frame=job.config.final_frame,
        max_images=job.config.max_images,
    )
    with (
        closing(clips),
        EpisodeProgress(console, episodes=len(todo)) as progress,
        stop_on_signal(console) as stop,
    ):
        for segment, clip in clips:
            episode, parts = segment.episode_index, job.parts(segment.episode_index)
            if segment.start == 0:
                answers = []
            try:
                if episode not in failed:
                    answers.append(_ask(clip, generator, protocol))
            except EpisodeError as error:
                failed[episode] = str(error)
            if segment != parts[-1]:
                continue
            if episode not in failed:
                _write(place, episode, {**_header(job, episode), "answers": answers})
            progress.episode_done(sum(part.length for part in parts))
            if stop.asked and progress.done < len(todo):
                raise KeyboardInterrupt
    return failed


def _ask(clip: Clip | EpisodeError, generator: Generator, protocol: _Protocol) -> dict[str, Any]:
    if isinstance(clip, EpisodeError):
        raise clip
    question = ask(clip, frames=protocol.frames, seed=protocol.seed)
    shown = question.frame_index.tolist()
    parts = prompt(clip, question)
    # Of a single frame there is nothing to ask.
    tokens = TOKENS_PER_FRAME * len(shown)
    text = generator.generate(parts, max_new_tokens=tokens) if shown else ""
    return {"first": question.first, "shown": shown, "text": text}


def _header(job: Job, episode: int) -> dict[str, Any]:
    """What the answers of an episode are about; with another header they are not used."""
    parts = [[part.start, part.length, part.instruction] for part in job.parts(episode)]
    return {
        "fingerprint": job.fingerprints.episodes[episode],
        "video": job.videos.get(episode),
        "segments": parts,
    }


def _write(place: Path, episode: int, answers: Mapping[str, Any]) -> None:
    path = place / f"episode_{episode:06d}.json"
    partial = path.with_name(f".{path.name}.partial")
    with full_disk_reported(place):
        place.mkdir(parents=True, exist_ok=True)
        write_file(partial, json.dumps(answers, indent=1, ensure_ascii=False))
        os.replace(partial, path)


def _read(dataset: LabelledDataset, job: Job, place: Path, episode: int) -> list[GvlAnswer] | None:
    """The answers of an episode; None where there are none that fit it."""
    wanted = _header(job, episode)
    for store in stores_of(dataset, job.output):
        try:
            path = store.folder / place / f"episode_{episode:06d}.json"
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {**kept, **wanted} != kept:
                continue
            return [
                read_answer(_question(part, one), one["text"])
                for part, one in zip(job.parts(episode), kept["answers"], strict=True)
            ]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # missing or damaged: asked anew
    return None


def _question(segment: Segment, kept: Mapping[str, Any]) -> GvlQuestion:
    return GvlQuestion(segment, kept["first"], np.array(kept["shown"], dtype=np.int64))
