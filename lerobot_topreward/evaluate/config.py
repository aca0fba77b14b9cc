"""What the evaluate command is asked for."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.scoring.scorer import check_controls
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Say how far the rewards of a labeled dataset can be believed, and which episodes look bad.

    Needs no VLM, except for --controls and --baseline that were not scored before.
    """

    repo_id: str | None = None  # labeled dataset on the Hub, or under $HF_LEROBOT_HOME
    root: Path | None = None  # labeled dataset, or its source, in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub
    labels: Path | None = None  # folder that label wrote, where it is neither of the above
    success_file: Path | None = None  # CSV episode_index,success; else what the dataset itself says

    controls: str | None = None  # score static,reversed,swapped or some of them, on a sample
    control_episodes: int = 10  # how many episodes the sample has, the baseline's too
    swapped_instruction: str | None = None  # what swapped asks; by default another episode's
    baseline: Literal["none", "gvl"] = "none"  # gvl: ask for percentages of shuffled frames, too
    vlm: str | None = None  # where the labels' VLM lies, if not where it was
    device: str = "auto"  # that it runs on: cuda, cuda:1, mps or cpu
    device_map: Literal["auto"] | None = None  # "auto" spreads it over all GPUs
    server: ServerConfig = field(default_factory=ServerConfig)
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    output: Path | None = None  # folder for new scores where the labels' own cannot be written

    # Instead of a dataset, two policies or more: LeRobot's eval_info.json of each, or the counts of a
    # real arm, as 17/20 12/20. The first is what the others are compared with.
    policies: tuple[Path, ...] = ()
    trials: tuple[str, ...] = ()

    json: bool = False  # print everything as JSON instead of tables

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        if self.compares_policies:
            self._check_policies()
        if self.control_episodes < 1:
            raise UserError(f"`control_episodes` must be at least 1; got {self.control_episodes}")
        if self.swapped_instruction is not None and "swapped" not in self.control_names:
            raise UserError("`swapped_instruction` needs `controls=swapped`")
        check_controls(self.control_names)
        self.server.check_beside(self.vlm_config)
        self.reward_model.check_beside(self.vlm_config, self.server)
        asked = ("server", self.server.server), ("reward_model", self.reward_model.reward_model)
        for name, value in asked:
            if value and not self.control_names:
                raise UserError(
                    f"`{name}` is asked about `controls`; name some, as `controls=static`"
                )

    def _check_policies(self) -> None:
        for name in ("policies", "trials"):
            if len(getattr(self, name)) == 1:
                raise UserError(f"`{name}` must name two or more, which are compared; got one")
        if self.policies and self.trials:
            raise UserError(
                "`policies` and `trials` cannot be given together; leave one of them out"
            )
        for item in fields(self):
            ours = item.name in ("policies", "trials", "json")
            default = item.default
            if item.default_factory is not MISSING:
                default = item.default_factory()
            if not ours and getattr(self, item.name) != default:
                raise UserError(
                    f"`{item.name}` is about a labeled dataset, which `policies` and `trials` do not "
                    "read; leave one of them out"
                )

    @property
    def compares_policies(self) -> bool:
        """Whether policies are compared, and no dataset is opened."""
        return bool(self.policies or self.trials)

    @property
    def control_names(self) -> list[str]:
        """The controls that were asked for."""
        return [name.strip() for name in (self.controls or "").split(",") if name.strip()]

    @property
    def vlm_config(self) -> VlmConfig:
        """Where the labels' VLM lies and runs; everything else is as the labels say."""
        vlm = VlmConfig().vlm if self.vlm is None else self.vlm
        return VlmConfig(vlm=vlm, device=self.device, device_map=self.device_map)
