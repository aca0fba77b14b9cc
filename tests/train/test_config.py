"""How weights apply where nobody has said so."""

import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import WeightingConfig, from_params


@pytest.mark.parametrize(
    ("params", "streaming", "apply"),
    [
        ({}, False, "sampling"),
        ({"scheme": "filter", "quantile": 0.5}, False, "sampling"),
        ({"scheme": "uniform", "stationary": "drop"}, False, "sampling"),
        ({"scheme": "uniform"}, False, "loss"),  # nothing to choose
        ({"scheme": "rabc"}, False, "loss"),  # as in LeRobot
        ({"normalize": "batch"}, False, "loss"),
        ({}, True, "loss"),
        ({"apply": "loss"}, False, "loss"),
        ({"scheme": "rabc", "apply": "sampling"}, False, "sampling"),
    ],
)
def test_weights_apply_by_sampling_where_frames_can_be_chosen(
    params: dict[str, object], streaming: bool, apply: str
) -> None:
    settled = from_params(params).settle(streaming=streaming)
    assert settled.apply == apply
    assert settled.settle(streaming=streaming) == settled


def test_a_streamed_dataset_is_not_sampled() -> None:
    with pytest.raises(UserError, match=r"`weighting.apply=sampling`.* streamed"):
        WeightingConfig(apply="sampling").settle(streaming=True)
