"""The weights of a dataset's frames as LeRobot's trainer asks for them: one batch after another."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from lerobot.configs.policies import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset
from torch import Tensor

from lerobot_topreward.data.dataset import source_of
from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import WeightingConfig, complete_saved, from_params
from lerobot_topreward.train.frame_weights import weigh
from lerobot_topreward.train.labels import read_labels
from lerobot_topreward.train.lerobot_patch import BatchWeighter
from lerobot_topreward.train.records import NOTHING, FrameWeights
from lerobot_topreward.train.schemes import Rabc, Scheme, Uniform


class TopRewardWeighter(BatchWeighter):
    """Looks the weights of a batch up by the global index of its frames, on the device."""

    def __init__(self, weights: FrameWeights, config: WeightingConfig) -> None:
        """Lay the weights of every frame that is trained on out as a table."""
        # The last row answers for every index beyond the table, where an accelerator would abort.
        table = np.full(int(weights.index[-1]) + 2, np.nan, dtype=np.float32)
        table[weights.index] = weights.weight
        self._table = torch.from_numpy(table)
        self.per_batch = config.normalization == "batch"
        self.drawn = weights if config.apply == "sampling" else None
        self._epsilon = config.scheme.epsilon if isinstance(config.scheme, Rabc) else Rabc.epsilon
        weight = weights.weight.astype(np.float64)
        self._nothing = NOTHING * float(weight.mean())
        self._stats = {
            "type": config.scheme.name,
            "apply": config.apply,
            "num_frames": len(weight),
            "mean_weight": float(weight.mean()),
            "max_weight": float(weight.max()),
            "share_zero": float(weights.nothing.mean()),
            "share_capped": float(weights.capped.mean()),
            "effective_frames": weights.effective,
        }

    def move_to(self, device: torch.device) -> None:
        """See `BatchWeighter.move_to`."""
        self._table = self._table.to(device)

    def compute_batch_weights(
        self, batch: dict[str, Any]
    ) -> tuple[Float[Tensor, " batch"], dict[str, float]]:
        """Look a batch's weights up by the global ``index`` of its frames, shape (batch,).

        Returns:
            The weights, >= 0, which sum to the batch's size where they are normalized per batch;
            and their statistics for the log, before that. The losses of frames that were drawn by
            their weight all weigh 1. A frame that was not among those trained on weighs NaN, at
            which the trainer patch saves and stops.

        Raises:
            ValueError: the batch has no index.
        """
        if "index" not in batch:
            raise ValueError(
                "a batch must have the global 'index' of its frames to be weighted; it has: "
                f"{', '.join(map(str, batch))}"
            )
        index = torch.as_tensor(batch["index"], device=self._table.device).reshape(-1).long()
        weights = self._table[index.clamp(-1, len(self._table) - 1)]
        measured = torch.stack(
            [weights.mean(), (weights < self._nothing).float().mean(), weights.max()]
        )
        # One transfer, at the step's beginning, when the device has nothing else to do.
        mean, zero, largest = measured.tolist()
        stats = {"mean_weight": mean, "share_zero": zero, "max_weight": largest}
        if self.drawn is not None:
            weights = torch.where(weights.isnan(), weights, 1.0)
        elif self.per_batch:
            weights = weights * (len(weights) / (weights.sum() + self._epsilon))
        return weights, stats

    def get_stats(self) -> dict[str, Any]:
        """Describe the weights of all frames that are trained on, for the log."""
        return dict(self._stats)


def chunk_frames(policy: PreTrainedConfig, config: WeightingConfig) -> int:
    """Count the frames of the policy's action chunk: ACT's ``chunk_size``, Diffusion's ``horizon``.

    Args:
        policy: that is trained.
        config: of its weights, the scheme settled.

    Raises:
        UserError: the policy predicts no chunk, and no other horizon is given.
    """
    chunk = policy.action_delta_indices
    if chunk:
        return len(chunk)
    has_span = isinstance(config.scheme, Uniform) or getattr(config.scheme, "horizon", None)
    if not has_span:
        raise UserError(
            f"policy '{policy.type}' has no action chunk to take the advantage's span from; give "
            "`weighting.horizon=SECONDS`"
        )
    return 1  # not used


def weigh_dataset(
    dataset: LeRobotDataset,
    scheme: Scheme,
    *,
    chunk: int,
    stationary: Literal["auto", "keep", "drop"] = "auto",
) -> FrameWeights:
    """Weigh the frames of a labeled dataset, for a training loop of your own.

    Args:
        dataset: as LeRobot opened it, with all its episodes or some.
        scheme: the formula and its options, as `Awr(beta=1.0)`.
        chunk: how many actions the policy predicts at a time, frames, >= 1.
        stationary: "drop": frames that stand still weigh nothing; see `WeightingConfig`.

    Returns:
        One weight per frame of the dataset, in its order, with mean 1; raw for `Rabc`.

    Raises:
        UserError: the dataset is not labeled, or its labels lack what the scheme needs.
    """
    config = WeightingConfig(scheme=scheme, stationary=stationary)
    labels = read_labels(source_of(dataset.meta), episodes=dataset.episodes, config=config)
    return weigh(labels, config, chunk=chunk)


def make_weighter(
    params: Mapping[str, Any],
    *,
    policy: PreTrainedConfig,
    dataset: Any,  # a LeRobotDataset, streamed or not
) -> TopRewardWeighter:
    """Weigh the frames that a trainer's dataset holds, for a configuration of `as_params`.

    Raises:
        UserError: the labels or the configuration do not allow it.
    """
    # LeRobot's own trainer multiplies losses. It gives what the user wrote, and saves no more in
    # checkpoints, so that what is not named must mean for good what it always has.
    config = from_params(complete_saved(params))
    if config.apply is None:
        config = replace(config, apply="loss")
    config = config.settle(streaming=isinstance(dataset, StreamingLeRobotDataset))
    source = source_of(dataset.meta)
    labels = read_labels(source, episodes=dataset.episodes, config=config)
    config = config.settle_by(labels)
    weights = weigh(labels, config, chunk=chunk_frames(policy, config))
    return TopRewardWeighter(weights, config)
