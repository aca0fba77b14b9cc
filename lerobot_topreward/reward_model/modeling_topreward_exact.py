"""The reward of TOPReward for whole videos, or for every prefix of them in one pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards.pretrained import PreTrainedRewardModel
from torch import Tensor

from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.reward_model.configuration_topreward_exact import TOPRewardExactConfig
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.loading import load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer

# Of the Hub, and of the command line, for the configuration.
_FETCHING = (
    "force_download", "resume_download", "proxies", "token", "cache_dir", "local_files_only",
    "revision", "cli_overrides",
)  # fmt: skip


class TOPRewardExactRewardModel(PreTrainedRewardModel):
    """Scores videos as LeRobot's TOPReward does (arXiv 2602.19313); it is not trained."""

    name = "topreward_exact"  # pyright: ignore[reportAssignmentType]
    config_class = TOPRewardExactConfig  # pyright: ignore[reportAssignmentType]

    def __init__(self, config: TOPRewardExactConfig, **_: Any) -> None:
        """Load the VLM; what LeRobot's trainer knows of a dataset is not needed.

        Raises:
            UserError: it is missing, of another architecture, or too large.
        """
        super().__init__(config)
        self.config: TOPRewardExactConfig = config
        vlm = load_vlm(
            VlmConfig(
                vlm=config.vlm_name,
                vlm_revision=config.vlm_revision,
                device=config.device or "auto",
                dtype=config.torch_dtype,  # pyright: ignore[reportArgumentType]  # checked there
            )
        )
        self.model = vlm.model  # so that it is moved with this module
        self.scorer = OnePassScorer(vlm, max_pixels=config.max_pixels)

    def compute_reward(self, batch: dict[str, Any]) -> Float[Tensor, " batch"]:
        """Score the whole video of each sample: log P("True"), nats, or success as 0 and 1.

        Args:
            batch: `image_key`, images (batch, time, 3, height, width) or (batch, 3, height, width),
                channels last too, uint8 or floats of 0..1; `task_key`, one text or one per sample.

        Raises:
            KeyError: there are no images, or there is no task.
            ValueError: they have other shapes.
            EpisodeError: a video cannot be scored.
        """
        videos, tasks = self._read(batch)
        rewards = self._to_tensor(
            [self._score(*asked, [len(asked[0])])[0] for asked in zip(videos, tasks, strict=True)]
        )
        if np.isfinite(self.config.success_threshold):
            rewards = (rewards > self.config.success_threshold).float()
        return rewards

    def score_prefixes(self, batch: dict[str, Any]) -> Float[Tensor, "batch time"]:
        """Score every prefix of each video, all of them in one pass: log P("True"), nats.

        What `compute_reward` would give for the first image, the first two, and so on, of those
        that it shows; the threshold is not used. For arguments and errors see there.
        """
        videos, tasks = self._read(batch)
        return self._to_tensor(
            [
                self._score(video, task, range(1, len(video) + 1))
                for video, task in zip(videos, tasks, strict=True)
            ]
        )

    def _to_tensor(self, rewards: Any) -> Tensor:
        return torch.as_tensor(np.array(rewards, dtype=np.float32), device=self.config.device)

    def _score(
        self, video: UInt8[np.ndarray, "time height width 3"], task: str, prefixes: Sequence[int]
    ) -> Float[np.ndarray, " prefixes"]:
        images = np.arange(len(video))
        segment = Segment(0, 0, len(video), task)
        clip = Clip(segment, self.config.fps, video, shown=images, frame_indices=images)
        return self.scorer.score(clip, prefixes, [task]).true[0]

    def _read(self, batch: dict[str, Any]) -> tuple[Shaped[np.ndarray, "batch ..."], list[str]]:
        """Take the videos, as the scorer wants them, and a task for each of them."""
        config = self.config
        if config.image_key not in batch:
            raise KeyError(
                f"image_key={config.image_key!r} must be in the batch; it has {', '.join(batch)}"
            )
        images = torch.as_tensor(batch[config.image_key]).detach().cpu()
        if images.ndim == 4:
            images = images[:, None]
        channels_last = images.ndim == 5 and images.shape[-1] == 3
        if images.ndim != 5 or not (channels_last or images.shape[2] == 3) or not images.numel():
            raise ValueError(
                f"{config.image_key} must be (batch, time, 3, height, width) or (batch, 3, height, "
                f"width); got {tuple(images.shape)}"
            )
        if config.max_frames is not None:
            images = images[:, -config.max_frames :]
        if images.is_floating_point():
            images = (images * 255.0).clamp(0, 255)
        images = images if channels_last else images.permute(0, 1, 3, 4, 2)
        task = batch.get(config.task_key)
        task = config.default_task if task is None else task
        if task is None:
            raise KeyError(
                f"task_key={config.task_key!r} must be in the batch, or set default_task"
            )
        tasks = [task] if isinstance(task, str) else list(task)
        if len(tasks) == 1:
            tasks *= len(images)
        if len(tasks) != len(images) or not all(isinstance(text, str) for text in tasks):
            raise ValueError(f"there must be a task for each of {len(images)} videos; got {task!r}")
        return images.to(torch.uint8).numpy(), tasks

    def _save_pretrained(self, save_directory: Path) -> None:
        """Save the configuration, which is all there is."""
        self.config._save_pretrained(save_directory)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: RewardModelConfig | None = None,
        **options: Any,
    ) -> Self:
        """Load a configuration, unless it is given, and the VLM that it names.

        Raises:
            TypeError: it is of another reward model.
            UserError: the VLM cannot be loaded.
        """
        if config is None:
            fetching = {name: options[name] for name in _FETCHING if name in options}
            config = RewardModelConfig.from_pretrained(pretrained_name_or_path, **fetching)
        if not isinstance(config, TOPRewardExactConfig):
            raise TypeError(
                f"{pretrained_name_or_path} must hold a reward model of the type {cls.name}; got "
                f"{config.type}"
            )
        return cls(config).eval()
