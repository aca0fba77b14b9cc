"""The options of the check command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.pictures import PictureLimits


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Say what is wrong with a recording, from its numbers alone: no VLM, no GPU, seconds.

    It cannot see whether a task succeeded. Nothing is written. Exit code 3 when something is found
    at or above --fail-on.
    """

    repo_id: str | None = None  # dataset on the Hub, or recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # dataset in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    episodes: str | None = None  # such as 0:10,15; all if not given

    video: bool = False  # also look at sampled pictures of every camera, which takes longer
    camera: str | None = None  # only of this camera
    sample_fps: float = 4.0  # pictures looked at per second, Hz
    pictures: PictureLimits = field(default_factory=PictureLimits)

    chunk_size: int | None = None  # frames that a policy learns at once: shorter episodes are named
    policy_path: Path | None = None  # folder of a policy whose chunk size counts

    fail_on: Literal["broken", "suspect", "note"] = "broken"  # least level that exits with 3
    json: bool = False  # print everything as JSON instead of a table

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        if self.chunk_size is not None and self.chunk_size < 1:
            raise UserError(f"`chunk_size` must be at least 1 frame; got {self.chunk_size}")
        if self.chunk_size is not None and self.policy_path is not None:
            raise UserError("`policy_path` says the chunk size; leave out `chunk_size`")
        if not 0 < self.sample_fps <= 1000:
            raise UserError(
                f"`sample_fps` must be above 0 and at most 1000; got {self.sample_fps:g}"
            )
        if self.camera is not None and not self.video:
            raise UserError("`camera` is for `video`; add that, or leave it out")
        if 1 / self.sample_fps > self.pictures.frozen_seconds and self.video:
            raise UserError(
                f"`frozen_seconds={self.pictures.frozen_seconds:g}` needs a `sample_fps` of at least "
                f"{1 / self.pictures.frozen_seconds:g}; got {self.sample_fps:g}"
            )
