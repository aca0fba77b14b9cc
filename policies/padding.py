"""What a sample's loss is when part of its actions lie beyond the end of the episode."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean_over_valid(
    error: Float[Tensor, "batch steps dim"], is_pad: Bool[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """Sum each sample's errors over its valid steps, in units of the batch's mean valid count.

    LeRobot divides the sum over the batch by the number of valid entries *in the batch*, so every
    valid entry counts the same. Dividing each sample by its own count instead would give the few
    valid entries of a sample at the end of an episode more influence than they have there. The
    mean of what is returned is LeRobot's loss; a sample that is all padding has loss 0.
    """
    valid = (~is_pad).unsqueeze(-1)
    entries = valid.sum() * error.shape[-1]
    return (error * valid).sum(dim=(1, 2)) * (len(error) / entries.clamp_min(1))
