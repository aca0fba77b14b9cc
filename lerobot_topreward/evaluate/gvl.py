"""The baseline GVL: the same VLM is shown shuffled frames and writes down how far each one is.

Generative Value Learning (https://arxiv.org/abs/2411.04549): the first frame stands for 0 %, all
others come in random order, so that the model cannot count upwards, and one answer gives every
frame a percentage. Its value-order correlation is that of the percentages put back in order.

An answer counts only where every frame has exactly one percentage in the format asked for. Nothing
is guessed: an answer that breaks a rule is kept, and counted with its reason. Answers lie beside
the labels' raw scores::

    <output>/topreward/<key>/gvl_<hash>/episode_000123.json

The hash is of the prompt, the number of frames, the seed and the length of an answer. A file holds
what was shown and what was written; it is read strictly each time, so that a rule that changes
costs nothing.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64, UInt8
from rich.console import Console

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import report_full_disk, write_file
from lerobot_topreward.judging.metrics import voc
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.scoring.rescoring import (
    claim_store,
    fetch_shard_videos,
    find_stores,
    identify_same,
    list_labelled_shards,
)
from lerobot_topreward.scoring.run import Outcome, answer_episodes
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.storage.store import Shard
from lerobot_topreward.vlm.identity import VlmConfig

FRAMES = 30  # images per segment, as in the paper
TOKENS_PER_FRAME = 64  # of an answer: a sentence and a percentage; what is longer is cut

# Appendix A of the paper, word for word, the promise of examples that zero-shot does not keep
# included.
PROMPT_START = (
    "You are an expert roboticist tasked to predict task completion percentages for frames of a "
    "robot for the task of {instruction}. The task completion percentages are between 0 and 100, "
    "where 100 corresponds to full task completion. We provide several examples of the robot "
    "performing the task at various stages and their corresponding task completion percentages. "
    "Note that these frames are in random order, so please pay attention to the individual frames "
    "when reasoning about task completion percentage.\nInitial robot scene: "
)
PROMPT_TASK = (
    "\nIn the initial robot scene, the task completion percentage is 0.\nNow, for the task of "
    "{instruction}, output the task completion percentage for the following frames that are "
    "presented in random order. For each frame, format your response as follow: Frame {{i}}: Frame "
    "Description: {{}}, Task Completion Percentages:{{}}%"
)
PROMPT_FRAME = "\nFrame {number}: "

_BEGINS = re.compile(r"Frame (\d+)\b")
_LINE = re.compile(
    r"Frame \d+: Frame Description: .+, Task Completion Percentages?: ?(\d+(?:\.\d+)?)%\.?"
)

Part = str | UInt8[np.ndarray, "height width 3"]


@runtime_checkable
class Generator(Protocol):
    """Anything that answers text and images with text."""

    def generate(self, parts: Sequence[Part], *, max_new_tokens: int) -> str:
        """Answer one question, in so many tokens at most.

        Raises:
            EpisodeError: this one cannot be answered; others may be.
        """
        ...


class UnusableAnswerError(Exception):
    """An answer that breaks a rule: "rule: what was found"."""


@dataclass(frozen=True, slots=True)
class GvlQuestion:
    """Which frames of a segment are shown, and in which order."""

    segment: Segment
    first: int  # the frame that stands for 0 %, counted within the episode
    frame_index: Int64[np.ndarray, " shown"]  # of frames 1, 2, ... as they are numbered


@dataclass(frozen=True, slots=True)
class GvlAnswer:
    """What the VLM made of one segment."""

    segment: Segment
    frame_index: Int64[np.ndarray, " shown"]  # ascending, within the episode; without the first
    percentages: Float[np.ndarray, " shown"] | None  # 0..100, in the order of time
    reason: str  # "rule: what was found" where there are no percentages, else empty
    text: str  # as it was written

    @property
    def voc(self) -> float:
        """Value-order correlation, -1..1; nan without percentages, or where it is undefined."""
        return float("nan") if self.percentages is None else voc(self.percentages)


@dataclass(frozen=True, slots=True)
class GvlResult:
    """The baseline over a sample of episodes."""

    answers: tuple[GvlAnswer, ...]  # one per segment
    asked: int = 0  # episodes that went through the VLM now
    failed: Mapping[int, str] = field(default_factory=dict)  # episode -> why it was not asked

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many answers broke each rule."""
        return Counter(a.reason.partition(":")[0] for a in self.answers if a.percentages is None)


def choose_frames(clip: Clip, *, frames: int, seed: int) -> GvlQuestion:
    """Choose at most so many frames of a clip, evenly over its time; shuffle all but the first."""
    count = min(frames, len(clip.frame_indices))
    chosen = np.round(np.linspace(0, len(clip.frame_indices) - 1, count)).astype(np.int64)
    shown = clip.segment.start + clip.frame_indices[chosen]
    rng = np.random.default_rng([seed, clip.segment.episode_index, clip.segment.start])
    return GvlQuestion(
        segment=clip.segment, first=int(shown[0]), frame_index=rng.permutation(shown[1:])
    )


def make_prompt(clip: Clip, question: GvlQuestion) -> list[Part]:
    """Put a question as text and images."""
    place = {int(f): i for i, f in enumerate(clip.segment.start + clip.frame_indices)}
    instruction = clip.segment.instruction
    parts: list[Part] = [
        PROMPT_START.format(instruction=instruction),
        clip.frames[place[question.first]],
        PROMPT_TASK.format(instruction=instruction),
    ]
    for number, frame in enumerate(question.frame_index.tolist(), start=1):
        parts += [PROMPT_FRAME.format(number=number), clip.frames[place[frame]]]
    return parts


def read_answer(question: GvlQuestion, text: str) -> GvlAnswer:
    """Put the percentages of an answer back into the order of time."""
    order = np.argsort(question.frame_index)
    percentages, reason = None, ""
    try:
        percentages = parse_percentages(text, count=len(order))[order]
    except UnusableAnswerError as error:
        reason = str(error)
    return GvlAnswer(
        segment=question.segment,
        frame_index=question.frame_index[order],
        percentages=percentages,
        reason=reason,
        text=text,
    )


def parse_percentages(text: str, *, count: int) -> Float[np.ndarray, " count"]:
    """Read an answer, strictly.

    Lines that do not begin with "Frame" and a number are the model's own prose. One that does must
    have the format asked for, and every frame must have exactly one.

    Args:
        text: the answer.
        count: how many frames were shown.

    Returns:
        A percentage for frames 1, 2, ... count, 0..100.

    Raises:
        UnusableAnswerError: a rule is broken; says which and where.
    """
    found: dict[int, float] = {}
    for line in map(str.strip, text.splitlines()):
        begins = _BEGINS.match(line)
        if begins is None:
            continue
        number, whole = int(begins[1]), _LINE.fullmatch(line)
        if whole is None:
            raise UnusableAnswerError(f"other format: {line[:100]!r}")
        if not 1 <= number <= count:
            raise UnusableAnswerError(f"no such frame: {number} of {count}")
        if number in found:
            raise UnusableAnswerError(f"answered twice: frame {number}")
        if float(whole[1]) > 100:
            raise UnusableAnswerError(f"beyond 100%: frame {number} has {whole[1]}%")
        found[number] = float(whole[1])
    if lacking := [str(number) for number in range(1, count + 1) if number not in found]:
        raise UnusableAnswerError(f"frames missing: {', '.join(lacking[:5])} of {count}")
    return np.array([found[number] for number in range(1, count + 1)])


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
        episodes: labeled episodes.
        vlm: where the VLM of the labels lies and on which device it runs, see `identify_same`.
        console: what is told of progress.
        frames: images shown per segment at most, the first one included, >= 2.
        seed: of the shuffling, which also differs between segments.
        output: where answers go when the labels' own folder cannot be written to.
        generator: who answers; the VLM of the labels if not given.

    Raises:
        UserError: something that the user can fix; whatever was answered is kept.
        KeyboardInterrupt: the user stopped it; whatever was answered is kept.
    """
    if frames < 2:
        raise UserError(f"the baseline needs at least 2 frames of an episode; got {frames}")
    protocol = [PROMPT_START, PROMPT_TASK, PROMPT_FRAME, frames, seed, TOKENS_PER_FRAME]
    name = f"gvl_{hashlib.sha256(json.dumps(protocol).encode()).hexdigest()[:16]}"
    stores = find_stores(dataset, output)
    places = [store.folder / name for store in stores]
    # A file of answers is about the same as a shard of the control "none", and has its header.
    wanted = list_labelled_shards(dataset, episodes, ["none"])
    found = {shard.episode: _read_answers(places, shard) for shard in wanted}
    todo = [shard for shard in wanted if found[shard.episode] is None]

    outcome = Outcome()
    if todo:
        shards = {shard.episode: shard for shard in fetch_shard_videos(dataset, todo)}
        segments = {episode: shard.segments for episode, shard in shards.items()}
        with claim_store(dataset, stores[-1]):
            answerer = generator or _load_generator(dataset, vlm)
            run = answer_episodes(
                dataset.source,
                dataset.key,
                segments,
                lambda clip: _ask(clip, answerer, frames=frames, seed=seed),
                outcome,
                console=console,
            )
            with closing(run) as answered, report_full_disk(places[-1]):
                for episode, answers in answered:
                    stored = {**shards[episode].header(), "answers": answers}
                    text = json.dumps(stored, indent=1, ensure_ascii=False)
                    write_file(places[-1] / f"episode_{episode:06d}.json", text)
        if outcome.interrupted:
            raise KeyboardInterrupt
    found |= {shard.episode: _read_answers(places, shard) for shard in todo}
    return GvlResult(
        answers=tuple(answer for answers in found.values() for answer in answers or ()),
        asked=outcome.answered,
        failed=outcome.failed,
    )


def _load_generator(dataset: LabelledDataset, vlm: VlmConfig | None) -> Generator:
    """Load the VLM; transformers is imported here, so that a re-run without questions is quick."""
    if dataset.key.server is not None or dataset.key.reward_model is not None:
        judge = "a server" if dataset.key.server is not None else "a reward model"
        raise UserError(
            "`baseline=gvl` lets a VLM in this process write, and these labels were made by "
            f"{judge}; leave it out"
        )
    config, _, _, identity = identify_same(dataset, vlm)
    from lerobot_topreward.vlm.generate import TextGenerator
    from lerobot_topreward.vlm.loading import load_vlm

    return TextGenerator(load_vlm(config, identity), max_pixels=dataset.key.max_pixels)


def _ask(clip: Clip, generator: Generator, *, frames: int, seed: int) -> dict[str, Any]:
    question = choose_frames(clip, frames=frames, seed=seed)
    shown = question.frame_index.tolist()
    text = ""
    if shown:  # of a single frame there is nothing to ask
        tokens = TOKENS_PER_FRAME * len(shown)
        text = generator.generate(make_prompt(clip, question), max_new_tokens=tokens)
    return {"first": question.first, "shown": shown, "text": text}


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
