"""Which VLM judges, and what it is shown, as a configuration of LeRobot's."""

from dataclasses import dataclass, field

from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.configs.rewards import RewardModelConfig
from lerobot.utils.constants import OBS_IMAGES


@RewardModelConfig.register_subclass("topreward_exact")
@dataclass
class TOPRewardExactConfig(RewardModelConfig):
    """As LeRobot's ``TOPRewardConfig``, whose fields these are, and with the same reward.

    A checkpoint is this configuration alone: the VLM's weights stay where `vlm_name` says.
    """

    vlm_name: str = "Qwen/Qwen3-VL-8B-Instruct"  # Hub id or folder of a qwen3_vl(_moe) checkpoint
    vlm_revision: str | None = None  # branch, tag or commit on the Hub
    torch_dtype: str = (
        "auto"  # float32, bfloat16, float16; auto is float32 for a small one on a cpu
    )
    max_pixels: int | None = None  # per image; the checkpoint's own budget if None
    image_key: str = f"{OBS_IMAGES}.top"
    task_key: str = "task"
    default_task: str | None = None  # where a batch names none
    max_frames: int | None = 16  # the last so many images are shown; None: all
    fps: float = 2.0  # at which the images were taken, Hz
    success_threshold: float = float("-inf")  # if finite, the reward is 1 above it, nats, else 0

    license: str | None = "apache-2.0"
    tags: list[str] | None = field(default_factory=lambda: ["reward-model", "zero-shot"])
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {"VISUAL": NormalizationMode.IDENTITY}
    )

    def __post_init__(self) -> None:
        """Refuse options that break a rule.

        Raises:
            ValueError: as LeRobot's configurations raise it.
        """
        super().__post_init__()
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames must be >= 1 or null; got {self.max_frames}")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be > 0 and finite; got {self.fps}")
        if self.torch_dtype not in (known := ("auto", "float32", "bfloat16", "float16")):
            raise ValueError(
                f"torch_dtype must be one of {', '.join(known)}; got {self.torch_dtype}"
            )
        image = PolicyFeature(type=FeatureType.VISUAL, shape=(3, 224, 224))
        self.input_features.setdefault(self.image_key, image)
        reward = PolicyFeature(type=FeatureType.REWARD, shape=(1,))
        self.output_features.setdefault("reward", reward)
