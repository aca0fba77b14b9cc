"""What the label command is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.publish.options import PushConfig
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.vlm.identity import VlmConfig


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label a LeRobot dataset with per-frame task progress and advantage, judged by a video VLM.

    --config FILE takes options from a YAML file, or from a preset: paper.
    """

    repo_id: str | None = None  # dataset on the Hub, or recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # dataset in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    episodes: str | None = None  # which ones, as 0:10,15 for 0..9 and 15; all if not given
    max_episodes: int | None = None  # at most this many of them

    vlm: VlmConfig = field(default_factory=VlmConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    control: Literal["none", "static"] = "none"  # static: also score the first frame repeated
    chunk_tokens: int | None = None  # tokens per forward: bounds memory, halved when it runs out

    normalize: Literal["episode", "task"] = "episode"  # task: episodes of one task compare
    scale: Literal["log-prob", "prob"] = "log-prob"  # what progress is made of; the paper: log-prob
    debias: Literal["none", "static"] = "none"  # static: progress beyond what time alone earns
    horizon: float = 1.0  # span of the advantage, seconds

    output: Path | None = None  # folder of the labeled dataset; <dataset>_topreward if not given
    in_place: bool = False  # write into --root itself
    link_videos: bool = False  # share videos with the source: tools that edit them change both
    overwrite: bool = False  # discard changes made in the labeled copy since it was written
    write: Literal["sidecar", "columns", "both"] = "both"  # what is made from the raw scores
    other_cameras: bool = True  # fetch from the Hub the videos that were not scored, too
    skip_check: bool = False  # do not say first what is broken in the recording
    force: bool = False  # score anew what is already scored

    push: PushConfig = field(default_factory=PushConfig)

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        for name in ("horizon", "chunk_tokens", "max_episodes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"`{name}` must be > 0; got {value}")
        if self.debias == "static" and self.scale == "prob":
            raise UserError(
                "`debias=static` subtracts log-probs, which `scale=prob` does not use; leave out "
                "one of them"
            )
        if self.in_place and (self.root is None or self.output is not None):
            raise UserError(
                "`in_place` writes into the local `root`, without `output`; give `root`"
            )
        if self.push.push_to_hub and self.write != "both":
            raise UserError(
                f"`push_to_hub` uploads columns and sidecar; leave out `write={self.write}`"
            )
        self.push.check(repo_id=self.repo_id)

    @property
    def controls(self) -> tuple[str, ...]:
        """What is scored."""
        return ("none", "static") if "static" in (self.control, self.debias) else ("none",)
