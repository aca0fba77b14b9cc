"""The serve-args command: how a vLLM server is started that answers as the built-in scorer does."""

import json
import shlex

from rich.console import Console
from rich.text import Text

from lerobot_topreward.serve_args.config import ServeArgsConfig
from lerobot_topreward.vlm.identity import find_folder
from lerobot_topreward.vlm.server.config import Video

# A video is its bare token: vLLM puts the blocks with their times in its place. The checkpoint's own
# template writes vision start and end around it, which transformers below 5.10 dropped and later
# versions keep (https://github.com/vllm-project/vllm/issues/46817); the paper's scores are without.
# The last turn has no end, so that the model goes on with the user's own sentence.
# It is one line: vLLM takes a template in place of the name of a file, and some versions replace
# backslashes in it. Jinja reads \n in its strings, and takes a line break there, too.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    r'{{ "<|im_start|>" + message.role + "\n" }}'
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    '{% if part.type == "video" %}<|video_pad|>'
    '{% elif part.type == "image" %}<|vision_start|><|image_pad|><|vision_end|>'
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    r'{% if not loop.last or add_generation_prompt %}{{ "<|im_end|>\n" }}{% endif %}'
    "{% endfor %}"
    r'{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}'
)


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


def vllm_command(
    model: str,
    *,
    video: Video,
    name: str | None = None,
    max_images: int,
    max_tokens: int,
    dtype: str = "auto",
    revision: str | None = None,
    port: int = 8000,
) -> list[str]:
    """The words of the command.

    Args:
        model: Hub id, or a folder on the server.
        video: how it will be asked.
        name: that it is served under, as where it lies on a server is nobody's business.
        max_images: of one request.
        max_tokens: of one prompt.
        dtype: of the weights.
        revision: on the Hub.
        port: that it listens on.
    """
    command = ["vllm", "serve", model, "--port", str(port)]
    if revision is not None:
        command += ["--revision", revision]
    if name is not None:
        command += ["--served-model-name", name]
    if video == "exact":
        command += ["--chat-template", CHAT_TEMPLATE]
        command += ["--chat-template-content-format", "openai", "--trust-request-mm-kwargs"]
    command += ["--dtype", dtype, "--max-model-len", str(max_tokens)]
    command += ["--limit-mm-per-prompt", json.dumps({"image": max_images, "video": 1})]
    return command
