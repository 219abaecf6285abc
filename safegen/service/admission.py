"""Whom the service lets in: requests at once, in all and of one address, and how slowly a body may arrive.

    Starlette(..., middleware=[Middleware(Admission, settings)])

A body that arrives more slowly than ``SLOWEST`` after ``GRACE`` seconds, or isn't there after the settings' seconds, is
answered 408. Where all places for bodies are taken, the slowest gives way, of the address that has most of them.
Whoever has more requests open than an address may have, or a quarter of all bodies, is answered 429, and 503 where the
service has as many as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from safegen.service.limits import ServiceSettings

GRACE: Final = 5.0
"""Seconds that a body may take whatever its rate."""

SLOWEST: Final = 16 << 10
"""Bytes a second of a body, on the mean, that must arrive."""

YOUNG: Final = 0.1
"""Seconds for which a body does not have to give way to another."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class _TooSlowError(Exception):
    """The body did not arrive in time."""


@dataclass(slots=True, eq=False)
class _Body:
    """A body that is arriving."""

    address: str
    began: float
    got: int = 0
    waits: asyncio.Timeout | None = None  # for its next piece
    gone: bool = False
    whole: bool = False

    def due(self, seconds: float) -> float:
        """When its next piece must be there."""
        return self.began + min(GRACE + self.got / SLOWEST, seconds)

    def rate(self, now: float) -> float:
        return self.got / max(now - self.began, 1e-3)

    def give_way(self, now: float) -> None:
        self.gone = True
        if self.waits is not None:
            with contextlib.suppress(RuntimeError):  # its time is over anyway
                self.waits.reschedule(now)


class Admission:
    """ASGI middleware; see the module. Addresses are those that the server tells, or a trusted proxy."""

    def __init__(self, app: App, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings
        self._open: Counter[str] = Counter()
        self._arriving = 0  # requests whose bodies are on their way, and
        self._leaving = 0  # those whose answers are: neither takes a place from others
        self._bodies: set[_Body] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request pass to the application, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = str((scope.get("client") or ("", 0))[0])
        if self._open[address] >= self._settings.per_address:
            await _answer(send, 429, "too many requests of this address at once")
            return
        if self._open.total() - self._arriving - self._leaving >= self._settings.requests:
            await _answer(send, 503, "as many requests are open as this service takes")
            return

        async def leaving(message: Message) -> None:
            self._leaving += 1
            try:
                await send(message)
            finally:
                self._leaving -= 1

        self._open[address] += 1
        try:
            if _has_body(scope):
                await self._with_body(address, scope, receive, leaving)
            else:
                await self._app(scope, receive, leaving)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    async def _with_body(self, address: str, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = _Body(address, asyncio.get_running_loop().time())
        if sum(other.address == address for other in self._bodies) >= max(1, self._settings.bodies // 4):
            await _answer(send, 429, "too many bodies of this address at once")
            return
        if len(self._bodies) >= self._settings.bodies and not self._make_room(body):
            await _answer(send, 503, "as many bodies are arriving as this service takes")
            return
        self._bodies.add(body)
        self._arriving += 1
        begun = False

        async def timed() -> Message:
            if body.gone:
                raise _TooSlowError
            if body.whole:
                return await receive()  # what comes is that the client has gone
            try:
                async with asyncio.timeout_at(body.due(self._settings.seconds)) as body.waits:
                    message = await receive()
            except TimeoutError as error:
                raise _TooSlowError from error
            finally:
                body.waits = None
            body.got += len(message.get("body", b""))
            if not message.get("more_body"):
                body.whole = True
                self._arriving -= 1
                self._bodies.discard(body)
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            if not body.whole and message["type"] == "http.response.start":  # what is left is not waited for
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        try:
            await self._app(scope, timed, noted)
        except _TooSlowError:
            if begun:
                raise
            await _answer(send, 408, "the body did not arrive in time")
        finally:
            self._arriving -= not body.whole
            self._bodies.discard(body)

    def _make_room(self, new: _Body) -> bool:
        """Have a body give way to a new one; whether there was one that could."""
        now, many = new.began, Counter(body.address for body in self._bodies)
        fair = many[new.address] + 1
        may = [body for body in self._bodies if now - body.began > YOUNG or many[body.address] > fair]
        if not may:
            return False
        slowest = min(may, key=lambda body: (-many[body.address], body.rate(now)))
        slowest.give_way(now)
        self._bodies.discard(slowest)
        return True


def _has_body(scope: MutableMapping[str, Any]) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _answer(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close"),
        (b"retry-after", b"5"), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
