"""The options of the curate command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.rules import RulesConfig
from lerobot_topreward.publish.options import PushConfig


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """Find bad demonstrations in a labeled dataset, and make a dataset without them.

    Says what would go and why; writes only with --output or --episodes-file. The source is never
    changed.
    """

    repo_id: str | None = None  # labeled dataset on the Hub, or recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # labeled dataset in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    labels: Path | None = None  # folder with the labels, if not in the dataset or next to it

    rules: RulesConfig = field(default_factory=RulesConfig)
    auto: bool = False  # choose --min-success by the episodes whose success is known
    success_file: Path | None = None  # CSV episode_index,success; else what the dataset itself says
    unlabelled: Literal["keep", "drop"] | None = None  # what becomes of episodes without labels

    episodes_file: Path | None = None  # write the kept episodes, for --dataset.episodes
    output: Path | None = None  # folder of a new dataset without the dropped episodes
    trim: bool = False  # in the new dataset, cut the stationary ends of episodes
    trim_margin: float = 0.5  # left in place at each end, seconds

    force_rules: bool = False  # use rules of the reward even where it cannot judge this dataset
    dry_run: bool = False  # write nothing, whatever else is asked for

    push: PushConfig = field(default_factory=PushConfig)

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        if self.auto and self.rules.min_success is not None:
            raise UserError("`auto` chooses `min_success`; leave one of them out")
        for option, wanted in (("trim", self.trim), ("push_to_hub", self.push.push_to_hub)):
            if wanted and self.output is None:
                raise UserError(
                    f"`{option}` works on the new dataset; name its folder with `output`"
                )
        if not self.trim_margin >= 0:
            raise UserError(f"`trim_margin` must be at least 0 s; got {self.trim_margin}")
        self.push.check(repo_id=self.repo_id)
