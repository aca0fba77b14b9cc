"""What a server's refusal means, and what to do about it."""

import json
import re
from collections.abc import Mapping

from lerobot_topreward.errors import EpisodeError, UserError

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|max_model_len|max_total_tokens|too long|longer than the|"
    r"max(imum)? (prompt|input|model) length|exceed\w* .*token",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(r"at most \d+ (image|video)|too many (image|video)", re.IGNORECASE)
# Said of a model that was loaded without its vision part, by llama.cpp and Ollama with status 500.
_BLIND = re.compile(r"mmproj|image input", re.IGNORECASE)
_UNTRUSTED = re.compile(r"trust.request.mm.kwargs|media_io_kwargs|mm_processor_kwargs")


def refuse(url: str, status: int, content: bytes, *, key: str | None) -> Exception:
    """Make the error for an answer that asking again would not change."""
    said = shorten(content, key=key)
    if status in (401, 403):  # what it says may quote the key
        fix = "it may not be allowed to do this" if key else "give one by `server_key_env=NAME`"
        refused = "the key" if key else "to answer without a key"
        return UserError(f"`server={url}` refuses {refused} ({status}); {fix}")
    if status == 404:
        return UserError(
            f"`server={url}` has no such model or no /v1/chat/completions (404{said}); look at "
            f"{url}/v1/models"
        )
    if 300 <= status < 400:
        return UserError(
            f"`server={url}` redirects ({status}), which is not followed; give the address that it "
            "redirects to"
        )
    if _BLIND.search(said):
        return UserError(
            f"`server={url}` serves a model that sees no images ({status}{said}); serve one that "
            "does, in llama.cpp with its mmproj file"
        )
    if status not in (400, 413, 422):
        return UserError(f"`server={url}` refuses to answer: {status}{said}")
    if _UNTRUSTED.search(said):
        return UserError(
            f"`server={url}` does not take frames with their times ({status}{said}); start it with "
            "what lerobot-topreward serve-args prints, or give `server_video=images`"
        )
    if status == 413 or _TOO_LONG.search(said):
        return EpisodeError(
            f"it is longer than {url} takes ({status}{said}); `max_images`, `sample_fps` or "
            "`max_pixels` show less of it, or give the server a longer window"
        )
    if _TOO_MANY.search(said):
        return EpisodeError(
            f"it has more images than {url} takes ({status}{said}); `max_images` shows fewer, or "
            "raise the server's limit: lerobot-topreward serve-args prints it"
        )
    return EpisodeError(f"{url} refuses it: {status}{said}")


def is_blind(content: bytes) -> bool:
    """Whether a server says that its model sees no images, which asking again will not change."""
    return _BLIND.search(shorten(content, key=None)) is not None


def shorten(content: bytes, *, key: str | None) -> str:
    """What a server says of an error, in one short line that begins with a colon; empty if nothing.

    Where it quotes the key, that is left out.
    """
    text = content[:20_000].decode(errors="replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    for name in ("error", "message", "detail"):
        if isinstance(answer, Mapping) and name in answer:
            answer = answer[name]
    if isinstance(answer, str):
        text = answer
    if key:
        text = text.replace(key, "***")
    line = " ".join(text.split()).replace("`", "'")[:300]
    return f": {line}" if line else ""
