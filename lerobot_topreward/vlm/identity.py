"""Which checkpoint is meant, known without loading it: what makes two raw scores comparable."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.files.atomic import write_file
from lerobot_topreward.files.jsonable import read_json_object

if TYPE_CHECKING:
    import torch

ARCHITECTURES = ("qwen3_vl", "qwen3_vl_moe")
BUILTIN = "builtin:so101-demo"
_SMALL = 1 << 24  # bytes; larger files are hashed once and remembered
_LARGE = 1 << 30  # bytes of weights from which float32 costs more than it is worth on a cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmConfig:
    """Which VLM judges, and how it is loaded."""

    # Hub id or folder of a qwen3_vl(_moe) checkpoint; auto takes the best that fits this machine.
    vlm: str = "Qwen/Qwen3-VL-8B-Instruct"
    vlm_revision: str | None = None  # branch, tag or commit on the Hub
    device: str = "auto"  # cuda, cuda:1, mps or cpu; auto takes the first there is
    # auto is bfloat16 on an accelerator, and for a large checkpoint on a cpu that multiplies it
    # itself; else float32. GPUs before Ampere, as a T4, multiply float16 alone fast.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # auto spreads a model over all GPUs, through accelerate.
    device_map: Literal["auto"] | None = None
    quantize: Literal["4bit", "8bit"] | None = None  # with the extra `quant`


@dataclass(frozen=True, slots=True)
class Served:
    """What decides the score of a checkpoint that a server runs, beside the checkpoint."""

    server: str  # its kind and version, "vllm 0.32.0"
    model: str  # the checkpoint's name there
    video: Literal["exact", "images"]  # how it is shown a video
    # paper: the question ends the user's turn; chat: the server's own template, an answer follows
    template: Literal["paper", "chat"]


@dataclass(frozen=True, slots=True)
class VlmIdentity:
    """One checkpoint, pinned."""

    name: str  # Hub id, or the folder's own name, without where it lies
    revision: str  # Hub commit, or a digest of the folder's files
    dtype: str  # of the weights in memory; "auto" where a server chose it
    quantize: str | None
    folder: Path | None  # None for the Hub
    served: Served | None = None  # None: it runs in this process
    reward_model: str | None = None  # its type, where it is one of LeRobot's reward models


def resolve_device(device: str) -> "torch.device":
    """Turn the option `device` into a device that is there.

    Raises:
        UserError: it is not there, or is no device.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(
            f"`device='{device}'` is no device; it takes: auto, cuda, mps, cpu"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"`device={device}`: PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "GPUs here; use `device=cpu`, or check the driver with nvidia-smi"
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("`device=mps`: there is no Apple GPU here; use `device=cpu`")
    return found


def identify(config: VlmConfig) -> VlmIdentity:
    """Pin a checkpoint without loading it, and check that it is one we can use.

    Raises:
        UserError: it does not exist, cannot be reached, or has another architecture.
    """
    dtype, device = config.dtype, resolve_device(config.device)
    if dtype == "auto":
        folder = find_folder(config.vlm)
        small = folder is not None and weight_bytes(folder) < _LARGE
        exact = device.type == "cpu" and (small or not multiplies_bfloat16())
        dtype = "float32" if exact else "bfloat16"
    return _pin(config, dtype=dtype, weights=True)


def identify_processor(config: VlmConfig) -> VlmIdentity:
    """Pin a checkpoint whose weights need not be here, by its other files.

    Raises:
        UserError: see `identify`.
    """
    return _pin(config, dtype=config.dtype, weights=False)


def _pin(config: VlmConfig, *, dtype: str, weights: bool) -> VlmIdentity:
    folder = find_folder(config.vlm)
    if folder is not None:
        _check_architecture(config.vlm, folder / "config.json")
        revision = _digest(config.vlm, folder, weights=weights)
    else:
        from huggingface_hub import hf_hub_download

        from lerobot_topreward.hub_errors import translate_errors

        with translate_errors(repo_id=config.vlm, option="vlm", repo_type="model"):
            found = Path(hf_hub_download(config.vlm, "config.json", revision=config.vlm_revision))
        _check_architecture(config.vlm, found)
        revision = found.parent.name  # .../snapshots/<commit>/config.json
    name = config.vlm if folder is None or config.vlm == BUILTIN else folder.resolve().name
    return VlmIdentity(name, revision, dtype, config.quantize, folder)


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; where it does not, float32 is faster."""
    import torch

    # AVX512-BF16 or AMX. These names are private, so they may go.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    found = [getattr(torch.cpu, name, None) for name in names]
    return any(is_supported() for is_supported in found if is_supported is not None)


def weight_bytes(folder: Path) -> int:
    """Size of a checkpoint's weight files, bytes."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def find_folder(vlm: str) -> Path | None:
    """Find the folder that `vlm` names; None for the Hub.

    Raises:
        UserError: it can be neither.
    """
    if vlm == BUILTIN:
        return Path(str(files("lerobot_topreward.demo"))) / "assets" / "vlm"
    if vlm.startswith("builtin:"):
        raise UserError(f"`vlm='{vlm}'` is not known; the built-in one is {BUILTIN}")
    path = Path(vlm).expanduser()
    if path.is_dir():
        return path
    if vlm.count("/") != 1 or vlm.startswith((".", "/", "~")):
        raise UserError(f"`vlm='{vlm}'` is neither a folder here nor a Hub id like owner/name")
    return None


def _check_architecture(vlm: str, config: Path) -> None:
    try:
        model_type = json.loads(config.read_text()).get("model_type")
    except (OSError, ValueError):
        raise UserError(
            f"`vlm='{vlm}'` has no readable config.json; give a checkpoint's folder"
        ) from None
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"`vlm='{vlm}'` is a '{model_type}' model; scoring needs {' or '.join(ARCHITECTURES)}, "
            "such as Qwen/Qwen3-VL-8B-Instruct"
        )


def _digest(vlm: str, folder: Path, *, weights: bool) -> str:
    """Hash a checkpoint's files, with its weights or without."""
    kinds = (".json", ".jinja", ".safetensors") if weights else (".json", ".jinja")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in kinds]
    if weights and not any(path.suffix == ".safetensors" for path in paths):
        raise UserError(
            f"`vlm='{vlm}'` has no .safetensors files; convert its weights first "
            "(pickled weights are never loaded)"
        )
    return hash_files(paths, within=folder, named=f"`vlm='{vlm}'`")


def hash_files(paths: Sequence[Path], *, within: Path, named: str) -> str:
    """Hash the files of a checkpoint's folder, all of them whole, to 40 hexadecimal digits.

    Raises:
        UserError: one is no regular file.
    """
    digest = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise UserError(f"{named}: {path} must be a regular file; give a whole checkpoint")
        size = path.stat().st_size
        digest.update(f"{path.relative_to(within)}:{size};".encode())
        digest.update(path.read_bytes() if size <= _SMALL else _large_file_hash(path).encode())
    return digest.hexdigest()[:40]


def _large_file_hash(path: Path) -> str:
    """The sha256 of a file: from its name in the Hub's cache, from our own cache, or computed."""
    from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

    real = path.resolve()
    if real.parent.name == "blobs" and real.parents[2] == Path(HF_HUB_CACHE).resolve():
        return real.name
    status = real.stat()
    key = f"{real}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    cache = Path(HF_HOME) / "lerobot-topreward" / "weights.json"
    try:
        known = read_json_object(cache, advice="Delete it")
    except UserError:
        known = {}  # there is none yet, or it is damaged
    if not re.fullmatch("[0-9a-f]{64}", str(known.get(key))):
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        with suppress(OSError):  # a home that cannot be written costs only time
            write_file(cache, json.dumps(known))
    return known[key]
