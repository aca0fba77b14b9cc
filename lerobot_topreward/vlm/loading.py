"""Loading a checkpoint, once it is known to be the right one and to fit."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from accelerate.utils import align_module_device
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from jaxtyping import Float
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoProcessor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeForConditionalGeneration,
)

from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.vlm.identity import (
    VlmConfig,
    VlmIdentity,
    identify,
    resolve_device,
    weight_bytes,
)
from lerobot_topreward.vlm.images import LinearPatches
from lerobot_topreward.vlm.prompts import ANSWERS, PROMPT_PREFIX
from lerobot_topreward.vlm.published import ITEM_SIZE, ROOM, SIZES, available_bytes

_SLICE = 1 << 14  # words of the vocabulary whose head is in float32 at a time
_PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"


@dataclass(frozen=True, slots=True)
class Prompting:
    """What is needed to write a checkpoint's prompts and to read its answers, without its weights."""

    processor: Any  # Qwen3VLProcessor
    prologue: str  # the text before the video
    answers: tuple[int, int]  # token ids of " True" and " False"


@dataclass(frozen=True, slots=True)
class Vlm:
    """A loaded checkpoint and what is needed to ask it."""

    # transformers sets and wraps their parts dynamically, beyond what its annotations say.
    model: Any  # Qwen3VLForConditionalGeneration or Qwen3VLMoeForConditionalGeneration
    processor: Any  # Qwen3VLProcessor
    prologue: str  # the text before the video
    answers: tuple[int, int]  # token ids of " True" and " False"

    @property
    def device(self) -> torch.device:
        """Where the token embeddings are, and so where inputs go."""
        return self.model.get_input_embeddings().weight.device

    def read_answers(self, hidden: Float[Tensor, "places hidden"]) -> Float[Tensor, "places 2"]:
        """Read log P(" True") and log P(" False") off the last hidden states, nats.

        The head is float32 whatever the model is: in bfloat16 a logit between 16 and 32 is a
        multiple of 0.125, as much as a step of a task is worth. It is converted a slice of the
        vocabulary at a time, so that memory does not hold it twice.
        """
        head = self.model.lm_head
        with align_module_device(head):  # a head that accelerate keeps elsewhere
            states = hidden.to(head.weight.device, torch.float32)
            if not head.weight.is_floating_point():  # quantized, too
                return torch.log_softmax(head(hidden).float(), dim=-1)[:, list(self.answers)]
            sums = [
                torch.logsumexp(states @ words.float().T, dim=-1)
                for words in head.weight.split(_SLICE)
            ]
            logits = states @ head.weight[list(self.answers)].float().T
        return logits - torch.logsumexp(torch.stack(sums), dim=0)[:, None]


def load_vlm(config: VlmConfig, identity: VlmIdentity | None = None) -> Vlm:
    """Load a checkpoint: safetensors only, no remote code.

    Raises:
        UserError: it is missing, of another architecture, too large, or cannot be asked.
    """
    identity = identity or identify(config)
    source, pinned = _source(identity)
    settings, prompting = load_settings(identity), load_prompting(identity)
    device = resolve_device(config.device)
    needed = needed_bytes(identity, stored=stored_bytes(identity), stored_dtype=dtype_of(settings))
    require_memory(identity, needed=needed, available=available_bytes(config, device))
    model_class: Any = Qwen3VLForConditionalGeneration
    if settings.model_type == "qwen3_vl_moe":
        model_class = Qwen3VLMoeForConditionalGeneration
    # transformers draws its own bar; ours counts episodes.
    transformers.utils.logging.disable_progress_bar()
    with translate_errors(repo_id=identity.name, option="vlm", repo_type="model"):
        model = model_class.from_pretrained(
            source,
            dtype=getattr(torch, identity.dtype),
            device_map=config.device_map or {"": device},
            quantization_config=_quantization(identity),
            use_safetensors=True,
            attn_implementation="sdpa",
            **pinned,
        )
    if config.device_map is None:  # else accelerate's hooks must see the convolution itself
        model.model.visual.patch_embed = LinearPatches(model.model.visual.patch_embed.proj)
    return Vlm(model.eval(), prompting.processor, prompting.prologue, prompting.answers)


def load_settings(identity: VlmIdentity) -> Any:
    """Read a checkpoint's configuration, a Qwen3VLConfig or Qwen3VLMoeConfig.

    Raises:
        UserError: it is missing.
    """
    source, pinned = _source(identity)
    with translate_errors(repo_id=identity.name, option="vlm", repo_type="model"):
        return AutoConfig.from_pretrained(source, **pinned)


def load_prompting(identity: VlmIdentity) -> Prompting:
    """Load a checkpoint's processor alone, a few MB.

    Raises:
        UserError: it is missing, or cannot be asked.
    """
    source, pinned = _source(identity)
    with translate_errors(repo_id=identity.name, option="vlm", repo_type="model"):
        processor = AutoProcessor.from_pretrained(source, **pinned)
    prologue, answers = check_processor(identity.name, processor)
    return Prompting(processor, prologue, answers)


def _source(identity: VlmIdentity) -> tuple[str, dict[str, Any]]:
    """Where a checkpoint is, and what pins it there."""
    if identity.folder is not None:
        return str(identity.folder), {}
    return identity.name, {"revision": identity.revision}


def check_processor(name: str, processor: Any) -> tuple[str, tuple[int, int]]:
    """Find the text before the video and the answers' tokens.

    The prompt is the chat template's user turn cut at the first end of turn, so that the model
    continues the user's own sentence: the paper's ablation loses half the VOC with a full template.

    Raises:
        UserError: an answer is not one token here, or the template does not place a video.
    """
    tokenizer = processor.tokenizer
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in ANSWERS]
    for answer, tokens in zip(ANSWERS, ids, strict=True):
        if len(tokens) != 1:
            raise UserError(
                f"`vlm='{name}'`: the answer '{answer}' is {len(tokens)} tokens in its tokenizer and "
                "must be one; use a checkpoint with Qwen's own tokenizer"
            )
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": PROMPT_PREFIX}]}
    text = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=False)
    text = str(text).split(tokenizer.eos_token)[0]
    if text.count(_PLACEHOLDER) != 1 or not text.endswith(PROMPT_PREFIX):
        raise UserError(f"`vlm='{name}'`: its chat template does not place a video before the text")
    return text.split(_PLACEHOLDER)[0], (ids[0][0], ids[1][0])


def _quantization(identity: VlmIdentity) -> transformers.BitsAndBytesConfig | None:
    if identity.quantize is None:
        return None
    try:
        import bitsandbytes  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"`quantize={identity.quantize}` needs bitsandbytes; "
            "install it with: pip install 'lerobot-topreward[quant]'"
        ) from None
    return transformers.BitsAndBytesConfig(
        load_in_4bit=identity.quantize == "4bit",
        load_in_8bit=identity.quantize == "8bit",
        bnb_4bit_compute_dtype=getattr(torch, identity.dtype),
    )


def stored_bytes(identity: VlmIdentity) -> int:
    """Size of the weight files, in bytes; 0 where it cannot be known without a network."""
    if identity.folder is not None:
        return weight_bytes(identity.folder)
    try:
        with translate_errors(repo_id=identity.name, option="vlm", repo_type="model"):
            info = HfApi().model_info(
                identity.name, revision=identity.revision, files_metadata=True
            )
    except (UserError, OfflineModeIsEnabled):
        return 0  # cached and offline: loading will tell
    files = info.siblings or []
    return sum(f.size or 0 for f in files if f.rfilename.endswith(".safetensors"))


def dtype_of(settings: Any) -> str:
    """The dtype in which a checkpoint's weights are stored, by its configuration."""
    return str(settings.dtype or "bfloat16").removeprefix("torch.")


def needed_bytes(identity: VlmIdentity, *, stored: int, stored_dtype: str) -> int:
    """Bytes that the weights take in memory."""
    size = ITEM_SIZE[identity.quantize or identity.dtype]
    return int(stored * size / ITEM_SIZE.get(stored_dtype, 2))


def require_memory(identity: VlmIdentity, *, needed: int, available: int) -> None:
    """Refuse a checkpoint that cannot fit, and name one that can.

    Raises:
        UserError: needed exceeds available.
    """
    if needed <= available:
        return
    scale = ITEM_SIZE[identity.dtype] / 2
    fitting = [name for name, size in SIZES.items() if size * scale * ROOM <= available]
    fix = f"`vlm={fitting[0]}` would fit" if fitting else "no published Qwen3-VL would fit"
    if identity.quantize is None:
        fix += ", or try `quantize=4bit`"
    raise UserError(
        f"`vlm='{identity.name}'` needs {needed / 1e9:.1f} GB for its weights in "
        f"{identity.quantize or identity.dtype} and {available / 1e9:.1f} GB are free; {fix}"
    )
