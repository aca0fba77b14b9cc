"""Which servers are asked, and how: all that can be checked before one is reached."""

import os
from dataclasses import dataclass, fields
from typing import Literal
from urllib.parse import urlsplit

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmConfig

Video = Literal["exact", "images"]
MOST_CONCURRENT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Servers that are asked in place of a VLM in this process; all serve the same model."""

    server: tuple[str, ...] = ()  # OpenAI-compatible ones: http://HOST:8000, several share the work
    # exact, as the built-in scorer: vLLM; images: any server. By default exact where it is vLLM.
    server_video: Video | None = None
    server_model: str | None = None  # the model's name there, if it is not the one of --vlm
    server_key_env: str | None = None  # environment variable that holds the key
    concurrency: int = 16  # requests in flight, per server

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before a server is reached."""
        if not self.server:
            for item in fields(self):
                value = getattr(self, item.name)
                if item.name != "server" and value != item.default:
                    raise UserError(f"`{item.name}={value}` needs `server=URL`")
        if not 1 <= self.concurrency <= MOST_CONCURRENT:
            raise UserError(f"`concurrency` must be 1..{MOST_CONCURRENT}; got {self.concurrency}")
        urls = self.urls
        if len(set(urls)) != len(urls):
            raise UserError("`server` names a server twice; name each once")
        if self.server_key_env is not None:
            self.read_key()

    @property
    def urls(self) -> list[str]:
        """The servers' addresses without the last slash and ``/v1``."""
        return [_base_url(url) for url in self.server]

    def read_key(self) -> str | None:
        """Take the key from the environment; it is never shown, not even where it is wrong.

        Raises:
            UserError: there is none, or it cannot be one.
        """
        if self.server_key_env is None:
            return None
        key = os.environ.get(self.server_key_env, "")
        if not key:
            raise UserError(
                f"`server_key_env={self.server_key_env}`: that environment variable is not set; "
                "export it, or name another"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UserError(
                f"`server_key_env={self.server_key_env}`: what that environment variable holds "
                "cannot be a key, with spaces, line breaks or letters beyond ASCII"
            )
        return key

    def check_beside(self, vlm: VlmConfig, **others: object) -> None:
        """Refuse options that are about a VLM in this process.

        Args:
            vlm: the VLM's own options.
            others: by name, None where they are not given.

        Raises:
            UserError: names the option.
        """
        if not self.server:
            return
        given = {"quantize": vlm.quantize, "device_map": vlm.device_map, **others}
        given["device"] = None if vlm.device == "auto" else vlm.device
        for name, value in given.items():
            if value is not None:
                raise UserError(
                    f"`{name}={value}` is about a VLM in this process; with `server`, leave it out "
                    "and start the server so"
                )


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is not None and (parts.username is not None or parts.password is not None):
        raise UserError(  # without the URL: the password is in it
            "`server` must not carry a name or password in its URL; put the key into an environment "
            "variable and name that in `server_key_env`"
        )
    if parts is None or parts.scheme not in ("http", "https") or not host:
        raise UserError(f"`server={url}` must be a URL like http://HOST:8000")
    if parts.query or parts.fragment or any(c.isspace() or not c.isprintable() for c in url):
        raise UserError(
            "`server` must be a URL like http://HOST:8000 without ?, # or spaces; a key belongs into "
            "an environment variable, named in `server_key_env`"
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
