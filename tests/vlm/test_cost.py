"""What scoring costs: counted beforehand as it is counted while it happens."""

from pathlib import Path

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_tiny_vlm
from lerobot_topreward.vlm.cost import CostModel, load_cost_model, operations_per_second
from lerobot_topreward.vlm.identity import VlmConfig, identify
from lerobot_topreward.vlm.loading import Vlm, load_vlm
from lerobot_topreward.vlm.one_pass import OnePassScorer
from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

TEXTS = ("pick up the cube", "x")
PREFIXES = [1, 2, 5, 9, 13, 18, 24]


@pytest.fixture(
    params=[TinyConfig(), TinyConfig(hidden=96, heads=6, kv_heads=3, head_dim=24, layers=5)]
)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Vlm, CostModel]:
    config = VlmConfig(vlm=str(build_tiny_vlm(tmp_path / "vlm", config=request.param)))
    identity = identify(config)
    return load_vlm(config, identity), load_cost_model(identity)


@pytest.fixture
def clip() -> Clip:
    frames = np.random.default_rng(0).integers(0, 256, (24, 96, 128, 3), dtype=np.uint8)
    return Clip(Segment(0, 0, 24, TEXTS[0]), 2.0, frames, np.arange(24), np.arange(24))


def test_tokens_and_operations_are_those_of_a_pass(
    checkpoint: tuple[Vlm, CostModel], clip: Clip
) -> None:
    vlm, model = checkpoint
    tokens = []
    vlm.model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: tokens.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    with FlopCounterMode(display=False) as counter:
        OnePassScorer(vlm).score(clip, PREFIXES, TEXTS)
    cost = model.measure_pass(size=(96, 128), prefixes=PREFIXES, instructions=TEXTS)
    assert cost.tokens == pytest.approx(sum(tokens), rel=0.02)
    # The counter does not know the kernel of attention.
    model._seen = model._image_seen = 0.0
    products = model.measure_pass(size=(96, 128), prefixes=PREFIXES, instructions=TEXTS).operations
    assert products == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert cost.operations > products


@pytest.mark.slow
def test_one_forward_per_prefix_costs_more(checkpoint: tuple[Vlm, CostModel], clip: Clip) -> None:
    vlm, model = checkpoint
    with FlopCounterMode(display=False) as counter:
        PerPrefixScorer(vlm).score(clip, PREFIXES, TEXTS)
    model._seen = model._image_seen = 0.0
    cost = model.measure_pass(
        size=(96, 128), prefixes=PREFIXES, instructions=TEXTS, one_by_one=True
    )
    assert cost.operations == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_costs_add_up(checkpoint: tuple[Vlm, CostModel]) -> None:
    _, model = checkpoint
    short = model.measure_pass(size=(64, 64), prefixes=[2], instructions=["x"])
    long = model.measure_pass(size=(64, 64), prefixes=[2, 8], instructions=["x"])
    both = short + long
    assert both.tokens == short.tokens + long.tokens
    assert both.cache == long.cache == 4 * short.cache
    assert both.operations == short.operations + long.operations


def test_the_speed_of_a_device_is_measured() -> None:
    assert 1e8 < operations_per_second("cpu", "float32") < 1e15
