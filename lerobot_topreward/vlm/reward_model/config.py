"""Which of LeRobot's reward models judges: all that can be checked before one is looked for."""

from dataclasses import dataclass, fields

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.server.config import ServerConfig

LOG_PROBS = (
    "topreward",
    "topreward_exact",
)  # answer with log P(True); all others with a progress of 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelConfig:
    """One of LeRobot's reward models, which is asked in place of a VLM."""

    # Its name in LeRobot's registry: robometer, reward_classifier, topreward, or one of another
    # package, which is named lerobot_reward_... or stands before the name: PACKAGE:NAME.
    reward_model: str | None = None
    reward_path: str | None = None  # Hub id or folder of its checkpoint; some have one of their own
    reward_revision: str | None = None  # branch, tag or commit on the Hub

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before LeRobot is imported."""
        if self.reward_model is None:
            for name in ("reward_path", "reward_revision"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"`{name}={getattr(self, name)}` needs `reward_model=TYPE`, such as robometer"
                    )
        elif not self.name or ":" in (self.package or ""):
            raise UserError(
                f"`reward_model={self.reward_model}` must be a name, or PACKAGE:NAME; got neither"
            )

    @property
    def package(self) -> str | None:
        """The package that registers it, where that was named."""
        package, colon, _ = (self.reward_model or "").rpartition(":")
        return package if colon else None

    @property
    def name(self) -> str:
        """Its name in LeRobot's registry; "" where there is none."""
        return (self.reward_model or "").rpartition(":")[2]

    @property
    def gives_progress(self) -> bool:
        """Whether a reward model is asked, and its values are a progress of 0..1."""
        return self.reward_model is not None and self.name not in LOG_PROBS

    def check_beside(self, vlm: VlmConfig, server: ServerConfig, **others: object) -> None:
        """Refuse options that are about another judge.

        Args:
            vlm: the VLM's own options, of which only the device is used.
            server: must not be given.
            others: by name, None where they are not given.

        Raises:
            UserError: names the option.
        """
        if self.reward_model is None:
            return
        given = {"server": server.server[0] if server.server else None, **others}
        for item in fields(VlmConfig):
            value = getattr(vlm, item.name)
            if item.name != "device" and value != item.default:
                given[item.name] = value
        for name, value in given.items():
            if value is not None:
                raise UserError(
                    f"`{name}={value}` is about a VLM, and `reward_model={self.reward_model}` is "
                    "asked in place of one, in the way that its own configuration says; leave one "
                    "of them out"
                )
