"""Which servers there are, what they serve, and so what their scores are."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import Served, VlmConfig, VlmIdentity, identify_processor
from lerobot_topreward.vlm.prompts import question
from lerobot_topreward.vlm.server.client import Client, LostError, Patience
from lerobot_topreward.vlm.server.config import ServerConfig, Video

EXACT_SINCE = Version("0.27")  # before, the times of frames were left out of its cache's keys
# Where each kind says its version, and under which name; by what /v1/models calls the owner.
_VERSIONS = {
    "vllm": ("/version", "version"),
    "sglang": ("/get_server_info", "version"),
    "llamacpp": ("/props", "build_info"),
    "library": ("/api/version", "version"),
}
_NAMES = {"library": "ollama", "llamacpp": "llama.cpp"}
_WORD = re.compile(r"[\w.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a server."""

    name: str  # as requests name it
    root: str  # what it was loaded from, where the server says so


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server says of itself."""

    url: str
    kind: str  # "vllm", "sglang", "llama.cpp", "ollama", or what it calls itself
    version: str  # "unknown" where it does not say so
    models: tuple[Model, ...]
    template: Literal["paper", "chat"]  # see `Served`

    @property
    def can_be_exact(self) -> bool:
        """Whether it takes frames with times of their own and returns the answers asked for."""
        try:
            return self.kind == "vllm" and Version(self.version) >= EXACT_SINCE
        except InvalidVersion:  # built from source
            return self.kind == "vllm"


def identify_served(
    vlm: VlmConfig, server: ServerConfig, *, patience: Patience | None = None
) -> VlmIdentity:
    """Ask servers what they are, and pin the checkpoint that they serve.

    In exact mode the checkpoint's processor must be here, in a folder or on the Hub; its weights
    need not. In image mode `vlm` is only a name.

    Raises:
        UserError: no server answers, they differ, or they do not serve this checkpoint.
    """
    client = Client(server, patience=patience)
    try:
        probes = _probe_all(client)
    finally:
        client.close()
    first = probes[0]
    name = server.server_model or _choose_model(vlm.vlm, first)
    for probe in probes:
        if (probe.kind, probe.version) != (first.kind, first.version):
            raise UserError(
                f"`server`: {first.url} is {first.kind} {first.version}, {probe.url} is {probe.kind} "
                f"{probe.version}; scores of different servers are not mixed, start them alike"
            )
        if probe.template != first.template:
            raise UserError(
                f"`server`: {first.url} and {probe.url} have different chat templates, of which one "
                "ends with the question and the other with the start of an answer; start them alike"
            )
        if name not in [model.name for model in probe.models]:
            raise UserError(
                f"`server={probe.url}` has no model '{name}'; it has: {_list_models(probe)}. Name one "
                "of these in `server_model`"
            )
    video = server.server_video or ("exact" if first.can_be_exact else "images")
    served = Served(
        server=f"{first.kind} {first.version}",
        model=name,
        video=video,
        template=first.template,
    )
    return replace(_identify(vlm, first, video, name), served=served)


def _identify(vlm: VlmConfig, probe: Probe, video: Video, name: str) -> VlmIdentity:
    if video == "images":
        return VlmIdentity(name, vlm.vlm_revision or "unknown", vlm.dtype, None, None)
    if not probe.can_be_exact:
        raise UserError(
            f"`server_video=exact` needs vLLM {EXACT_SINCE} or newer; {probe.url} is {probe.kind} "
            f"{probe.version}. `server_video=images` works with any server"
        )
    try:
        return identify_processor(vlm)
    except UserError as error:
        raise UserError(
            f"{error}\nThe exact mode needs the checkpoint's processor here, from the Hub or a "
            "folder with its .json and .jinja files; `server_video=images` needs nothing"
        ) from None


def _probe_all(client: Client) -> list[Probe]:
    probes, refused = [], []
    for url in client.urls:
        try:
            probes.append(_probe(client, url))
        except LostError as error:
            refused.append(str(error))
    if not probes:
        raise UserError(f"`server`: {'; '.join(refused)}. Start it, or correct the address")
    return probes


def _probe(client: Client, url: str) -> Probe:
    status, answer = client.get(url, "/v1/models")
    if status == 503:
        raise UserError(f"`server={url}` is not ready (503); wait until it has loaded its model")
    if status in (401, 403):
        raise UserError(
            f"`server={url}` refuses to answer without a key that it knows ({status}); name the "
            "environment variable that holds it in `server_key_env`"
        )
    listed = answer.get("data") if isinstance(answer, Mapping) else None
    if status != 200 or not isinstance(listed, list):
        raise UserError(
            f"`server={url}` must answer {url}/v1/models with a list of models, as OpenAI's API has "
            f"it; got {status}. Is the address right?"
        )
    models = [item for item in listed if isinstance(item, Mapping) and _is_name(item.get("id"))]
    if not models:
        raise UserError(f"`server={url}` serves no model; start it with one")
    owner = str(models[0].get("owned_by"))
    kind = owner if _WORD.fullmatch(owner) else "unknown"
    version = "unknown"
    if kind in _VERSIONS:
        path, field = _VERSIONS[kind]
        _, said = client.get(url, path)
        found = said.get(field) if isinstance(said, Mapping) else None
        if isinstance(found, str) and _WORD.fullmatch(found):
            version = found
    return Probe(
        url,
        _NAMES.get(kind, kind),
        version,
        tuple(Model(item["id"], str(item.get("root") or item["id"])) for item in models),
        _find_template(client, url, kind),
    )


def _find_template(client: Client, url: str, kind: str) -> Literal["paper", "chat"]:
    """Whether the model goes on with what the user began to write.

    vLLM does when it is asked to. llama.cpp always applies its chat template, and shows what comes of
    it: with one that has no end of turn, the question stands last.
    """
    if kind != "llamacpp":
        return "paper" if kind == "vllm" else "chat"
    asked = {"messages": [{"role": "user", "content": question("x")}]}
    body = json.dumps(asked | {"add_generation_prompt": False}).encode()
    _, said = client.get(url, "/apply-template", body)
    prompt = said.get("prompt") if isinstance(said, Mapping) else None
    return "paper" if isinstance(prompt, str) and prompt.endswith(question("x")) else "chat"


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 500 and text.isprintable()


def _choose_model(vlm: str, probe: Probe) -> str:
    """Find a checkpoint among the models of a server, by its name or by where it was loaded from."""
    own = {vlm, Path(vlm).expanduser().resolve().name if "/" in vlm else vlm}
    for model in probe.models:
        if model.name == vlm or model.root == vlm:
            return model.name
    by_folder = [
        model.name
        for model in probe.models
        if {model.name.rstrip("/").rpartition("/")[2], model.root.rstrip("/").rpartition("/")[2]}
        & own
    ]
    if len(by_folder) == 1:
        return by_folder[0]
    raise UserError(
        f"`vlm={vlm}` is not what {probe.url} serves: {_list_models(probe)}. Give `vlm` what it "
        "serves; where that is the same checkpoint under another name, name that in `server_model`"
    )


def _list_models(probe: Probe) -> str:
    names: Sequence[str] = [model.name for model in probe.models]
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
