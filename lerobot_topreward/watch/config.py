"""What the watch command is asked for."""

from dataclasses import dataclass, field
from pathlib import Path

from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.prompts import require_text
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """Score a dataset while it is being recorded, and say which episodes to record again.

    Ends when the recorder has closed its files, or with Ctrl-C. label then scores nothing twice.
    """

    repo_id: str | None = None  # dataset that is being recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # folder that it is being recorded in; need not be there yet

    min_success: float | None = None  # good from this success score on, nats, <= 0
    reference: Path | None = None  # labeled dataset that says where good begins
    success_file: Path | None = None  # CSV episode_index,success of the reference
    task: str | None = None  # what is being recorded, where the dataset has several tasks

    vlm: VlmConfig = field(default_factory=VlmConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    chunk_tokens: int | None = None  # tokens per forward: bounds memory, halved when it runs out

    output: Path | None = None  # label's output folder; <dataset>_topreward if not given
    sound: bool = False  # ring the terminal's bell: once for good, three times for bad
    until_episodes: int | None = None  # end when the dataset has so many, all of them judged
    interval: float = 0.5  # how often the folder is looked at, seconds

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        for name in ("until_episodes", "interval", "chunk_tokens"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"`{name}` must be > 0; got {value}")
        if self.min_success is not None and not self.min_success <= 0:
            raise UserError(f"`min_success` is in nats, <= 0; got {self.min_success}")
        if self.min_success is not None and self.reference is not None:
            raise UserError("`min_success` and `reference` both say what is good; leave out one")
        if self.success_file is not None and self.reference is None:
            raise UserError("`success_file` is about the `reference`, which is not given")
        if self.task is not None and self.scoring.instruction is not None:
            raise UserError("`instruction` is asked in place of any `task`; leave out one of them")
        for name, text in (("task", self.task), ("instruction", self.scoring.instruction)):
            if text is not None and not text.strip():
                raise UserError(f"`{name}` must say what the robot does; it is blank")
            require_text(text or "", what=f"`{name}`", fix="Say it without")
        if self.vlm.vlm == "auto" and self.server.server:
            raise UserError(
                "`vlm=auto` chooses for this machine; with a `server`, give the model that it runs"
            )
        engine = None if self.scoring.engine == "one-pass" else self.scoring.engine
        self.server.check_beside(self.vlm, engine=engine, chunk_tokens=self.chunk_tokens)
        self.reward_model.check_beside(
            self.vlm, self.server, engine=engine, max_pixels=self.scoring.max_pixels
        )
