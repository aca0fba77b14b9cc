"""The recording of a dataset is inspected, and what was found is shown, alike by every command."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lerobot_topreward.data.recording import RecordedDataset
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.defects import CHECKS, Check
from lerobot_topreward.judging.inspection import Inspection, inspect_recording
from lerobot_topreward.records import Finding

LEVELS = ("broken", "suspect", "note")


def inspect_dataset(
    dataset: RecordedDataset, episodes: Sequence[int], *, checks: Sequence[Check] = CHECKS
) -> Inspection:
    """Check these episodes of a dataset, whose files are here."""
    return inspect_recording(
        lambda: dataset.episodes(episodes), dataset.signals, fps=dataset.fps, checks=checks
    )


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
