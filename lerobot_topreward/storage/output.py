"""Whether an output folder may be written, and whether somebody has changed it since it was.

What was written is noted in ``topreward/written.json``: ``{"dataset", "fingerprint", "recordings",
"files": {path: [size, hash]}, "made_of": a hash of rewards and source, "sidecar": [size, hash]}``.
"""

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lerobot_topreward.data.info import INFO_PATH
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import WORK_FOLDER
from lerobot_topreward.files.copying import DATASET_PARTS, VIDEO_PARTS, dataset_files
from lerobot_topreward.files.jsonable import read_json_object
from lerobot_topreward.files.transaction import MANIFEST
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, fingerprint_of
from lerobot_topreward.storage.store import read_run

_NO_VALUES = hashlib.sha256().hexdigest()[:16]  # of every recording without values
_ENDS_BYTES = 2**20  # of a long video, hashed at its head and at its tail


def check_output(
    source_root: Path,
    output: Path,
    *,
    fingerprint: str,
    dataset: str,
    recordings: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Refuse an output that cannot be written, is not ours or would be lost; changes nothing.

    Args:
        source_root: the dataset's folder.
        output: where the labeled dataset goes; the same folder to label it in place.
        fingerprint: the dataset's.
        dataset: its name.
        recordings: fingerprints of its recordings: labels of one of them are this dataset's,
            however it has grown, been corrected or renamed since.
        overwrite: discard what somebody has changed in the output since it was written.

    Raises:
        UserError: says what is in the way.
    """
    source_root, output = source_root.resolve(), output.resolve()
    name = f"output folder {output}"
    if output == source_root:
        if (source_root / INFO_PATH).is_symlink():
            raise UserError(
                f"the dataset in {source_root} belongs to the Hub's cache, which other programs "
                "trust to be unchanged; name an output folder instead of labeling it in place"
            )
        dataset_files(source_root, parts=("data", "meta"))
    else:
        check_apart(output, source_root, name=name)
        dataset_files(source_root)
        if output.is_dir():
            ours = check_lineage(
                output, dataset=dataset, fingerprint=fingerprint, recordings=recordings
            )
            if not ours and fingerprint_of(output / SIDECAR_NAME) != fingerprint:
                names = {entry.name for entry in output.iterdir()} - {WORK_FOLDER}
                if names:
                    advice = "labeling did not write. Choose another output folder"
                    raise foreign_files(names, name=name, advice=advice)
            if not overwrite:
                _check_unchanged(output)
    check_writable(output, name=name)


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


def check_apart(output: Path, dataset: Path, *, name: str) -> None:
    """Refuse an output within a dataset or around it; both paths are resolved.

    Raises:
        UserError: `name` says which folder and option it is.
    """
    if output.is_relative_to(dataset) or dataset.is_relative_to(output):
        raise UserError(f"{name} must not lie within the dataset {dataset}, nor around it")


def check_writable(output: Path, *, name: str) -> None:
    """Refuse an output that cannot be made or written.

    Raises:
        UserError: `name` says which folder and option it is.
    """
    folder = next(path for path in (output, *output.parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        state = "not writable" if folder.is_dir() else "not a folder"
        raise UserError(f"{name} cannot be written: {folder} is {state}")


def foreign_files(names: Collection[str], *, name: str, advice: str) -> UserError:
    """The error about an output, described by `name`, that holds files which are not ours."""
    more = ", ..." if len(names) > 3 else ""
    held = f"{', '.join(sorted(names)[:3])}{more}"
    return UserError(f"{name} is not empty: it holds {held}, which {advice}")


def visible_files(output: Path) -> list[Path]:
    """List the files of a labeled dataset that a later run replaces or removes; none is hidden."""
    files = dataset_files(output, parts=DATASET_PARTS)
    return [path for path in files if not path.name.startswith(".")]


def hash_file(root: Path, path: Path) -> list[int | str]:
    """The size and a hash of a file of a dataset; of long videos, the hash of both ends."""
    with (root / path).open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if path.parts[0] not in VIDEO_PARTS or size <= 2 * _ENDS_BYTES:
            return [size, hashlib.file_digest(stream, "sha256").hexdigest()]
        head = stream.read(_ENDS_BYTES)
        stream.seek(-_ENDS_BYTES, os.SEEK_END)
        return [size, hashlib.sha256(head + stream.read()).hexdigest()]


def _check_unchanged(output: Path) -> None:
    """Refuse to replace a labeled dataset in which somebody has worked."""
    paths = visible_files(output)
    if not paths:
        return
    if (output / MANIFEST).exists():
        manifest = read_json_object(output / MANIFEST, advice="Delete it, then see `overwrite`")
        noted = manifest.get("files")
        written: dict[str, Any] = noted if isinstance(noted, dict) else {}
        found = {path.as_posix(): hash_file(output, path) for path in paths}
        changed = [name for name in found if name in written and written[name] != found[name]]
        changes = [
            *(f"{name} was changed" for name in changed),
            *(f"{name} was added" for name in found if name not in written),
            *(f"{name} was removed" for name in sorted(written.keys() - found)),
        ]
        if not changes:
            return
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        what = f"is not as it was written: {', '.join(changes[:3])}{more}"
    else:
        what = f"holds a dataset that may have been edited: there is no {MANIFEST}"
    raise UserError(
        f"output folder {output} {what}.\nKeep that: label `root={output}` `in_place`. Or discard "
        "it: `overwrite`"
    )
