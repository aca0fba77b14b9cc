"""One step of LeRobot's trainer with weights that it does not normalise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from lerobot.utils.sample_weighting import SampleWeighter
from torch import Tensor

from lerobot_topreward.train.nonfinite import TrainingState, stop_unless_finite


class WeightedStep(SampleWeighter):
    """Stands between a weighter, a policy's `forward` and the step that uses both."""

    def __init__(
        self, weighter: SampleWeighter, *, state: TrainingState, accelerator: Accelerator
    ) -> None:
        """Wrap a weighter for one step, which begins with this state."""
        self._weighter = weighter
        self._state = state
        self._accelerator = accelerator
        self._weights: Float[Tensor, " batch"] | None = None

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return what the weighter returns, and remember the weights for the check."""
        self._weights, stats = self._weighter.compute_batch_weights(batch)
        return self._weights, stats

    def get_stats(self) -> dict[str, Any]:
        """Return what the weighter returns."""
        return self._weighter.get_stats()

    @contextmanager
    def forward_of(self, policy: torch.nn.Module) -> Iterator[None]:
        """Check and scale what `policy.forward` returns inside the block.

        Only this one object's `forward` is covered, and only for the step, so that the policy's
        class, its checkpoints, and whatever wraps it (DDP, FSDP, PEFT) are as without us.
        """
        attributes = vars(policy)
        had_own = "forward" in attributes  # accelerate's mixed precision covers it likewise
        forward = policy.forward

        def checked(batch: dict[str, Any], *, reduction: str) -> tuple[Tensor, Any]:
            scale = batch.pop(BATCH_SCALE, None)  # not for the policy
            losses, parts = forward(batch, reduction=reduction)
            self._check(losses, batch)
            return losses if scale is None else losses * scale.expand_as(losses), parts

        attributes["forward"] = checked
        try:
            yield
        finally:
            if had_own:
                attributes["forward"] = forward
            else:
                del attributes["forward"]

    def _check(self, losses: Float[Tensor, " batch"], batch: dict[str, Tensor]) -> None:
        assert self._weights is not None
        if losses.shape != self._weights.shape:
            name = type(self._accelerator.unwrap_model(self._state.policy)).__name__
            raise RuntimeError(
                f"{name}.forward(batch, reduction='none') must return one loss per sample, shape "
                f"{tuple(self._weights.shape)}; got {tuple(losses.shape)}"
            )
        stop_unless_finite(
            losses, self._weights, batch, state=self._state, accelerator=self._accelerator
        )


BATCH_SCALE = "topreward.batch_scale"  # key in the batch; without it, LeRobot's quotient stays


LEROBOT_EPSILON = 1e-6  # in the denominator of update_policy


def batch_scale(weights: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Return the factor that turns LeRobot's quotient into the mean of the weighted losses.

    Exact for all-zero weights too: the loss is then 0.
    """
    return (weights.sum() + LEROBOT_EPSILON) / len(weights)
