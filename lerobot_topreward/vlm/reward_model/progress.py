"""A reward model's progress as log-probabilities, so that everything after the scores takes it."""

import numpy as np
from jaxtyping import Float, Float32

from lerobot_topreward.records import LogProbs

LEAST = 1e-6  # a progress nearer to 0 or 1 than this is clipped, or its log would be infinite


def log_probs(
    progress: Float[np.ndarray, "instructions prefixes"],
    success: Float[np.ndarray, "instructions prefixes"] | None = None,
) -> LogProbs:
    """Store a progress p as log p and log(1 - p): `scale=prob` makes p of it again.

    Args:
        progress: p, 0..1.
        success: the probability of success, 0..1, of a model that gives it.
    """
    return LogProbs(
        true=_log(progress),
        false=_log(1 - progress.astype(np.float64)),
        success=None if success is None else _log(success),
    )


def _log(values: Float[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "rows columns"]:
    return np.log(np.clip(values.astype(np.float64), LEAST, 1 - LEAST)).astype(np.float32)
