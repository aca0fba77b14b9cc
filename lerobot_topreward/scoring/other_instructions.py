"""Which other instruction an episode is asked about: for the control "swapped", and for "contrast"."""

import hashlib
import string
from collections.abc import Iterable, Mapping

from lerobot_topreward.errors import UserError
from lerobot_topreward.rewards import BASELINES
from lerobot_topreward.vlm.prompts import holds_text, require_text

MOST_CONTRAST = len(BASELINES["contrast"])
# Where a dataset has one task, there is no other to contrast with. This one is never carried out by
# a robot arm, so the video cannot make it more or less true: whatever its score does over time is
# the clock's. Not "the robot moves", which every video shows, nor "the task is done", which rises
# with progress. It is an order of a few words, as tasks are.
NEUTRAL = "Land the airplane on the runway."


def simplify(text: str) -> str:
    """Bring instructions that ask the same to the same text: case, spaces and a full stop go."""
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")


def rank_others(text: str, pool: Iterable[str]) -> list[str]:
    """Rank the instructions of a pool that ask something else, each thing once.

    Any order will do that a new task does not change: scores of the old ones stay of use.
    """
    ranks: dict[str, tuple[str, str]] = {}
    for other in pool:
        rank = hashlib.sha256(f"{text}\0{other}".encode()).hexdigest()
        same = simplify(other)
        if same != simplify(text) and (same not in ranks or rank < ranks[same][0]):
            ranks[same] = (rank, other)
    return [other for _, other in sorted(ranks.values())]


def choose_swapped(own: Iterable[str], *, given: str | None) -> dict[str, str]:
    """Choose the other instruction for each instruction of a dataset that has one.

    That is the given one, or by default another episode's, spread over them all and the same
    whichever episodes are sampled.

    Raises:
        UserError: the given one is blank, holds control tokens, or is what the episodes were asked
            about already.
    """
    own = list(dict.fromkeys(own))
    if given is not None and not simplify(given):
        raise UserError("`swapped_instruction` must be another task's instruction; it is blank")
    if given is not None:
        require_text(given, what="`swapped_instruction`", fix="Say it without")
    ranked = {text: rank_others(text, own if given is None else [given]) for text in own}
    swapped = {text: others[0] for text, others in ranked.items() if others}
    if given is not None and not swapped:
        raise UserError(
            f"`swapped_instruction='{given}'` is what every episode was asked about already; give "
            "another task's"
        )
    return swapped


def choose_contrast(own: Iterable[str], *, count: int) -> Mapping[str, Mapping[str, str]]:
    """Choose up to `count` other instructions, 1..`MOST_CONTRAST`, for each one of a dataset.

    Returns:
        By the name of the control ("contrast1" and so on), the other instruction of each one. The
        dataset's other tasks, as many as there are; `NEUTRAL` where there is none.

    Raises:
        UserError: the dataset's only task is `NEUTRAL`.
    """
    own = list(dict.fromkeys(own))
    pool = [text for text in own if simplify(text) and holds_text(text)]
    ranked = {
        text: (rank_others(text, pool) or rank_others(text, [NEUTRAL]))[:count] for text in own
    }
    if not all(ranked.values()):
        raise UserError(
            f"`debias=contrast` needs another task than '{NEUTRAL}', which is what it asks where "
            "there is no other"
        )
    return {
        name: {text: others[i] for text, others in ranked.items() if i < len(others)}
        for i, name in enumerate(BASELINES["contrast"][:count])
        if any(i < len(others) for others in ranked.values())
    }
