"""Requests to several servers at once, each tried again where that can help.

One thread runs an event loop with a kept HTTP client; whoever asks waits in his own thread. A
server that refuses connections, or is gone when it should answer, is left out: what it was asked
goes to the others. With none left the run stops, and what was scored until then is kept.

A server is a stranger: answers are bounded in size and time, redirects are not followed (the key
would go along), and what it says is shortened before it is shown.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.refusals import is_blind, refuse, shorten

MAX_BYTES = 32 << 20  # of an answer: the longest is the token ids of a prompt, some 2 MB
BUSY = (408, 425, 429, 500, 502, 503, 504, 529)


class Patience(NamedTuple):
    """How long a server is waited for."""

    waits_s: tuple[float, ...] = (1, 2, 4, 8, 16, 32)  # before the tries after the first
    longest_wait_s: float = 300  # a `Retry-After` beyond that stops the run
    answer_s: float = 600  # from the first byte sent to the last one received; queues are long
    connect_s: float = 10


class LostError(Exception):
    """A server that cannot be asked any more."""


@dataclass(slots=True)
class _Server:
    url: str
    running: int = 0  # requests in flight
    lost: str | None = None  # why it is left out


class Client:
    """Several servers of one model."""

    def __init__(self, config: ServerConfig, *, patience: Patience | None = None) -> None:
        """Prepare to ask; nothing is sent yet."""
        self.urls = config.urls
        self.concurrency = config.concurrency
        self.patience = patience or Patience()
        self._servers = [_Server(url) for url in self.urls]
        self._key = config.read_key()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        # A daemon: a scorer that nobody closes must not keep the process.
        self._thread = threading.Thread(target=self._run, name="servers", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        headers = {"Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=self.patience.connect_s),
            limits=httpx.Limits(max_connections=None),
        )
        self._changed = asyncio.Condition()
        self._loop.run_forever()
        self._loop.run_until_complete(self._http.aclose())
        self._loop.close()

    @property
    def lost(self) -> dict[str, str]:
        """The servers that are left out, by URL, and why."""
        return {server.url: server.lost for server in self._servers if server.lost is not None}

    def close(self) -> None:
        """Give up whatever is asked and end the thread; those who wait get `CancelledError`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
        self._thread.join()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._loop.call_soon(self._loop.stop)

    def get(self, url: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Ask a server for something about itself, once.

        Args:
            url: of the server.
            path: of the page.
            body: JSON that is posted, where the page wants it.

        Returns:
            The status, and the JSON; None where it is none.

        Raises:
            LostError: it does not answer.
        """
        return self._wait([self._get(url, path, body)])[0]

    def ask(
        self, bodies: Sequence[Callable[[], bytes]], *, server: str | None = None
    ) -> list[dict[str, Any]]:
        """Ask questions of a chat model, all at once as far as `concurrency` allows.

        Args:
            bodies: make the JSON of each when its turn comes, so that few are in memory.
            server: the URL of the one that is to answer; by default whichever is free.

        Returns:
            The JSON objects of the answers, in their order.

        Raises:
            EpisodeError: one was refused, or not answered; others may be.
            UserError: no server is left, or none will answer this way.
            LostError: the server that was named does not answer.
        """
        return self._wait([self._ask(make, server) for make in bodies])

    def _wait(self, coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        with self._lock:
            if self._closed:
                for coroutine in coroutines:
                    coroutine.close()
                raise CancelledError
            waiting: Future[list[Any]] = asyncio.run_coroutine_threadsafe(
                self._gather(coroutines), self._loop
            )
        return waiting.result()

    async def _gather(self, coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        own = asyncio.current_task()
        assert own is not None
        self._tasks.add(own)
        try:
            async with asyncio.TaskGroup() as group:  # the first error cancels the others
                tasks = [group.create_task(coroutine) for coroutine in coroutines]
            return [task.result() for task in tasks]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._tasks.discard(own)

    async def _get(self, url: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        method = "GET" if body is None else "POST"
        try:
            async with asyncio.timeout(self.patience.connect_s * 3):
                status, _, content = await self._send(method, url + path, body)
        except (httpx.TransportError, TimeoutError, ValueError) as error:
            raise LostError(f"{url} does not answer ({describe(error)})") from None
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError):
            return status, None

    async def _ask(self, make: Callable[[], bytes], url: str | None) -> dict[str, Any]:
        while True:
            server = await self._take(url)
            try:
                return await self._try(server, make)
            except LostError as error:
                server.lost = str(error)
                if url is not None:
                    raise
            finally:
                async with self._changed:
                    server.running -= 1
                    if server.lost is None:
                        self._changed.notify()
                    else:
                        self._changed.notify_all()

    async def _take(self, url: str | None) -> _Server:
        """Wait for a server that has room, the emptiest of those that are left."""
        async with self._changed:
            while True:
                left = [s for s in self._servers if s.lost is None and url in (None, s.url)]
                if not left:
                    raise UserError(
                        f"no server is left: {'; '.join(self.lost.values())}. What was scored is "
                        "kept; start one and run the same command again"
                    )
                emptiest = min(left, key=lambda s: s.running)
                if emptiest.running < self.concurrency:
                    emptiest.running += 1
                    return emptiest
                await self._changed.wait()

    async def _try(self, server: _Server, make: Callable[[], bytes]) -> dict[str, Any]:
        """Ask one server, again where that can help."""
        patience, why, status = self.patience, "", 0
        for wait in (*patience.waits_s, None):
            asked_to_wait = 0.0
            try:
                async with asyncio.timeout(patience.answer_s):
                    status, headers, content = await self._send(
                        "POST", server.url + "/v1/chat/completions", make()
                    )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise LostError(f"{server.url} refuses connections ({describe(error)})") from None
            except TimeoutError:
                why, status = f"no answer within {patience.answer_s:g} s", 0
            except (httpx.TransportError, ValueError) as error:
                why, status = describe(error), 0
            else:
                if status == 200:
                    answer = _read_object(content)
                    if answer is not None:
                        return answer
                    why = "the answer is no JSON object"
                elif status not in BUSY or is_blind(content):
                    raise refuse(server.url, status, content, key=self._key)
                else:
                    why = f"{status}{shorten(content, key=self._key)}"
                    asked_to_wait = _requested_wait(headers.get("Retry-After", ""))
            if asked_to_wait > patience.longest_wait_s:
                break
            if wait is not None:
                await asyncio.sleep(max(wait, asked_to_wait))
        tries = f"{len(patience.waits_s) + 1} tries"
        if status == 429:
            raise UserError(
                f"`server={server.url}` limits the rate ({why}, {tries}); lower `concurrency`, or run "
                "the same command again later"
            )
        try:  # did it refuse this question alone, or is it gone?
            await self._get(server.url, "/v1/models")
        except LostError:
            raise LostError(f"{server.url} has gone ({why})") from None
        raise EpisodeError(f"{server.url} did not answer: {why}, {tries}; run again later")

    async def _send(
        self, method: str, url: str, body: bytes | None
    ) -> tuple[int, httpx.Headers, bytes]:
        """Send a request and read its answer as far as is sensible.

        Raises:
            httpx.TransportError: it could not be sent, or the connection broke.
            ValueError: the answer is too long, or compressed.
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with self._http.stream(method, url, content=body, headers=headers) as response:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise ValueError("the answer is compressed, which was not asked for")
                parts, size = [], 0
                async for part in response.aiter_raw():
                    size += len(part)
                    if size > MAX_BYTES:
                        raise ValueError(f"the answer is longer than {MAX_BYTES >> 20} MB")
                    parts.append(part)
                return response.status_code, response.headers, b"".join(parts)
        except httpx.InvalidURL as error:
            raise UserError(f"`server` has no usable URL: {error}") from None


def describe(error: Exception) -> str:
    """Say what went wrong with a connection, in a few words."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _requested_wait(text: str) -> float:
    """Seconds of a ``Retry-After``, which is a number or a date; 0 where it is neither."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])  # Python refuses thousands of digits
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at - datetime.now(at.tzinfo or UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
