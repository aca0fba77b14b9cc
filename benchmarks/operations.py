"""Where the time of one pass goes on a CPU: what Qwen3-VL-2B's parts cost, and how fast each is.

    python benchmarks/operations.py

Counts the operations of a pass with and without attention, which grows with the square of an
image's tokens, and times single operations at the shapes of 640x480 images, on one core and by its
own clock, so that other work on the machine counts little. No weights are made.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from scoring import INSTRUCTION, SIZES
from torch import Tensor
from torch.nn.functional import gelu, linear, scaled_dot_product_attention
from transformers import AutoProcessor

from lerobot_topreward.simulation.tiny_vlm import TinyConfig, build_model, build_tiny_vlm
from lerobot_topreward.vlm.cost import CostModel

CASES = ((12, (160, 224)), (24, (160, 224)), (24, (256, 320)), (40, (480, 640)))
PREFIXES = 15
REPEATS = 8
DTYPES = (torch.bfloat16, torch.float32)


def main() -> None:
    """Print two tables."""
    count_operations()
    torch.set_num_threads(1)
    print("\noperation at 640x480                            GFLOP/s of one core, "
          "bfloat16 / float32")  # fmt: skip
    with torch.inference_mode():
        rows = [time_operations(dtype) for dtype in DTYPES]
    for name, speed in rows[0].items():
        print(f"{name:<48} {speed:>10.0f} / {rows[1][name]:.0f}")


def count_operations() -> None:
    """Print what a pass over some clips costs."""
    with TemporaryDirectory() as folder:
        tiny = TinyConfig(vocab=2000)  # words as tokens, about as many as Qwen's own makes
        build_tiny_vlm(Path(folder), config=tiny, text=INSTRUCTION)
        processor = AutoProcessor.from_pretrained(folder)
    with torch.device("meta"):
        model = build_model(SIZES["2b"], processor.tokenizer).model
    costs = CostModel(model.config, processor, itemsize=2)
    text, tower = count(model.language_model.layers), count(model.visual.blocks)
    mergers = count(model.visual.merger) + count(model.visual.deepstack_merger_list)
    print("images  size      tokens  operations (1e12): weights, attention, its share")
    for images, size in CASES:
        prefixes = sorted({-(-i * images // PREFIXES) for i in range(1, PREFIXES + 1)})
        cost = costs.measure_pass(size=size, prefixes=prefixes, instructions=[INSTRUCTION])
        blocks = images // 2 + sum(shown % 2 for shown in prefixes)
        patches = blocks * size[0] * size[1] // 16**2
        weights = 2.0 * (text * cost.tokens + (tower + mergers / 4) * patches)
        rest = cost.operations - weights
        print(f"{images:>6}  {size[1]}x{size[0]:<5} {cost.tokens:>6}  {weights / 1e12:>26.1f} "
              f"{rest / 1e12:>10.1f} {rest / cost.operations:>10.0%}")  # fmt: skip


def count(module: torch.nn.Module) -> int:
    """Count a module's parameters."""
    return sum(p.numel() for p in module.parameters())


def time_operations(dtype: torch.dtype) -> dict[str, float]:
    """GFLOP/s of each, of the fastest of some runs in turn."""

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    new, past, patches = 924, 4620, 1200
    query = make(new, 16, 128).transpose(0, 1)[None]
    keys, values = make(1, 8, past + new, 128), make(1, 8, past + new, 128)
    seen = torch.arange(past + new) <= torch.arange(past, past + new)[:, None]
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[
        None, None
    ]
    image = make(3, patches, 16, 64).transpose(1, 2)[:, None]  # queries, keys and values
    up, states, pixels = make(6144, 2048), make(new, 2048), make(3 * patches, 1024)
    widen, inner = make(4096, 1024), make(3 * patches, 4096)
    twice = states.repeat(2, 1)

    def repeated() -> Tensor:
        every, each = (heads.repeat_interleave(2, dim=1) for heads in (keys, values))
        return scaled_dot_product_attention(query, every, each, attn_mask=mask)

    attention = 4.0 * 16 * 128 * new * (past + new)
    runs: dict[str, tuple[float, Callable[[], Tensor]]] = {
        "text, product of 924 tokens": (2.0 * new * up.numel(), lambda: linear(states, up)),
        "text, product of 1848 tokens": (4.0 * new * up.numel(), lambda: linear(twice, up)),
        "text, attention, mask, as it is": (attention, repeated),
        "text, attention, mask, heads not repeated": (
            attention,
            lambda: scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, enable_gqa=True
            ),
        ),
        "text, attention, no mask, heads not repeated": (
            attention,
            lambda: scaled_dot_product_attention(query, keys, values, enable_gqa=True),
        ),
        "vision, product of 3 images": (
            2.0 * 3 * patches * widen.numel(),
            lambda: linear(pixels, widen),
        ),
        "vision, that product's GELU, as if it were one": (
            2.0 * 3 * patches * widen.numel(),
            lambda: gelu(inner, approximate="tanh"),
        ),
        "vision, attention in an image": (
            4.0 * 16 * 64 * patches**2,
            lambda: scaled_dot_product_attention(image[0], image[1], image[2]),
        ),
    }
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS + 1):  # the first warms up: it may be the fastest, but hardly is
        for name, (_, run) in runs.items():
            began = time.thread_time()
            run()
            best[name] = min(best[name], time.thread_time() - began)
    return {name: operations / best[name] / 1e9 for name, (operations, _) in runs.items()}


if __name__ == "__main__":
    main()
