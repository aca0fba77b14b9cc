"""What the report command is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.rules import RulesConfig


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Make one HTML page with every episode of a labeled dataset: curves, pictures and verdict.

    The page needs no network. In it, a person marks episodes to keep or drop and saves that as a
    file for curate --decisions.
    """

    repo_id: str | None = None  # labeled dataset on the Hub, or under $HF_LEROBOT_HOME
    root: Path | None = None  # labeled dataset, or its source, in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    labels: Path | None = None  # folder that label wrote, where it is neither of the above
    output: Path = Path("report.html")  # the page; its folder must exist

    videos: Literal["strip", "none"] = "strip"  # frames of each episode, or no pictures
    camera: str | None = None  # feature key or its last part; the one that was scored if not given
    all_cameras: bool = False  # show what the others saw, too, in smaller pictures
    max_mb: float = 30.0  # size of the page, which pictures are made coarser to keep, MB
    title: str | None = None  # of the page; the dataset's name if not given

    rules: RulesConfig = field(default_factory=RulesConfig)
    success_file: Path | None = None  # CSV episode_index,success; else what the dataset itself says
    weights: Path | None = None  # what train --dry-run wrote: draw what frames weigh in training
    rerun: Path | None = None  # also write a Rerun recording (.rrd), which needs the extra viz

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        if not self.max_mb > 0:
            raise UserError(f"`max_mb` must be > 0; got {self.max_mb}")
        if self.output.suffix not in (".html", ".htm"):
            raise UserError(f"`output` must be named *.html; got {self.output}")
        if self.rerun is not None and self.rerun.suffix != ".rrd":
            raise UserError(f"`rerun` must be named *.rrd; got {self.rerun}")
