"""``run.json`` beside the shards: how a run went, and whose scores an output folder holds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import WORK_FOLDER, write_file
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.files.transaction import MANIFEST
from lerobot_topreward.storage.key import ScoreKey

_NO_VALUES = hashlib.sha256().hexdigest()[:16]  # of every recording without values


def read_run(path: Path) -> dict[str, Any]:
    """Read a ``run.json``.

    Raises:
        UserError: it is damaged.
    """
    return read_json_object(path, advice="Delete it and run the command again")


def write_run(folder: Path, key: ScoreKey, run: Mapping[str, Any]) -> None:
    """Write the ``run.json`` of a store's folder, whole or not at all."""
    content = {**run, "scoring": key.to_json()}
    write_file(folder / "run.json", json.dumps(content, indent=2, sort_keys=True))


def describe_lineage(dataset: str, fingerprint: str, recordings: Sequence[str]) -> dict[str, Any]:
    """Describe whose scores and labels these are, by a dataset's name and its `Fingerprints`."""
    prints = sorted({recording[:16] for recording in recordings} - {_NO_VALUES})
    return {"dataset": dataset, "fingerprint": fingerprint, "recordings": prints}


def check_lineage(
    output: Path, *, dataset: str, fingerprint: str, recordings: Sequence[str]
) -> bool:
    """Tell whether an output holds scores or labels of a dataset, and refuse those of another.

    One recording in common makes it the same dataset, whatever was added or corrected since.

    Raises:
        UserError: it is another dataset's, or does not say whose it is.
    """
    paths = [*sorted((output / WORK_FOLDER).glob("*/run.json")), output / MANIFEST]
    records = [read_run(path) for path in paths if path.exists()]
    if not records:
        return False
    ours = {*describe_lineage(dataset, fingerprint, recordings)["recordings"]}
    for record in records:
        theirs = record.get("recordings")
        shared = ours & {str(print) for print in theirs} if isinstance(theirs, list) else ()
        if shared or record.get("fingerprint") == fingerprint:
            return True
    there = records[-1]
    raise UserError(
        f"output folder {output} holds the labels of {there.get('dataset')} (fingerprint "
        f"{str(there.get('fingerprint'))[:12]}), which has no recording in common with {dataset} "
        f"(fingerprint {fingerprint[:12]}); choose another `output`"
    )
