"""What the demo command is asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Label forty bundled SO-101 episodes with a bundled tiny VLM, offline and on any CPU."""

    output: Path = Path("demo-output")  # folder for the labeled dataset and the picture
