"""LeRobot's Diffusion Policy with a loss per sample."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel, DiffusionPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES
from torch import Tensor

from lerobot_topreward.policies.padding import mean_over_valid


class PerSampleDiffusionPolicy(DiffusionPolicy):
    """Diffusion Policy whose `forward` takes `reduction`; its checkpoints are the stock ones."""

    def forward(
        self, batch: dict[str, Tensor], reduction: str = "mean"
    ) -> tuple[Float[Tensor, ""] | Float[Tensor, " batch"], None]:
        """Compute the loss of a batch, or of each of its samples; see `PerSampleACTPolicy.forward`.

        `none` draws the same noise and the same diffusion steps as `mean` for the same random
        state. Like the stock policy it has no parts to log.
        """
        if reduction == "mean":
            return super().forward(batch)
        if reduction != "none":
            raise ValueError(f"reduction must be 'mean' or 'none'; got {reduction!r}")
        if self.config.image_features:
            batch = batch | {OBS_IMAGES: self._stack_cameras(batch)}
        return _per_sample_loss(self.diffusion, batch), None

    def _stack_cameras(
        self, batch: dict[str, Tensor]
    ) -> Float[Tensor, "batch obs_steps cameras channels height width"]:
        images = [batch[key] for key in self.config.image_features]
        if self.config.n_obs_steps == 1:  # datasets then have no axis for time
            images = [image.unsqueeze(1) if image.ndim == 4 else image for image in images]
        return torch.stack(images, dim=-4)


def _per_sample_loss(model: DiffusionModel, batch: dict[str, Tensor]) -> Float[Tensor, " batch"]:
    """Denoising error of each sample (https://arxiv.org/abs/2303.04137, Eq. 5).

    `DiffusionModel.compute_loss` returns only the mean. Random numbers are drawn in its order:
    first the noise, then the diffusion steps.
    """
    config = model.config
    condition = model._prepare_global_conditioning(batch)
    actions = batch[ACTION]
    noise = torch.randn(actions.shape, device=actions.device)
    steps = torch.randint(0, config.num_train_timesteps, (len(actions),), device=actions.device)
    scheduler: Any = model.noise_scheduler
    noisy = scheduler.add_noise(actions, noise, steps)
    predicted = model.unet(noisy, steps, global_cond=condition)
    target = noise if config.prediction_type == "epsilon" else actions
    error = F.mse_loss(predicted, target, reduction="none")
    if config.do_mask_loss_for_padding:
        return mean_over_valid(error, batch["action_is_pad"])
    return error.mean(dim=(1, 2))
