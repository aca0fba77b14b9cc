"""What a person decided in the HTML report.

::

    {"format": 1, "dataset": name, "fingerprint": the dataset's, "decisions": {"3": "keep"}}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import read_index, read_json_object
from lerobot_topreward.storage.reader import LabelledDataset

DECISIONS_FORMAT = 1
_KEEP = {"keep": True, "drop": False}
_AGAIN = "save it again from the report"


@dataclass(frozen=True, slots=True)
class Decisions:
    """A person's word about some episodes of a dataset."""

    path: Path
    dataset: str  # its name
    fingerprint: str  # the dataset's
    by_episode: Mapping[int, bool]  # True to keep it


def read_decisions(path: Path) -> Decisions:
    """Read a file of decisions, whatever dataset it is about.

    Raises:
        UserError: it cannot be read, or is not such a file.
    """
    option = f"--decisions {path}"
    try:
        content = read_json_object(path.expanduser(), advice=_AGAIN)
    except UserError as error:
        raise UserError(f"{option} must be a JSON file; {error}") from None
    if (got := content.get("format")) != DECISIONS_FORMAT:
        raise UserError(f"{option} must have format {DECISIONS_FORMAT}; got {got}: {_AGAIN}")
    said = content.get("decisions")
    if not isinstance(said, dict) or not isinstance(content.get("fingerprint"), str):
        raise UserError(f"{option} must have decisions and a fingerprint: {_AGAIN}")
    return Decisions(
        path=path,
        dataset=str(content.get("dataset")),
        fingerprint=content["fingerprint"],
        by_episode={
            _episode(name, option): _keep(word, name, option) for name, word in said.items()
        },
    )


def check_decisions(decisions: Decisions, dataset: LabelledDataset) -> None:
    """Refuse decisions about another dataset, or about episodes that it does not have.

    Raises:
        UserError: says which.
    """
    option = f"--decisions {decisions.path}"
    if decisions.fingerprint != dataset.source.fingerprints.dataset:
        raise UserError(
            f"{option} must be about this dataset ({dataset.source.repo_id}, fingerprint "
            f"{dataset.source.fingerprints.dataset[:12]}); it is about {decisions.dataset} "
            f"({decisions.fingerprint[:12]}). Make a report of this one and decide again"
        )
    total = dataset.source.meta.total_episodes
    missing = sorted(episode for episode in decisions.by_episode if episode >= total)
    if missing:
        raise UserError(
            f"{option} speaks of episode {', '.join(map(str, missing))}; the dataset has 0..{total - 1}"
        )


def _episode(name: str, option: str) -> int:
    episode = read_index(name)
    if episode is None:
        raise UserError(f"{option}: an episode must be a number; got {name!r}: {_AGAIN}")
    return episode


def _keep(word: Any, name: str, option: str) -> bool:
    if not isinstance(word, str) or word not in _KEEP:
        raise UserError(f"{option}: episode {name} must be keep or drop; got {word!r}")
    return _KEEP[word]
