"""Tiny checkpoints of LeRobot's reward models, with random weights."""

from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.rewards.factory import (
    get_reward_model_class,
    make_reward_model_config,
    make_reward_pre_post_processors,
)
from transformers import ViTConfig, ViTModel

CAMERA = "observation.images.front"


def build_robometer(folder: Path, vlm: Path, **options: Any) -> Path:
    """Make a Robometer around a tiny VLM whose values differ from image to image."""
    config = make_reward_model_config(
        "robometer",
        base_model_id=str(vlm),
        torch_dtype="float32",
        device="cpu",
        image_key=CAMERA,
        **options,
    )
    torch.manual_seed(0)
    model: Any = get_reward_model_class("robometer")(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(std=1.0 if "_head" in name else 0.1)
    model.save_pretrained(folder)
    return folder


def build_topreward(folder: Path, vlm: Path, **options: Any) -> Path:
    """Write the configuration that is all of a TOPReward checkpoint of LeRobot's."""
    config = make_reward_model_config(
        "topreward",
        **{
            "vlm_name": str(vlm),
            "torch_dtype": "float32",
            "device": "cpu",
            "image_key": CAMERA,
            "max_frames": None,
            **options,
        },
    )
    folder.mkdir(parents=True)
    config._save_pretrained(folder)
    return folder


def build_classifier(folder: Path, *, size: int, cameras: tuple[str, ...] = (CAMERA,)) -> Path:
    """Make a success classifier around a tiny ViT, with the statistics that it was trained on."""
    torch.manual_seed(0)
    encoder = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=size,
        patch_size=16,
    )
    ViTModel(encoder).save_pretrained(folder / "encoder")
    picture = PolicyFeature(type=FeatureType.VISUAL, shape=(3, size, size))
    config = make_reward_model_config(
        "reward_classifier",
        model_name=str(folder / "encoder"),
        model_type="transformer",
        num_cameras=len(cameras),
        input_features=dict.fromkeys(cameras, picture),
        normalization_mapping={"VISUAL": NormalizationMode.MEAN_STD},
    )
    model: Any = get_reward_model_class("reward_classifier")(config)
    with torch.no_grad():
        for weights in model.classifier_head.parameters():
            if weights.ndim > 1:
                weights.normal_(std=1.0)
    model.save_pretrained(folder)
    scale = {"mean": torch.full((3, 1, 1), 0.4), "std": torch.full((3, 1, 1), 0.2)}
    preprocess, _ = make_reward_pre_post_processors(
        config, dataset_stats=dict.fromkeys(cameras, scale)
    )
    preprocess.save_pretrained(folder)
    return folder


_LAMP = {
    "__init__": "from . import configuration_lamp\n",
    "configuration_lamp": """
from dataclasses import dataclass

from lerobot.configs.rewards import RewardModelConfig


@RewardModelConfig.register_subclass("lamp")
@dataclass
class LampConfig(RewardModelConfig):
    image_key: str = "observation.images.front"
    gain: float = 1.0
""",
    "modeling_lamp": """
import torch

from lerobot.rewards.pretrained import PreTrainedRewardModel

from .configuration_lamp import LampConfig


class LampRewardModel(PreTrainedRewardModel):
    name = "lamp"
    config_class = LampConfig

    def __init__(self, config):
        super().__init__(config)
        self.power = torch.nn.Parameter(torch.ones(()))

    def compute_reward(self, batch):
        light = batch[self.config.image_key].mean(dim=(1, 2, 3))
        return self.config.gain * light**self.power
""",
    "processor_lamp": """
from lerobot.processor import DeviceProcessorStep, PolicyProcessorPipeline


def make_lamp_pre_post_processors(config, dataset_stats=None):
    steps = [DeviceProcessorStep(device=config.device)]
    return PolicyProcessorPipeline(steps=steps, name="policy_preprocessor"), None
""",
}


def install_lamp(site: Path, *, module: str, distribution: str | None) -> None:
    """Install somebody's package with the reward model "lamp": its progress is the light."""
    (site / module).mkdir(parents=True)
    for name, text in _LAMP.items():
        (site / module / f"{name}.py").write_text(text)
    if distribution is not None:
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata)


def build_lamp(folder: Path, **options: Any) -> Path:
    """Save a lamp, which some package has registered."""
    config = make_reward_model_config("lamp", device="cpu", **options)
    get_reward_model_class("lamp")(config).save_pretrained(folder)
    return folder
