"""``curation.json``: what was kept, what was dropped and why, beside the dataset that it made.

::

    {"format": 1, "version": ..., "source": {dataset, revision, fingerprint}, "labels": provenance,
     "rules": {...}, "threshold": nats or null, "trim": {...} or null, "kept": {old: new index},
     "dropped": {episode: [reasons]}, "trimmed": {old index: [start, stop]}, "fingerprint": ...}
"""

from pathlib import Path
from typing import Any

from lerobot_topreward import __version__
from lerobot_topreward.curate.plan import CURATED, Plan
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import plain, read_json_object
from lerobot_topreward.publish.changes import CURATION_FILE

_FORMAT = 1
_ADVICE = "Choose another --output"


def curation_record(plan: Plan) -> dict[str, Any]:
    """Describe a curation in plain values; the same plan, the same record."""
    source = plan.dataset.source
    return plain(
        {
            "format": _FORMAT,
            "version": __version__,
            "source": {
                "dataset": source.repo_id,
                "revision": source.revision,
                "fingerprint": plan.dataset.source.fingerprints.dataset,
            },
            "labels": dict(plan.dataset.provenance),
            "rules": plan.request,
            "threshold": None if plan.chosen is None else plan.chosen.threshold.value,
            "trim": plan.trim,
            "kept": {old: new for new, old in enumerate(plan.kept)},
            "dropped": {verdict.episode_index: verdict.reasons for verdict in plan.dropped},
            "trimmed": {old: (span.start, span.stop) for old, span in sorted(plan.spans.items())},
        }
    )


def curated_provenance(plan: Plan) -> dict[str, Any]:
    """Where the labels come from, and every curation since, this one last."""
    before = dict(plan.dataset.provenance)
    source = plan.dataset.source
    step = {
        "dataset": source.repo_id,
        "revision": source.revision,
        "fingerprint": plan.dataset.source.fingerprints.dataset,
        "rules": plan.request,
        "trim": plan.trim,
        "version": __version__,
    }
    labelled = set(plan.kept) - set(plan.unlabelled)
    counts = {"episodes_labelled": len(labelled), "episodes_total": len(plan.kept)}
    return plain({**before, **counts, CURATED: [*before.get(CURATED, []), step]})


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of an earlier curation; None where there is none.

    Raises:
        UserError: it is damaged, or of another format.
    """
    path = folder / CURATION_FILE
    if not path.is_file():
        return None
    record = read_json_object(path, advice=_ADVICE)
    source = record.get("source")
    if (
        record.get("format") != _FORMAT
        or not isinstance(source, dict)
        or not all(isinstance(source.get(name), str) for name in ("dataset", "fingerprint"))
    ):
        raise UserError(f"{path} must be a record of curate's format {_FORMAT}. {_ADVICE}")
    return record
