"""What servers do wrong: each ends in a sentence that says what to do, and nothing is lost."""

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from vllm_server import Fault, Reply, made_up, serve

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, Segment
from lerobot_topreward.vlm.identity import VlmConfig
from lerobot_topreward.vlm.server.client import MAX_BYTES, Patience
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.probe import identify_served
from lerobot_topreward.vlm.server.scorer import ServerScorer

HASTY = Patience(waits_s=(0.01, 0.02), longest_wait_s=2, answer_s=60, connect_s=5)
IMPATIENT = HASTY._replace(answer_s=0.5)
SECRET = "sk-very-secret"


def make_clip(images: int = 4) -> Clip:
    frames = np.zeros((images, 32, 32, 3), dtype=np.uint8)
    index = np.arange(images)
    return Clip(Segment(0, 0, images, "pick up"), 2.0, frames, index, index)


def connect(*urls: str, patience: Patience = HASTY, **options: Any) -> ServerScorer:
    config = ServerConfig(server=urls, server_video="images", **options)
    identity = identify_served(VlmConfig(vlm="tiny"), config, patience=patience)
    return ServerScorer(config, identity, patience=patience)


def score(scorer: ServerScorer, images: int = 4) -> np.ndarray:
    try:
        return scorer.score(make_clip(images), list(range(1, images + 1)), ["pick up"]).true[0]
    finally:
        scorer.close()


def always(reply: Reply) -> Fault:
    return lambda number, body: reply


def once(reply: Reply) -> Fault:
    return lambda number, body: reply if number == 1 else None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def with_logprobs(top: Any) -> Reply:
    body = made_up({"model": "tiny"})
    body["choices"][0]["logprobs"] = {"content": [{"token": "x", "top_logprobs": top}]}
    return Reply(body=json.dumps(body).encode())


def one_logprob(value: Any) -> Reply:
    return with_logprobs([{"token": " True", "logprob": value}])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, {"error": {"message": "CUDA error"}}),
        Reply(503, b"<html>busy</html>"),
        Reply(429, {"detail": "slow down"}, {"Retry-After": "0"}),
        Reply(429, headers={"Retry-After": format_datetime(datetime.now(UTC))}),
        Reply(429, headers={"Retry-After": "9" * 5000 + "x"}),
        Reply(200, b"{"),
        Reply(200, b"[" * 100_000),
        Reply(200, [1]),
        Reply(200, b""),
        Reply(200, b"\xff\xfe"),
        Reply(200, gzip.compress(b"{}"), {"Content-Encoding": "gzip"}),
        Reply(200, b"1" * (MAX_BYTES + 1)),
        Reply(cut=True),
        Reply(wait_s=1.0),
    ],
    ids=lambda reply: f"{reply.status}",
)
def test_what_can_pass_is_tried_again(reply: Reply) -> None:
    with serve(None, fault=once(reply)) as state:
        patience = IMPATIENT if reply.wait_s else HASTY
        found = score(connect(state.url, concurrency=1, patience=patience))
    np.testing.assert_allclose(found, -1)
    assert len(state.bodies) == 5


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (
            Reply(500, {"error": {"message": "CUDA error"}}),
            EpisodeError,
            "500: CUDA error, 3 tries",
        ),
        (Reply(429, {"detail": "slow"}), UserError, "limits the rate.*`concurrency`"),
        (Reply(429, headers={"Retry-After": "9999"}), UserError, "limits the rate"),
        (Reply(200, b"{"), EpisodeError, "no JSON object, 3 tries"),
        (Reply(200, b"1" * (MAX_BYTES + 1)), EpisodeError, "longer than 32 MB"),
        (Reply(wait_s=1.0), EpisodeError, "no answer within 0.5 s, 3 tries"),
        (Reply(cut=True), EpisodeError, "did not answer: .*3 tries"),
        (Reply(401, {"error": "who?"}), UserError, "without a key.*`server_key_env=NAME`"),
        (Reply(403, {"error": "who?"}), UserError, "without a key"),
        (Reply(404, {"error": {"message": "no `tiny`"}}), UserError, "404: no 'tiny'.*/v1/models"),
        (Reply(302, headers={"Location": "http://evil/"}), UserError, "redirects .302., which is"),
        (Reply(418, {"error": "teapot"}), UserError, "418: teapot"),
        (Reply(400, {"error": "I dislike it"}), EpisodeError, "refuses it: 400: I dislike it"),
        (Reply(413, b""), EpisodeError, "longer than .* takes .413"),
        (
            Reply(400, {"message": "maximum context length is 10"}),
            EpisodeError,
            "`max_images`, `sample_fps`",
        ),
        (
            Reply(400, {"error": {"message": "At most 1 image(s) may be provided"}}),
            EpisodeError,
            "more images than",
        ),
        (Reply(200, {}), EpisodeError, "no choices"),
        (Reply(200, {"choices": []}), EpisodeError, "no choices"),
        (Reply(200, {"choices": [7]}), EpisodeError, "no choices"),
        (Reply(200, {"choices": [{"logprobs": None}]}), EpisodeError, "no log-probabilities"),
        (Reply(200, {"choices": [{"logprobs": {"content": [3]}}]}), EpisodeError, "no log-prob"),
        (with_logprobs([]), EpisodeError, "no log-probabilities"),
        (with_logprobs("many"), EpisodeError, "no log-probabilities"),
        (with_logprobs([3]), EpisodeError, "that is none: 3"),
        (with_logprobs([{"token": 3, "logprob": -1}]), EpisodeError, "that is none"),
        (one_logprob(float("nan")), EpisodeError, "that is none"),
        (one_logprob(float("inf")), EpisodeError, "that is none"),
        (one_logprob(float("-inf")), EpisodeError, "that is none"),
        (one_logprob(0.5), EpisodeError, "that is none"),
        (one_logprob(None), EpisodeError, "that is none"),
        (one_logprob(True), EpisodeError, "that is none"),
        (one_logprob("-1"), EpisodeError, "that is none"),
        (one_logprob(-(10**400)), EpisodeError, "that is none"),
        (
            with_logprobs([{"token": t, "logprob": -0.1} for t in "ab"]),
            EpisodeError,
            "more than a probability of 1",
        ),
    ],
)
def test_what_does_not_pass_says_what_to_do(
    reply: Reply, error: type[Exception], words: str
) -> None:
    patience = IMPATIENT if reply.wait_s else HASTY
    with serve(None, fault=always(reply)) as state:
        with pytest.raises(error, match=words):
            score(connect(state.url, patience=patience))
        # Before the first episode, all of it is a mistake that stops the run.
        scorer = connect(state.url, patience=patience)
        with pytest.raises(UserError, match=words):
            scorer.try_out(make_clip())
        scorer.close()


def test_retry_after_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
    for text, least in (("70", 70), (date, 100)):
        with serve(None, fault=once(Reply(429, headers={"Retry-After": text}))) as state:
            score(connect(state.url, concurrency=1, patience=Patience(waits_s=(0.0,))))
            assert least <= max(waits) <= 200
            waits.clear()


def test_a_refused_connection_is_left_out() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with serve(None) as state:
        scorer = connect(dead, state.url)
        (said,) = scorer.try_out(make_clip())
        assert said.startswith(f"left out: {dead} refuses connections")
        np.testing.assert_allclose(score(scorer), -1)
    with pytest.raises(UserError, match=r"does not answer.*Start it"):
        connect(dead)


def test_a_server_that_dies_leaves_its_questions_to_the_others() -> None:
    with serve(None) as survivor:
        with serve(None, fault=always(Reply(wait_s=0.2))) as dying:
            scorer = connect(dying.url, survivor.url, concurrency=2)
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(score(scorer, images=12)))
            thread.start()
            while not dying.bodies:
                time.sleep(0.01)
        thread.join()
        np.testing.assert_allclose(found[0], np.full(12, -1.0))
        assert len(survivor.bodies) >= 10


def test_with_no_server_left_the_run_stops() -> None:
    with serve(None) as state:
        scorer = connect(state.url)
    with pytest.raises(UserError, match=r"no server is left.*run the same command again"):
        score(scorer)


def test_closing_ends_what_is_waited_for() -> None:
    with serve(None, fault=always(Reply(wait_s=5))) as state:
        scorer = connect(state.url, patience=Patience())
        found: list[BaseException] = []

        def ask() -> None:
            try:
                scorer.score(make_clip(), [4], ["pick up"])
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not state.bodies:
            time.sleep(0.01)
        scorer.close()
        thread.join(timeout=2)
        assert not thread.is_alive()
        assert type(found[0]).__name__ == "CancelledError"
        ask()
        assert type(found[1]).__name__ == "CancelledError"


def test_the_key_goes_along_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)

    def quote(number: int, body: Mapping[str, Any]) -> Reply:
        return Reply(400, {"error": f"I dislike {SECRET}"})

    with serve(None, key=SECRET) as state:
        with pytest.raises(UserError, match=r"without a key that it knows.*`server_key_env`"):
            connect(state.url)
        scorer = connect(state.url, server_key_env="MY_KEY")
        np.testing.assert_allclose(score(scorer), -1)
        assert state.headers[-1]["Authorization"] == f"Bearer {SECRET}"
        assert SECRET not in json.dumps(state.bodies) + " ".join(state.paths)
        state.fault = quote
        with pytest.raises(EpisodeError, match=r"I dislike \*\*\*"):
            score(connect(state.url, server_key_env="MY_KEY"))
        monkeypatch.setenv("MY_KEY", "another")
        with pytest.raises(UserError) as error:
            connect(state.url, server_key_env="MY_KEY")
        assert "another" not in str(error.value)


@pytest.mark.parametrize("value", ["", "a b", "a\nb", "ключ"])
def test_what_cannot_be_a_key_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UserError, match="`server_key_env=MY_KEY`: ") as error:
        ServerConfig(server=("http://h:1",), server_key_env="MY_KEY")
    assert value == "" or value not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "h:8000", "ftp://h", "http://", "http://h:x", "http://[::1", "http://h:8000/?key=1",
        "http://h:8000/#a", "http://h /", "file:///etc/passwd", "//h", "http://h:99999",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"`server.*must be a URL like"):
        ServerConfig(server=(url,))


def test_an_address_with_a_password_is_refused_unseen() -> None:
    with pytest.raises(UserError, match="must not carry a name or password") as error:
        ServerConfig(server=(f"http://me:{SECRET}@h:8000",))
    assert SECRET not in str(error.value)


def test_addresses_are_brought_to_one_form() -> None:
    config = ServerConfig(server=("http://h:1/v1/", "https://h/path/v1"))
    assert config.urls == ["http://h:1", "https://h/path"]
    with pytest.raises(UserError, match="twice"):
        ServerConfig(server=("http://h:1/", "http://h:1/v1"))
    with pytest.raises(UserError, match=r"`concurrency` must be 1.."):
        ServerConfig(server=("http://h:1",), concurrency=0)
    with pytest.raises(UserError, match="`concurrency=3` needs `server=URL`"):
        ServerConfig(concurrency=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "other", "root": "other"}, "`vlm=tiny` is not what .* serves: other.*`server_m"),
        ({"owned_by": "library", "version": None}, None),
        ({"owned_by": "\x1b[31m" * 9}, None),
    ],
)
def test_what_a_server_says_of_itself(options: dict[str, Any], words: str | None) -> None:
    with serve(None, **options) as state:
        if words is not None:
            with pytest.raises(UserError, match=words):
                connect(state.url)
            assert connect(state.url, server_model="other") is not None
            return
        config = ServerConfig(server=(state.url,))
        identity = identify_served(VlmConfig(vlm="tiny"), config, patience=HASTY)
        assert identity.served is not None
        assert identity.served.server in ("ollama unknown", "unknown unknown")
        assert (identity.served.video, identity.served.template) == ("images", "chat")


def test_servers_of_two_versions_are_not_mixed() -> None:
    with serve(None) as one, serve(None, version="0.33.0") as other:
        with pytest.raises(UserError, match=r"is vllm 0\.32\.0, .* is vllm 0\.33\.0; scores"):
            connect(one.url, other.url)
        other.version, other.model = one.version, "b"
        with pytest.raises(UserError, match="has no model 'tiny'; it has: b"):
            connect(one.url, other.url)


@pytest.mark.parametrize("version", ["0.26.1", None])
def test_exact_mode_needs_a_new_vllm(version: str | None) -> None:
    options: dict[str, Any] = {"version": version}
    if version is None:
        options["owned_by"] = "sglang"
    with serve(None, **options) as state:
        config = ServerConfig(server=(state.url,), server_video="exact")
        with pytest.raises(UserError, match=r"needs vLLM 0\.27 or newer.*`server_video=images`"):
            identify_served(VlmConfig(vlm="tiny"), config, patience=HASTY)


def test_no_more_than_asked_for_are_in_flight() -> None:
    def linger(number: int, body: Mapping[str, Any]) -> None:
        time.sleep(0.02)

    with serve(None, fault=linger) as state:
        score(connect(state.url, concurrency=3), images=20)
        assert 2 <= state.most_at_once <= 3
