"""What finished runs found: a line of JSON for each, so that none is ever done twice."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one result depends on."""

    data: str  # which demonstrations and labels, in words
    policy: str
    arm: str
    seed: int
    steps: int
    labels: str  # labeling of the demonstrations, a key of `Data.labelled`
    options: tuple[str, ...]  # of the policy, then of the arm
    episodes: tuple[int, ...] | None  # that are trained on; None for all
    first_scene: int  # seed of the first evaluation episode
    scenes: int  # evaluation episodes

    @property
    def name(self) -> str:
        """A folder name for it."""
        return f"{self.policy}_{self.arm}_{self.seed}"

    def identify(self) -> str:
        """Hash everything that its result depends on, 16 hexadecimal digits."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run found."""

    run: str  # `Run.identify`
    data: str
    first_scene: int
    policy: str
    arm: str
    seed: int
    success: tuple[bool, ...]  # of each evaluation episode

    @property
    def rate(self) -> float:
        """Share of successful episodes, 0..1."""
        return sum(self.success) / len(self.success)


def describe(run: Run, success: Sequence[bool]) -> Outcome:
    """Put together what a run found."""
    return Outcome(
        run=run.identify(),
        data=run.data,
        first_scene=run.first_scene,
        policy=run.policy,
        arm=run.arm,
        seed=run.seed,
        success=tuple(success),
    )


def read_outcomes(file: Path) -> list[Outcome]:
    """Read every outcome of a file, none where there is no file."""
    lines = file.read_text().splitlines() if file.is_file() else []
    found = [json.loads(line) for line in lines]
    return [Outcome(**row | {"success": tuple(x == "1" for x in row["success"])}) for row in found]


def append_outcome(file: Path, outcome: Outcome) -> None:
    """Add a line: success as a digit per episode."""
    row = asdict(outcome) | {"success": "".join(str(int(x)) for x in outcome.success)}
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
