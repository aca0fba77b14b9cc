"""Whether a checkpoint fits, asked before it is loaded."""

import psutil
import torch

from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.vlm.identity import VlmConfig, VlmIdentity

_PUBLISHED = {  # bytes of the weights in bf16, from the files of the Hub's repositories
    "Qwen/Qwen3-VL-32B-Instruct": 66.7e9,
    "Qwen/Qwen3-VL-8B-Instruct": 17.5e9,
    "Qwen/Qwen3-VL-4B-Instruct": 8.9e9,
    "Qwen/Qwen3-VL-2B-Instruct": 4.3e9,
}
# Bytes of a parameter; with quantization on average, since embeddings stay as they are.
_ITEM_SIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "8bit": 1.1, "4bit": 0.64}


def stored_bytes(identity: VlmIdentity) -> int:
    """Size of the weight files, in bytes; 0 where it cannot be known without a network."""
    if identity.folder is not None:
        return sum(path.stat().st_size for path in identity.folder.glob("*.safetensors"))
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        with translate_errors(repo_id=identity.name, option="vlm", repo_type="model"):
            info = HfApi().model_info(
                identity.name, revision=identity.revision, files_metadata=True
            )
    except (UserError, OfflineModeIsEnabled):
        return 0  # cached and offline: loading will tell
    files = info.siblings or []
    return sum(f.size or 0 for f in files if f.rfilename.endswith(".safetensors"))


def needed_bytes(identity: VlmIdentity, *, stored: int, stored_dtype: str) -> int:
    """Bytes that the weights take in memory."""
    size = _ITEM_SIZE[identity.quantize or identity.dtype]
    return int(stored * size / _ITEM_SIZE.get(stored_dtype, 2))


def available_bytes(config: VlmConfig, device: torch.device) -> int:
    """Free memory where the weights would go."""
    host = psutil.virtual_memory().available
    if device.type != "cuda":
        return host
    gpus = range(torch.cuda.device_count()) if config.device_map else [device.index or 0]
    free = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
    return free + (host if config.device_map else 0)  # accelerate spills what is left to the host


def require_memory(identity: VlmIdentity, *, needed: int, available: int) -> None:
    """Refuse a checkpoint that cannot fit, and name one that can.

    Raises:
        UserError: needed exceeds available.
    """
    if needed <= available:
        return
    scale = _ITEM_SIZE[identity.dtype] / 2
    fitting = [name for name, size in _PUBLISHED.items() if size * scale * 1.2 <= available]
    fix = f"`vlm={fitting[0]}` would fit" if fitting else "no published Qwen3-VL would fit"
    if identity.quantize is None:
        fix += ", or try `quantize=4bit`"
    raise UserError(
        f"`vlm='{identity.name}'` needs {needed / 1e9:.1f} GB for its weights in "
        f"{identity.quantize or identity.dtype} and {available / 1e9:.1f} GB are free; {fix}"
    )
