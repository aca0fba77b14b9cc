"""The published Qwen3-VL checkpoints: how large they are, what is known of them, and which fits."""

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psutil

from lerobot_topreward.vlm.identity import VlmConfig, multiplies_bfloat16, resolve_device

if TYPE_CHECKING:
    import torch

# Bytes of the weights in bfloat16, from the files of the Hub's repositories; the best judge first.
SIZES = {
    "Qwen/Qwen3-VL-32B-Instruct": 66.7e9,
    "Qwen/Qwen3-VL-8B-Instruct": 17.5e9,
    "Qwen/Qwen3-VL-4B-Instruct": 8.9e9,
    "Qwen/Qwen3-VL-2B-Instruct": 4.3e9,
}
# VOC on real episodes, and on their first frame repeated: -1..1. Source: the sweep of TOPReward's
# authors over LeRobot episodes, in https://github.com/TOPReward/TOPReward.
_VOCS = {
    "Qwen/Qwen3-VL-32B-Instruct": (0.89, 0.05),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": (0.95, 0.85),
    "Qwen/Qwen3-VL-8B-Instruct": (0.95, 0.99),
}
# Bytes of a parameter; with quantization on average, since embeddings stay as they are.
ITEM_SIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "8bit": 1.1, "4bit": 0.64}
ROOM = 1.15  # times the weights' size: what a pass keeps beside them


def describe_bias(vlm: str) -> str | None:
    """Say how far the reward of a published checkpoint follows a video's length; None of others."""
    if vlm not in _VOCS:
        return "nothing is published of its length bias" if vlm in SIZES else None
    real, static = _VOCS[vlm]
    what = "mostly follows the video" if static < real / 2 else "rises with a video's length"
    return (
        f"the authors of TOPReward measured that the reward {what}: VOC {real:.2f} on real "
        f"episodes, {static:.2f} on their first frame repeated"
    )


def available_bytes(config: VlmConfig, device: "torch.device") -> int:
    """Free memory where the weights would go."""
    import torch

    host = psutil.virtual_memory().available
    if device.type != "cuda":
        return host
    gpus = range(torch.cuda.device_count()) if config.device_map else [device.index or 0]
    free = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
    return free + (host if config.device_map else 0)  # accelerate spills what is left to the host


def choose_checkpoint(config: VlmConfig) -> tuple[VlmConfig, str]:
    """Choose the best published checkpoint that fits this machine; on a CPU the smallest.

    Args:
        config: with ``vlm="auto"``.

    Returns:
        The configuration with the checkpoint named, and why in a sentence.

    Raises:
        UserError: the device is not there.
    """
    device = resolve_device(config.device)
    free = available_bytes(config, device)
    best, *_, small, smallest = SIZES
    on_cpu = device.type == "cpu"
    # `identify` has the same rule.
    half = not on_cpu or multiplies_bfloat16()
    dtype = ("bfloat16" if half else "float32") if config.dtype == "auto" else config.dtype
    # On a CPU larger ones take hours.
    ways = [(name, config.quantize) for name in ((small, smallest) if on_cpu else SIZES)]
    # Four bits of the best come before all of the next one; bitsandbytes' kernels need CUDA.
    if config.quantize is None and device.type == "cuda" and find_spec("bitsandbytes"):
        ways.insert(1, (best, "4bit"))
    needed = [SIZES[name] * ITEM_SIZE[quantize or dtype] / 2 * ROOM for name, quantize in ways]
    last = len(ways) - 1
    place = last if on_cpu else next((i for i, size in enumerate(needed) if size <= free), last)
    said = [name + (f" in {quantize}" if quantize else "") for name, quantize in ways]
    why = f"{said[place]}, which takes {needed[place] / 1e9:.0f} of {free / 1e9:.0f} GB free"
    if place:
        why += f"; {said[place - 1]} would take {needed[place - 1] / 1e9:.0f}"
        why += ", and hours on a CPU" if on_cpu else ""
    name, quantize = ways[place]
    return replace(config, vlm=name, quantize=quantize), why
