"""What the serve-args command is asked for."""

from dataclasses import dataclass
from typing import Literal

from lerobot_topreward.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ServeArgsConfig:
    """Print the command that starts a vLLM server for label --server: one line, for a shell."""

    vlm: str = "Qwen/Qwen3-VL-8B-Instruct"  # Hub id, or a folder on the server
    vlm_revision: str | None = None  # branch, tag or commit on the Hub
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: the checkpoint's own
    server_video: Literal["exact", "images"] = "exact"  # images: for models that are no Qwen3-VL
    max_images: int = 256  # of one episode
    max_tokens: int = 32768  # of one prompt; a Qwen3-VL video has 12,288 and some text
    port: int = 8000  # that it listens on

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_images", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1; got {getattr(self, name)}")
        if not 1 <= self.port <= 65535:
            raise UserError(f"`port` must be 1..65535; got {self.port}")
