"""Manual decisions about episodes, as the HTML report saves them.

::

    {"format": 1, "dataset": name, "fingerprint": the dataset's, "decisions": {"3": "keep"},
     "notes": {"3": {"text": "slips once", "tags": ["grasp"]}}}

``notes`` may be missing, and may be of episodes about which nothing was decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_index, read_json_object

DECISIONS_FORMAT = 1
MOST_TEXT = 500  # characters of a note
MOST_TAGS = 20
MOST_TAG = 40  # characters
_ADVICE = "save it again from the report"


@dataclass(frozen=True, slots=True)
class Note:
    """What a person wrote about an episode: one line of printable text, and words to group by."""

    text: str  # may be empty
    tags: Sequence[str] = ()

    @property
    def words(self) -> str:
        """The note as a part of a sentence, its tags with a #."""
        return " ".join([*([self.text] if self.text else []), *(f"#{tag}" for tag in self.tags)])


@dataclass(frozen=True, slots=True)
class Decisions:
    """Manual decisions about some episodes of a dataset."""

    path: Path
    dataset: str  # its name
    fingerprint: str  # the dataset's
    by_episode: Mapping[int, bool]  # True to keep it
    notes: Mapping[int, Note] = field(default_factory=dict)


def read_decisions(path: Path) -> Decisions:
    """Read a file of decisions, whatever dataset it is about.

    Raises:
        UserError: it cannot be read, or is not such a file.
    """
    option = f"`decisions={path}`"
    try:
        content = read_json_object(path.expanduser(), advice=_ADVICE)
    except UserError as error:
        raise UserError(f"{option} must be a JSON file; {error}") from None
    if (found := content.get("format")) != DECISIONS_FORMAT:
        raise UserError(f"{option} must have format {DECISIONS_FORMAT}; got {found}: {_ADVICE}")
    words, fingerprint = content.get("decisions"), content.get("fingerprint")
    if not isinstance(words, dict) or not isinstance(fingerprint, str):
        raise UserError(f"{option} must have decisions and a fingerprint: {_ADVICE}")
    by_episode: dict[int, bool] = {}
    for name, word in words.items():
        episode = read_index(name)
        if episode is None:
            raise UserError(f"{option}: an episode must be a number; got {name!r}: {_ADVICE}")
        if word not in ("keep", "drop"):
            raise UserError(f"{option}: episode {name} must be keep or drop; got {word!r}")
        by_episode[episode] = word == "keep"
    notes = _read_notes(content.get("notes", {}), option)
    return Decisions(path, str(content.get("dataset")), fingerprint, by_episode, notes)


def _read_notes(found: object, option: str) -> dict[int, Note]:
    """Read the notes of a file that may be a stranger's.

    Raises:
        UserError: they are not such notes.
    """
    if not isinstance(found, dict):
        raise UserError(f"{option}: notes must be an object by episode: {_ADVICE}")
    notes: dict[int, Note] = {}
    for name, note in found.items():
        episode = read_index(name)
        if episode is None:
            raise UserError(f"{option}: a note must be of an episode; got {name!r}: {_ADVICE}")
        text, tags = (
            (note.get("text", ""), note.get("tags", [])) if isinstance(note, dict) else (0, 0)
        )
        if not _is_line(text, MOST_TEXT) or not isinstance(tags, list) or len(tags) > MOST_TAGS:
            raise UserError(
                f"{option}: the note of episode {name} must have a text of one printable line, at "
                f"most {MOST_TEXT} characters, and at most {MOST_TAGS} tags: {_ADVICE}"
            )
        if not all(_is_line(tag, MOST_TAG) and tag for tag in tags):
            raise UserError(
                f"{option}: a tag of episode {name} must be 1..{MOST_TAG} printable characters: "
                f"{_ADVICE}"
            )
        notes[episode] = Note(text, tuple(tags))
    return notes


def _is_line(text: object, most: int) -> TypeGuard[str]:
    return isinstance(text, str) and len(text) <= most and text.isprintable()


def check_decisions(decisions: Decisions, source: Source) -> None:
    """Refuse decisions about another dataset, or about episodes that it does not have.

    Raises:
        UserError: says which.
    """
    option = f"`decisions={decisions.path}`"
    if decisions.fingerprint != source.fingerprints.dataset:
        raise UserError(
            f"{option} must be about this dataset ({source.repo_id}, fingerprint "
            f"{source.fingerprints.dataset[:12]}); it is about {decisions.dataset} "
            f"({decisions.fingerprint[:12]}). Make a report of this one and decide again"
        )
    total = source.meta.total_episodes
    named = {*decisions.by_episode, *decisions.notes}
    unknown = sorted(episode for episode in named if episode >= total)
    if unknown:
        raise UserError(
            f"{option} names episode {', '.join(map(str, unknown))}; the dataset has 0..{total - 1}"
        )
