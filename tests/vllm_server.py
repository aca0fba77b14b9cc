"""A server on 127.0.0.1 that speaks vLLM's protocol to the letter, on top of a tiny checkpoint.

Answers are computed: exact requests by the processor's and the model's own forward, as vLLM does,
from the frames and times that came. Requests and errors are those of vLLM 0.32
(https://github.com/vllm-project/vllm/tree/main/vllm/entrypoints/openai).
"""

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image

from lerobot_topreward.serve_args.command import CHAT_TEMPLATE
from lerobot_topreward.vlm.loading import Vlm

# What a handler does in place of answering: (request number, body) -> an answer, or None to compute.
Fault = Callable[[int, Mapping[str, Any]], "Reply | None"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is not computed."""

    status: int = 200
    body: Any = None  # bytes as they are; anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False  # the connection, in place of an answer
    wait_s: float = 0.0


@dataclass(slots=True)
class State:
    """What a server is, and what it was asked."""

    vlm: Vlm | None  # None: nothing is computed, answers are made up
    model: str = "tiny"
    root: str = "tiny"
    version: str | None = "0.32.0"
    owned_by: str = "vllm"
    key: str | None = None
    loading: bool = False
    trusted: bool = True  # --trust-request-mm-kwargs
    template: str = CHAT_TEMPLATE
    max_tokens: int = 4096
    max_images: int = 64
    top: int = 20  # --max-logprobs
    fault: Fault | None = None
    pages: Mapping[str, Any] = field(default_factory=dict)  # JSON of other addresses
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    computing: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


class RefusedError(Exception):
    """A request that vLLM would refuse."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def serve(vlm: Vlm | None, **options: Any) -> Iterator[State]:
    """Run a server while the block runs."""
    state = State(vlm, **options)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.state = state
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.stop()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    state: State

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away

    def stop(self) -> None:
        """Stop as a process that is killed does: connections break, new ones are refused."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server.state
        state.paths.append(self.path)
        if not self._allowed(state):
            return
        if self.path == "/v1/models" and state.loading:
            self._send(Reply(503, {"error": {"message": "Loading model", "code": 503}}))
        elif self.path == "/v1/models":
            model = {"id": state.model, "object": "model", "owned_by": state.owned_by}
            model |= {"root": state.root, "max_model_len": state.max_tokens}
            self._send(Reply(body={"object": "list", "data": [model]}))
        elif self.path == "/version" and state.version is not None:
            self._send(Reply(body={"version": state.version}))
        elif self.path in state.pages:
            self._send(Reply(body=state.pages[self.path]))
        else:
            self._send(Reply(404, {"detail": "Not Found"}))

    def do_POST(self) -> None:
        state = self.server.state
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._allowed(state):
            return
        if self.path in state.pages:
            self._send(Reply(body=state.pages[self.path]))
            return
        if self.path != "/v1/chat/completions":
            self._send(Reply(404, {"detail": "Not Found"}))
            return
        body = json.loads(content)
        with state.lock:
            state.bodies.append(body)
            number = len(state.bodies)
            state.headers.append(dict(self.headers))
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
        try:
            reply = state.fault(number, body) if state.fault else None
            if reply is None:
                reply = Reply(body=_answer(state, body))
        except RefusedError as error:
            kind = {400: "BadRequestError", 404: "NotFoundError"}[error.status]
            what = {"message": str(error), "type": kind, "param": None, "code": error.status}
            reply = Reply(error.status, {"error": what})
        finally:
            with state.lock:
                state.at_once -= 1
        self._send(reply)

    def _allowed(self, state: State) -> bool:
        if state.key is None or self.headers.get("Authorization") == f"Bearer {state.key}":
            return True
        said = f"Unauthorized: {self.headers.get('Authorization')}"
        self._send(Reply(401, {"error": said}))
        return False

    def _send(self, reply: Reply) -> None:
        time.sleep(reply.wait_s)
        if reply.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _answer(state: State, body: Mapping[str, Any]) -> dict[str, Any]:
    if body["model"] != state.model:
        raise RefusedError(404, f"The model `{body['model']}` does not exist.")
    if body.get("top_logprobs", 0) > state.top:
        raise RefusedError(400, f"Requested sample logprobs of {body['top_logprobs']}, which is "
                           f"greater than max allowed: {state.top}")  # fmt: skip
    assert body["logprobs"] is True
    assert body["max_tokens"] == 1
    if not state.trusted and {"media_io_kwargs", "mm_processor_kwargs"} & body.keys():
        raise RefusedError(400, "media_io_kwargs is not allowed. Start the server with "
                           "--trust-request-mm-kwargs to allow it.")  # fmt: skip
    parts = body["messages"][0]["content"]
    images = [part for part in parts if part["type"] == "image_url"]
    if len(images) > state.max_images:
        raise RefusedError(400, f"At most {state.max_images} image(s) may be provided in one "
                           "prompt.")  # fmt: skip
    if state.vlm is None:
        return made_up(body)
    inputs = _video_inputs(state, body) if not images else _image_inputs(state, body)
    ids = inputs["input_ids"][0].tolist()
    if len(ids) >= state.max_tokens:
        raise RefusedError(400, f"This model's maximum context length is {state.max_tokens} tokens. "
                           f"However, your prompt contains {len(ids)} input tokens.")  # fmt: skip
    with state.computing, torch.inference_mode():
        logits = state.vlm.model(**inputs, logits_to_keep=1).logits[0, -1].float()
    log_probs = torch.log_softmax(logits, dim=-1)
    wanted = body.get("logprob_token_ids") or log_probs.topk(body.get("top_logprobs", 0)).indices
    tokenizer = state.vlm.processor.tokenizer

    def spell(token: int) -> str:
        by_id = body.get("return_tokens_as_token_ids")
        return f"token_id:{token}" if by_id else tokenizer.decode([token])

    top = [{"token": spell(int(t)), "logprob": log_probs[int(t)].item()} for t in wanted]
    answer = made_up(body, top)
    if body.get("return_token_ids"):
        answer["prompt_token_ids"] = ids
    return answer


def made_up(body: Mapping[str, Any], top: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """An answer with these log-probabilities, or with some."""
    if top is None:
        top = [{"token": " True", "logprob": -1.0}, {"token": " False", "logprob": -2.0}]
    first = {**top[0], "bytes": None, "top_logprobs": top}
    message = {"role": "assistant", "content": "x"}
    choice = {"index": 0, "message": message, "logprobs": {"content": [first]}}
    return {"id": "chatcmpl-1", "model": body["model"], "choices": [choice]}


def _render(state: State, body: Mapping[str, Any]) -> str:
    """As vLLM does: parts lose their media, the template writes their place."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    names = {"video_url": "video", "image_url": "image"}
    parts = [
        {"type": names.get(part["type"], part["type"]), "text": part.get("text")}
        for part in body["messages"][0]["content"]
    ]
    text = environment.from_string(state.template).render(
        messages=[{"role": "user", "content": parts}],
        add_generation_prompt=body.get("add_generation_prompt", True),
    )
    if body.get("continue_final_message"):
        text = text[: text.rindex(parts[-1]["text"]) + len(parts[-1]["text"])]
    return text


def _video_inputs(state: State, body: Mapping[str, Any]) -> Any:
    (part,) = [p for p in body["messages"][0]["content"] if p["type"] == "video_url"]
    kind, _, data = part["video_url"]["url"].partition(",")
    assert kind == "data:video/jpeg;base64"
    frames = np.stack([_decode(text) for text in data.split(",")])
    options = body["media_io_kwargs"]["video"]
    if len(frames) < 2:
        raise RefusedError(400, "a video needs at least 2 frames")
    assert len(options["frames_indices"]) == len(frames)
    assert options["num_frames"] == -1
    total = options["total_num_frames"]
    assert total > max(options["frames_indices"])
    if total < len(frames):
        raise RefusedError(
            400, f"total_num_frames ({total}) must be >= number of frames sent ({len(frames)})"
        )
    metadata = {name: options[name] for name in ("total_num_frames", "fps", "frames_indices")}
    assert state.vlm is not None
    return state.vlm.processor(
        text=[_render(state, body)],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_mm_token_type_ids=True,
        return_tensors="pt",
        **body.get("mm_processor_kwargs", {}),
    )


def _image_inputs(state: State, body: Mapping[str, Any]) -> Any:
    urls = [p["image_url"]["url"] for p in body["messages"][0]["content"] if "image_url" in p]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    assert state.vlm is not None
    return state.vlm.processor(
        text=[_render(state, body)],
        images=[Image.fromarray(_decode(url.partition(",")[2])) for url in urls],
        return_mm_token_type_ids=True,
        return_tensors="pt",
    )


def _decode(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))
