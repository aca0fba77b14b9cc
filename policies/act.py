"""LeRobot's ACT with a loss per sample."""

from typing import Any

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES
from torch import Tensor

from lerobot_topreward.policies.padding import mean_over_valid


class PerSampleACTPolicy(ACTPolicy):
    """ACT whose `forward` takes `reduction`; its checkpoints are those of the stock policy."""

    def forward(
        self, batch: dict[str, Any], reduction: str = "mean"
    ) -> tuple[Float[Tensor, ""] | Float[Tensor, " batch"], dict[str, float]]:
        """Compute the loss of a batch, or of each of its samples.

        Args:
            batch: what the stock policy takes, among it `action` (batch, chunk_size, action_dim)
                and `action_is_pad` (batch, chunk_size).
            reduction: `mean` is the stock loss; `none` gives one loss per sample, whose mean is
                the stock loss.

        Returns:
            The loss, and the means of its parts for the log.

        Raises:
            ValueError: for any other reduction.
        """
        if reduction == "mean":
            return super().forward(batch)
        if reduction != "none":
            raise ValueError(f"reduction must be 'mean' or 'none'; got {reduction!r}")
        if self.config.image_features:
            batch = batch | {OBS_IMAGES: [batch[key] for key in self.config.image_features]}
        predicted, (mean, log_variance) = self.model(batch)
        error = F.l1_loss(predicted, batch[ACTION], reduction="none")
        loss = mean_over_valid(error, batch["action_is_pad"])
        parts = {"l1_loss": loss.mean().item()}
        if self.config.use_vae and mean is not None and log_variance is not None:
            divergence = _kl_from_standard_normal(mean, log_variance)
            parts["kld_loss"] = divergence.mean().item()
            loss = loss + self.config.kl_weight * divergence
        return loss, parts


def _kl_from_standard_normal(
    mean: Float[Tensor, "batch latent"], log_variance: Float[Tensor, "batch latent"]
) -> Float[Tensor, " batch"]:
    """Divergence of the latent's distribution (https://arxiv.org/abs/1312.6114, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1)
