"""The serve-args command: how a vLLM server is started that answers as the built-in scorer does."""

import shlex

from rich.console import Console
from rich.text import Text

from lerobot_topreward.serve_args.config import ServeArgsConfig
from lerobot_topreward.vlm.identity import find_folder
from lerobot_topreward.vlm.server.vllm_command import vllm_command


def serve_args(config: ServeArgsConfig, *, console: Console) -> int:
    """Print the command, on one line and nothing else; returns the exit code.

    Raises:
        UserError: `vlm` can be neither a folder nor a Hub id.
    """
    folder = find_folder(config.vlm)
    command = vllm_command(
        config.vlm if folder is None else str(folder.resolve()),
        name=None if folder is None else folder.resolve().name,
        video=config.server_video,
        max_images=config.max_images,
        max_tokens=config.max_tokens,
        dtype=config.dtype,
        revision=config.vlm_revision,
        port=config.port,
    )
    console.print(Text(shlex.join(command)), soft_wrap=True)
    return 0
