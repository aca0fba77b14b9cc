"""Manual decisions about episodes, as the HTML report saves them.

::

    {"format": 1, "dataset": name, "fingerprint": the dataset's, "decisions": {"3": "keep"}}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_index, read_json_object

DECISIONS_FORMAT = 1
_ADVICE = "save it again from the report"


@dataclass(frozen=True, slots=True)
class Decisions:
    """Manual decisions about some episodes of a dataset."""

    path: Path
    dataset: str  # its name
    fingerprint: str  # the dataset's
    by_episode: Mapping[int, bool]  # True to keep it


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
    return Decisions(path, str(content.get("dataset")), fingerprint, by_episode)


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
    unknown = sorted(episode for episode in decisions.by_episode if episode >= total)
    if unknown:
        raise UserError(
            f"{option} names episode {', '.join(map(str, unknown))}; the dataset has 0..{total - 1}"
        )
