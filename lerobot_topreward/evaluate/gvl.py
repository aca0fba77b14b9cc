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
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lerobot_topreward.errors import UserError
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
    choose_frames,
    make_prompt,
    read_answer,
)
from lerobot_topreward.files.atomic import full_disk_reported, output_lock
from lerobot_topreward.files.transaction import write_file
from lerobot_topreward.records import Clip
from lerobot_topreward.scoring.rescoring import (
    choose_output,
    choose_vlm,
    fetch_shard_videos,
    find_stores,
    identify_same,
    list_labelled_shards,
    open_output_store,
)
from lerobot_topreward.scoring.run import Outcome, answer_episodes
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Shard
from lerobot_topreward.vlm.identity import VlmConfig


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
        vlm: where the VLM of the labels lies and on which device it runs, see `choose_vlm`.
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
    config = choose_vlm(dataset, vlm)
    folder = choose_output(dataset, output)
    protocol = [PROMPT_START, PROMPT_TASK, PROMPT_FRAME, frames, seed, TOKENS_PER_FRAME]
    name = f"gvl_{hashlib.sha256(json.dumps(protocol).encode()).hexdigest()[:16]}"
    places = [store.folder / name for store in find_stores(dataset, folder)]
    # A file of answers is about the same as a shard of the control "none", and has its header.
    wanted = list_labelled_shards(dataset, episodes, ["none"])
    found = {shard.episode: _read_answers(places, shard) for shard in wanted}
    todo = [shard for shard in wanted if found[shard.episode] is None]

    outcome = Outcome()
    if todo:
        shards = {shard.episode: shard for shard in fetch_shard_videos(dataset, todo)}
        segments = {episode: shard.segments for episode, shard in shards.items()}
        with output_lock(folder):
            answerer = generator or _load_generator(dataset, config)
            place = open_output_store(dataset, folder).folder / name
            run = answer_episodes(
                dataset.source,
                dataset.key,
                segments,
                lambda clip: _ask(clip, answerer, frames=frames, seed=seed),
                outcome,
                console=console,
            )
            with closing(run) as answered, full_disk_reported(place):
                for episode, answers in answered:
                    _write_answers(place, shards[episode], answers)
        if outcome.interrupted:
            raise KeyboardInterrupt
    found |= {shard.episode: _read_answers(places, shard) for shard in todo}
    return GvlResult(
        answers=tuple(one for answers in found.values() for one in answers or ()),
        asked=outcome.answered,
        failed=outcome.failed,
    )


def _load_generator(dataset: LabelledDataset, vlm: VlmConfig) -> Generator:
    """Load the VLM; transformers is imported here, so that a re-run without questions is quick."""
    identity = identify_same(dataset, vlm)
    from lerobot_topreward.vlm.generate import TextGenerator
    from lerobot_topreward.vlm.loading import load_vlm

    return TextGenerator(load_vlm(vlm, identity), max_pixels=dataset.key.max_pixels)


def _ask(clip: Clip, generator: Generator, *, frames: int, seed: int) -> dict[str, Any]:
    question = choose_frames(clip, frames=frames, seed=seed)
    shown = question.frame_index.tolist()
    text = ""
    if shown:  # of a single frame there is nothing to ask
        tokens = TOKENS_PER_FRAME * len(shown)
        text = generator.generate(make_prompt(clip, question), max_new_tokens=tokens)
    return {"first": question.first, "shown": shown, "text": text}


def _write_answers(place: Path, shard: Shard, answers: Sequence[Mapping[str, Any]]) -> None:
    path = place / f"episode_{shard.episode:06d}.json"
    partial = path.with_name(f".{path.name}.partial")
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**shard.header(), "answers": answers}, indent=1, ensure_ascii=False)
    write_file(partial, text)
    os.replace(partial, path)


def _read_answers(places: Sequence[Path], shard: Shard) -> list[GvlAnswer] | None:
    """The answers of an episode; None where there are none that fit it."""
    for place in places:
        try:
            path = place / f"episode_{shard.episode:06d}.json"
            stored = json.loads(path.read_text(encoding="utf-8"))
            if not shard.matches(stored):
                continue
            answers = []
            for segment, kept in zip(shard.segments, stored["answers"], strict=True):
                shown = np.array(kept["shown"], dtype=np.int64)
                answers.append(
                    read_answer(GvlQuestion(segment, kept["first"], shown), kept["text"])
                )
            return answers
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # missing or damaged: asked anew
    return None
