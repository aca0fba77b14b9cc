"""Loading a reward model through LeRobot's factory, into the scorer that fits it."""

import inspect
import io
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmConfig, VlmIdentity
from lerobot_topreward.vlm.reward_model.config import LOG_PROBS, RewardModelConfig
from lerobot_topreward.vlm.reward_model.identity import explain, find_camera, read_config

# A label is a raw value: thresholds are for those who read it.
_RAW: dict[str, dict[str, Any]] = {
    "topreward": {"success_threshold": float("-inf")},
    "robometer": {"reward_output": "progress"},
}

if TYPE_CHECKING:
    from lerobot.configs.rewards import RewardModelConfig as LeRobotConfig

    from lerobot_topreward.vlm.reward_model.prefixes import PrefixRewardScorer
    from lerobot_topreward.vlm.reward_model.robometer import RobometerScorer


def load_reward_model(
    config: RewardModelConfig,
    vlm: VlmConfig,
    *,
    identity: VlmIdentity | None = None,
    chunk_tokens: int | None = None,
) -> "RobometerScorer | PrefixRewardScorer":
    """Load a reward model, as `identify_reward_model` pinned it.

    Args:
        config: which one.
        vlm: its `device` is used.
        identity: where it is known, the very commit of the Hub is loaded.
        chunk_tokens: tokens per forward, > 0, of Robometer.

    Raises:
        UserError: it needs what a video does not show, or cannot be loaded.
    """
    if identity is not None and identity.folder is None:
        config = replace(config, reward_revision=identity.revision.partition("+")[0])
    read = read_config(config, vlm)
    camera = find_camera(config, read)
    for option, value in _RAW.get(config.name, {}).items():
        setattr(read, option, value)
    from lerobot.rewards.factory import get_reward_model_class, make_reward_model

    # LeRobot prints to stdout, which `json` needs for itself.
    with explain(config, what="cannot be loaded"), redirect_stdout(io.StringIO()):
        preprocess = _load_preprocessor(config, read)
        kind = get_reward_model_class(config.name)
        # A checkpoint that lacks weights would else score with random ones.
        takes = inspect.signature(kind.from_pretrained).parameters
        model: Any = make_reward_model(read, **({"strict": True} if "strict" in takes else {}))
        model.eval()
    if config.name == "robometer":
        from lerobot_topreward.vlm.reward_model.robometer import RobometerScorer, find_encoder

        encoder = find_encoder(preprocess, model)
        if encoder is not None:
            return RobometerScorer(model, encoder, chunk_tokens=chunk_tokens)
    from lerobot_topreward.vlm.reward_model.prefixes import PrefixRewardScorer

    classifies = config.name == "reward_classifier"
    return PrefixRewardScorer(
        # Its `compute_reward` says only whether the probability is above one half.
        (lambda batch: model.predict([batch[camera]]).probabilities)
        if classifies
        else model.compute_reward,
        preprocess,
        name=config.name,
        camera=camera,
        shows_video=hasattr(read, "max_frames"),
        log_probs=config.name in LOG_PROBS,
        success=classifies,
    )


def _load_preprocessor(config: RewardModelConfig, read: "LeRobotConfig") -> Any:
    """Make a model's own pre-processor, or load it where it holds statistics of the training data."""
    from lerobot.configs import NormalizationMode
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.rewards.factory import make_reward_pre_post_processors

    ways = getattr(read, "normalization_mapping", {})
    if ways.get("VISUAL", NormalizationMode.IDENTITY) == NormalizationMode.IDENTITY:
        return make_reward_pre_post_processors(read)[0]
    path = read.pretrained_path
    assert path is not None  # `read_config` has set it
    tried = []
    for name in ("policy", "classifier", config.name):  # as LeRobot's own are called, and others'
        file = f"{name}_preprocessor.json"
        tried.append(file)
        if _is_there(path, file, read.pretrained_revision):
            return PolicyProcessorPipeline.from_pretrained(
                path,
                config_filename=file,
                revision=read.pretrained_revision,
                overrides={"device_processor": {"device": read.device}},
            )
    raise UserError(
        f"`reward_path='{path}'` scales images by statistics of the data that it was trained on, and "
        f"holds none of {', '.join(tried)}, where LeRobot keeps them; save them with "
        "`preprocessor.save_pretrained`"
    )


def _is_there(path: str, file: str, revision: str | None) -> bool:
    if Path(path).is_dir():
        return (Path(path) / file).is_file()
    with suppress(EntryNotFoundError):
        hf_hub_download(path, file, revision=revision)
        return True
    return False
