"""Keep weights as they are although LeRobot's trainer normalises them over every batch.

`lerobot_train.update_policy` computes `sum(w * l) / (sum(w) + 1e-6)`. Weights whose mean over the
dataset is 1 must not be divided by their sum over the batch: a batch of bad frames would count as
much as a batch of good ones. So a weighter puts a factor into the batch, and the seam multiplies
the losses by it before LeRobot divides; what is left is `mean(w * l)`.
"""

from jaxtyping import Float
from torch import Tensor

BATCH_SCALE = "topreward.batch_scale"  # key in the batch; without it, LeRobot's quotient stays
LEROBOT_EPSILON = 1e-6  # in the denominator of update_policy


def batch_scale(weights: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Return the factor that turns LeRobot's quotient into the mean of the weighted losses.

    Exact for all-zero weights too: the loss is then 0.
    """
    return (weights.sum() + LEROBOT_EPSILON) / len(weights)
