"""What the label command is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.publish.options import PushConfig
from lerobot_topreward.rewards import PAPER, Debias, Formula, Scale
from lerobot_topreward.scoring.launch.config import JobConfig, SpreadConfig
from lerobot_topreward.scoring.other_instructions import MOST_CONTRAST
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label a LeRobot dataset with per-frame task progress and advantage, judged by a video VLM.

    --config FILE takes options from a YAML file, or from a preset: paper, laptop.
    """

    repo_id: str | None = None  # dataset on the Hub, or recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # dataset in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    episodes: str | None = None  # which ones, as 0:10,15 for 0..9 and 15; all if not given
    max_episodes: int | None = None  # at most this many of them

    vlm: VlmConfig = field(default_factory=VlmConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    control: Literal["none", "static", "blank", "contrast", "all"] = "none"  # also score this
    chunk_tokens: int | None = None  # tokens per forward: bounds memory, halved when it runs out
    decode_workers: int | None = None  # threads that decode ahead; by default cores - 1, 16 at most

    normalize: Literal["episode", "task"] = "episode"  # task: episodes of one task compare
    # What progress is made of; log-odds: True against False. By default log-prob, as in the paper;
    # of a reward model's own progress prob, which is that progress.
    scale: Scale | None = None
    debias: Debias = "none"  # progress beyond what the first frame, gray or another task earns
    contrast: int = 3  # how many other tasks contrast asks about, 1..3, as far as there are
    formula: Literal["auto"] | None = None  # auto: the scale and debias that the evidence favors
    success_file: Path | None = None  # CSV episode_index,success: evidence for auto and judgment
    horizon: float = 1.0  # span of the advantage, seconds

    output: Path | None = None  # folder of the labeled dataset; <dataset>_topreward if not given
    in_place: bool = False  # write into --root itself
    link_videos: bool = False  # share videos with the source: tools that edit them change both
    overwrite: bool = False  # discard changes made in the labeled copy since it was written
    write: Literal["sidecar", "columns", "both"] = "both"  # what is made from the raw scores
    next_reward: bool = False  # also write next.reward and next.success, made of progress
    other_cameras: bool = True  # fetch from the Hub the videos that were not scored, too
    skip_check: bool = False  # do not say first what is broken in the recording
    force: bool = False  # score anew what is already scored
    dry_run: bool = False  # only say what there is to do and what it costs

    spread: SpreadConfig = field(default_factory=SpreadConfig)
    push: PushConfig = field(default_factory=PushConfig)
    job: JobConfig = field(default_factory=JobConfig)

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        for name in ("horizon", "chunk_tokens", "decode_workers", "max_episodes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"`{name}` must be > 0; got {value}")
        engine = None if self.scoring.engine == "one-pass" else self.scoring.engine
        self.server.check_beside(self.vlm, engine=engine, chunk_tokens=self.chunk_tokens)
        pixels = self.scoring.max_pixels
        self.reward_model.check_beside(self.vlm, self.server, engine=engine, max_pixels=pixels)
        if self.debias != "none" and self.scale == "prob":
            raise UserError(
                f"`debias={self.debias}` subtracts log-probs, which `scale=prob` does not use; leave "
                "out one of them"
            )
        scale = self.scale or PAPER.scale
        if self.formula is not None and Formula(scale, self.debias) != PAPER:
            raise UserError(
                f"`formula={self.formula}` chooses scale and debias itself; leave out "
                f"`scale={scale}` and `debias={self.debias}`, or `formula`"
            )
        if not 1 <= self.contrast <= MOST_CONTRAST:
            raise UserError(f"`contrast` must be 1..{MOST_CONTRAST}; got {self.contrast}")
        if self.contrast != MOST_CONTRAST and not (
            self.formula == "auto" or "contrast" in self.debias_scored
        ):
            raise UserError(
                f"`contrast={self.contrast}` needs `debias=contrast` or `control=contrast`, which "
                "ask about other tasks"
            )
        if self.in_place and (self.root is None or self.output is not None):
            raise UserError(
                "`in_place` writes into the local `root`, without `output`; give `root`"
            )
        if self.next_reward and (self.normalize != "task" or self.write == "sidecar"):
            raise UserError(
                "`next_reward` writes columns of progress that compares episodes: scaled within each, "
                f"every failure ends in success. It needs `normalize=task`, got {self.normalize}, and "
                f"`write=both` or columns, got {self.write}"
            )
        if self.push.push_to_hub and self.write != "both":
            raise UserError(
                f"`push_to_hub` uploads columns and sidecar; leave out `write={self.write}`"
            )
        if self.vlm.vlm == "auto" and self.server.server:
            raise UserError(
                "`vlm=auto` chooses for this machine; with a `server`, give the model that it runs"
            )
        self.push.check(repo_id=self.repo_id)
        self._check_spread()

    def _check_spread(self) -> None:
        """Refuse what cannot be spread over processes, or not over machines."""
        spread = self.spread
        several = "share" if spread.share is not None else "launch" if spread.launch else None
        unsure = [name for name in ("vlm", "dtype") if getattr(self.vlm, name) == "auto"]
        elsewhere = self.server.server or self.reward_model.reward_model is not None
        if several and unsure and not elsewhere:
            raise UserError(
                f"`{unsure[0]}=auto` may be another on each machine, and their scores do not mix; "
                f"with `{several}`, name it, as `dtype=bfloat16` for GPUs"
            )
        if spread.workers is not None and self.vlm.device_map is not None:
            raise UserError(
                "`device_map=auto` spreads one VLM over all GPUs, `workers` load one on each; leave "
                "out one of them"
            )
        if spread.workers is not None and self.vlm.device.startswith("cuda:"):
            raise UserError(
                f"`device={self.vlm.device}` is one GPU, and `workers` take one each; use "
                "`device=cuda`"
            )

    @property
    def made_of(self) -> Formula:
        """What progress is made of."""
        scale = self.scale
        if scale is None:
            own = self.reward_model.gives_progress and self.debias == "none"
            scale = "prob" if own else PAPER.scale
        return Formula(scale, self.debias)

    @property
    def debias_scored(self) -> tuple[Debias, ...]:
        """Whose controls are scored."""
        names: tuple[Debias, ...] = ("static", "blank", "contrast")
        return (
            names
            if self.control == "all"
            else tuple(name for name in names if name in (self.control, self.debias))
        )
