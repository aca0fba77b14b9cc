"""What was found in a recording as every command shows it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot_topreward.data.recording import open_recorded
from lerobot_topreward.errors import UserError
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.inspection import Inspection, inspect_dataset
from lerobot_topreward.records import Finding

LEVELS = ("broken", "suspect", "note")


def try_inspecting(root: Path, *, repo_id: str) -> Inspection | UserError:
    """Inspect all episodes of a dataset whose files are here.

    Returns:
        What was found, or why the recording cannot be inspected, where that is no reason to stop.
    """
    try:
        recorded = open_recorded(root, repo_id=repo_id, option=f"the dataset in {root}")
        return inspect_dataset(recorded, range(len(recorded.lengths)))
    except UserError as error:
        return error


def count_levels(findings: Iterable[Finding]) -> dict[str, int]:
    """Count findings by their level, the worst level first."""
    levels = [finding.level for finding in findings]
    return {level: levels.count(level) for level in LEVELS}


def findings_to_json(findings: Sequence[Finding], *, fps: float) -> Mapping[str, Any]:
    """Put findings and their counts as JSON holds them, the frames concerned also in seconds."""
    return {
        "counts": count_levels(findings),
        "findings": [
            {
                **plain(finding),
                "seconds": finding.frames and [round(frame / fps, 4) for frame in finding.frames],
            }
            for finding in findings
        ],
    }
