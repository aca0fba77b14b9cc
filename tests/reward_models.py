"""Tiny checkpoints of LeRobot's reward models, with random weights."""

from pathlib import Path
from typing import Any

import torch
from lerobot.rewards.factory import get_reward_model_class, make_reward_model_config
from lerobot.rewards.robometer.modeling_robometer import RobometerRewardModel


def build_robometer(folder: Path, vlm: Path, **options: Any) -> Path:
    """Make a Robometer around a tiny VLM whose values differ from image to image."""
    config = make_reward_model_config(
        "robometer",
        base_model_id=str(vlm),
        torch_dtype="float32",
        device="cpu",
        image_key="observation.images.front",
        **options,
    )
    torch.manual_seed(0)
    model: Any = get_reward_model_class("robometer")(config)
    assert isinstance(model, RobometerRewardModel)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.5 if "_head" in name else 0.1)
    model.save_pretrained(folder)
    return folder
