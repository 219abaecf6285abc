"""Connections that send nothing, or take nothing: uvicorn's HTTP/1.1 protocol with deadlines and limits.

uvicorn waits for a request's head, and for a client that does not read, for as long as the client likes. Here a
connection has ``head_seconds`` for every head, and a bounded time to take its answer. Where there are more connections
than there may be, in all or of one address, the one is closed that has held on longest, without a whole head or without
taking its answer: whoever sends a head gets through, however many others only hold on.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from itertools import chain
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from safegen.service.limits import ServiceSettings


class Connections:
    """All connections of one server, by address."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self._proxies = [ipaddress.ip_network(each) for each in settings.proxies]
        self._all: dict[str, set[_Protocol]] = {}

    def protocol(self, *args: Any, **kwargs: Any) -> _Protocol:
        """Make uvicorn's protocol for one connection: give this to ``uvicorn.Config(http=...)``."""
        return _Protocol(self, *args, **kwargs)

    def add(self, one: _Protocol, address: str) -> None:
        """Count a new connection in, and make room for it."""
        alike = self._all.setdefault(address, set())
        alike.add(one)
        # Twice as many as requests, so that one too many is answered and not closed.
        if len(alike) > 2 * self.settings.per_address and not self._is_proxy(address):
            _close_one(alike)
        if sum(map(len, self._all.values())) > self.settings.connections:
            _close_one(chain.from_iterable(self._all.values()))

    def remove(self, one: _Protocol, address: str) -> None:
        """Forget a connection."""
        alike = self._all.get(address, set())
        alike.discard(one)
        if not alike:
            self._all.pop(address, None)

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)


def _close_one(among: Iterable[_Protocol]) -> None:
    """Close the one that has held on longest; the newest, which holds on as well, comes last."""
    holding = [each for each in among if each.holds_on]
    if holding:
        min(holding, key=lambda each: each.since).abort()


class _Protocol(H11Protocol):
    """One connection."""

    def __init__(self, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections
        self._address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._serving = False
        self.since = 0.0

    @property
    def holds_on(self) -> bool:
        """Whether it has sent no whole head, or does not take its answer."""
        return not self._serving or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._within(self._connections.settings.head_seconds)
        self._connections.add(self, self._address)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self._serving = False
        super().on_response_complete()
        self._within(self._connections.settings.head_seconds)  # for the next head, or to take what is written
        if not self.transport.is_closing():
            self._look()  # the next head may have come with the last one

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._connections.remove(self, self._address)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once, whatever is still to be sent."""
        self._stop()
        self._connections.remove(self, self._address)
        self.transport.abort()

    def _look(self) -> None:
        if not self._serving and self.cycle is not None and not self.cycle.response_complete:
            self._serving = True
            # Receiving and reading an asset takes ``seconds`` at most; the rest is for the answer to be taken.
            self._within(2 * self._connections.settings.seconds + self._connections.settings.head_seconds)

    def _within(self, seconds: float) -> None:
        self._stop()
        self.since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
