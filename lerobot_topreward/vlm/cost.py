"""What scoring costs, before a checkpoint is loaded: tokens, operations, seconds and memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from lerobot_topreward.vlm.identity import VlmIdentity, resolve_device
from lerobot_topreward.vlm.loading import dtype_of, load_prompting, load_settings
from lerobot_topreward.vlm.prompts import question

# Share of a large matrix product's speed that a pass of Qwen3-VL-2B reached on two CPU cores, over
# images of 224x160 to 640x480, in bfloat16 and float32: .49 to .75.
_EFFICIENCY = 0.65
_PRODUCT = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # rows of the product that is timed


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one pass, or of several: they add up."""

    tokens: int  # that go through the language model
    operations: float  # floating-point, a multiplication and an addition counting two
    cache: int  # bytes of keys and values: of the largest pass

    def __add__(self, other: "Cost") -> "Cost":
        """Do both, one after the other."""
        return Cost(
            self.tokens + other.tokens,
            self.operations + other.operations,
            max(self.cache, other.cache),
        )


NOTHING = Cost(0, 0.0, 0)


class CostModel:
    """Counts what a pass over a checkpoint does, from its configuration and processor alone."""

    def __init__(self, config: Any, processor: Any, *, itemsize: int) -> None:
        """Take a Qwen3VLConfig, a Qwen3VLProcessor and the bytes of a number."""
        text, vision = config.text_config, config.vision_config
        width, head = text.hidden_size, text.head_dim
        queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
        inner = text.intermediate_size
        if getattr(text, "num_experts", 0):
            inner = text.num_experts_per_tok * text.moe_intermediate_size
        per_layer = width * (queries + 2 * keys) + queries * width + 3 * width * inner
        self._text = 2.0 * text.num_hidden_layers * per_layer  # operations per token
        self._seen = 4.0 * text.num_hidden_layers * queries  # per token and token that it sees
        self._head = 2.0 * text.vocab_size * width  # per answer
        self._cache = 2 * text.num_hidden_layers * keys * itemsize  # bytes per token
        size, merge = vision.hidden_size, int(vision.spatial_merge_size)
        merged = size * merge**2
        mergers = 1 + len(vision.deepstack_visual_indexes)
        per_patch = vision.depth * (4 * size**2 + 2 * size * vision.intermediate_size)
        per_patch += 3 * vision.patch_size**2 * vision.temporal_patch_size * size
        per_merged = mergers * (merged**2 + merged * vision.out_hidden_size)
        self._image = 2.0 * (merge**2 * per_patch + per_merged)  # per image token
        self._image_seen = 4.0 * vision.depth * size * merge**4  # per pair of them in a block
        self._cell = int(vision.patch_size) * merge
        self.processor = processor
        self.stored_dtype = dtype_of(config)

    def count(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def measure_pass(
        self,
        *,
        size: tuple[int, int],
        prefixes: Sequence[int],
        instructions: Sequence[str],
        one_by_one: bool = False,
    ) -> Cost:
        """Count one pass over a clip, see `OnePassScorer`.

        Args:
            size: height and width at which images are shown, pixels.
            prefixes: how many images each shows, ascending.
            instructions: that are asked about.
            one_by_one: a forward for each prefix and instruction instead, see `PerPrefixScorer`.
        """
        if one_by_one:
            alone = NOTHING
            for shown in prefixes:
                for text in instructions:
                    alone += self.measure_pass(size=size, prefixes=[shown], instructions=[text])
            return alone
        image = (size[0] // self._cell) * (size[1] // self._cell)  # tokens
        block = image + 2 + self.count("<10.5 seconds>")
        questions = [self.count(question(text)) for text in instructions]
        shared = prefixes[-1] // 2 * block
        tokens, seen = shared, shared * shared / 2
        images = prefixes[-1] // 2
        for shown in prefixes:
            past, odd = shown // 2 * block, shown % 2 * block
            images += shown % 2
            tokens += odd + sum(questions)
            seen += odd * (past + odd / 2)
            seen += sum(count * (past + odd + count / 2) for count in questions)
        answers = len(prefixes) * len(instructions)
        operations = self._text * tokens + self._seen * seen + self._head * answers
        operations += images * image * (self._image + self._image_seen * image)
        return Cost(tokens, operations, self._cache * shared)


def load_cost_model(identity: VlmIdentity) -> CostModel:
    """Read a checkpoint's configuration and processor, not its weights.

    Raises:
        UserError: they cannot be read.
    """
    settings, processor = load_settings(identity), load_prompting(identity).processor
    return CostModel(settings, processor, itemsize=getattr(torch, identity.dtype).itemsize)


@cache
def operations_per_second(device: str, dtype: str) -> float:
    """Time large matrix products on a device, and take off what a pass does not reach of them."""
    place = resolve_device(device)
    rows = _PRODUCT.get(place.type, 2048)
    a = torch.randn(rows, rows, device=place, dtype=getattr(torch, dtype))
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return _EFFICIENCY * 2.0 * rows**3 / best
