"""Tiny Qwen3-VL checkpoints: the real architecture, processor and file layout at a test's size.

They are built here rather than fetched, so that every code path that a real checkpoint takes is
tested offline, and so that the demo can train one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from lerobot_topreward.vlm.prompts import ANSWERS, question

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif item['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VIDEO_BUDGET = {"longest_edge": 25165824, "shortest_edge": 4096}  # as the Hub's Qwen3-VL has it


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyConfig:
    """Sizes of a tiny checkpoint; the defaults make 0.4 M parameters in about a second."""

    hidden: int = 64  # text width
    intermediate: int = 128  # text MLP width (of one expert, in a mixture)
    layers: int = 3  # text layers
    heads: int = 4  # query heads
    kv_heads: int = 2  # key and value heads
    head_dim: int = 16  # per head; half of it is split into mRoPE's three sections
    vision_hidden: int = 64  # vision width
    vision_layers: int = 3  # vision blocks
    vision_heads: int = 4  # vision heads
    vision_intermediate: int | None = None  # vision MLP width; twice vision_hidden if None
    deepstack: tuple[int, ...] = (0, 1)  # vision blocks whose features join the first text layers
    grid: int = 8  # learned vision positions per side
    experts: int = 0  # > 0 makes a mixture of experts (qwen3_vl_moe)
    vocab: int = 400  # byte-level BPE tokens
    embeddings: int | None = None  # rows of the embedding; as many as there are tokens if None
    tied: bool = False  # whether the output shares the input's embedding
    seed: int = 0  # of the random weights
    spread: float = 0.02  # their standard deviation; larger ones make curves that are not flat

    def __post_init__(self) -> None:
        """Check the rules that the architecture sets."""
        if self.head_dim % 4 or self.head_dim < 8:
            raise ValueError(f"head_dim must be a multiple of 4, at least 8; got {self.head_dim}")
        if len(self.deepstack) > self.layers or any(
            d >= self.vision_layers for d in self.deepstack
        ):
            raise ValueError(f"deepstack {self.deepstack} does not fit the numbers of layers")


def build_tiny_vlm(folder: Path, *, config: TinyConfig | None = None, text: str = "") -> Path:
    """Write a random tiny checkpoint that ``AutoProcessor`` and ``from_pretrained`` load.

    Its tokenizer is learned from `text`, too, such as the instructions that it will see.
    """
    config = config or TinyConfig()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(text, vocab=config.vocab)
    model = build_model(config, tokenizer)
    model.save_pretrained(folder)
    processor = Qwen3VLProcessor(
        # Real checkpoints normalize images and videos alike; vLLM takes that for granted.
        image_processor=Qwen2VLImageProcessor(
            patch_size=16, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=VIDEO_BUDGET),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def build_model(
    config: TinyConfig, tokenizer: Qwen2Tokenizer
) -> Qwen3VLForConditionalGeneration | Qwen3VLMoeForConditionalGeneration:
    """A model with random weights of the given sizes, in fp32."""
    half = config.head_dim // 2
    side = half * 5 // 16  # 24, 20, 20 at Qwen's own head_dim of 128
    text: dict[str, Any] = {
        "vocab_size": config.embeddings or len(tokenizer),
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000.0,
            "mrope_section": [half - 2 * side, side, side],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": config.tied,
        "initializer_range": config.spread,
    }
    if config.experts:
        text |= {
            "num_experts": config.experts,
            "num_experts_per_tok": min(2, config.experts),
            "moe_intermediate_size": config.intermediate,
            "norm_topk_prob": True,  # as in the Hub's checkpoints: vLLM reads it
        }
    vision = {
        "depth": config.vision_layers,
        "hidden_size": config.vision_hidden,
        "intermediate_size": config.vision_intermediate or 2 * config.vision_hidden,
        "num_heads": config.vision_heads,
        "out_hidden_size": config.hidden,
        "num_position_embeddings": config.grid**2,
        "deepstack_visual_indexes": list(config.deepstack),
        "initializer_range": config.spread,
    }
    settings: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": config.tied,
    }
    for name in ("image_pad", "video_pad", "vision_start", "vision_end"):
        token = tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        settings[f"{name.removesuffix('_pad')}_token_id"] = token
    torch.manual_seed(config.seed)
    if config.experts:
        return Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(**settings)).eval()
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**settings)).eval()


def _tokenizer(text: str, *, vocab: int) -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen's special tokens, in which each answer is one token."""
    corpus = [question("pick up the red cube and put it on the goal"), text]
    corpus += [f"user\n<{quarter / 4:.1f} seconds>" for quarter in range(120)]
    # Often enough that " True" and " False" end as one token each, as they are in Qwen's own.
    corpus += [answer for answer in ANSWERS for _ in range(500)]
    learned = Qwen2Tokenizer().train_new_from_iterator(
        corpus, vocab_size=vocab, new_special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    learned.eos_token = "<|im_end|>"
    return learned
