"""Fetching an asset that a caller names, without becoming the caller's hand inside our own network.

Only https, only hosts that the settings name, only public addresses; the address that was checked is the one that is
connected to (no second look-up that could answer otherwise), no redirects, no proxies, no more bytes than announced.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final
from urllib.parse import SplitResult, urlsplit

import httpx

from safegen.errors import InputError, ResolutionError

MAX_URL: Final = 4096
_EMBEDDING: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""IPv6 ranges whose addresses stand for IPv4 ones (NAT64, 6to4, Teredo): a private one could hide in them."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class ForbiddenReferenceError(InputError):
    """The settings do not allow to fetch from there."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and nothing else in disguise."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if any(parsed in network for network in _EMBEDDING):
            return False
    return parsed.is_global and not parsed.is_multicast


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches from ``hosts``. The rest is for tests: how names are resolved, what may be called, whom TLS trusts."""

    hosts: tuple[str, ...]
    resolve: Resolve = resolve
    permit: Callable[[str], bool] = is_public
    tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, into: BinaryIO, *, length: int) -> None:
        """Write the asset at ``url`` into an open file. It must have exactly ``length`` bytes.

        ForbiddenReferenceError if the settings or the address rule it out, ResolutionError if it cannot be had.
        """
        parts, host, port = self._check(url)
        try:
            addresses = await self.resolve(host, port)
        except OSError as error:
            raise ResolutionError(f"{host} cannot be resolved") from error
        if not addresses:
            raise ResolutionError(f"{host} cannot be resolved")
        if not all(map(self.permit, addresses)):
            raise ForbiddenReferenceError("the reference leads to an address that is not public")
        await self._get(parts, host, port, addresses[0], into, length)

    def _check(self, url: str) -> tuple[SplitResult, str, int]:
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode("ascii").lower().rstrip("."), parts.port or 443
        except ValueError as error:  # UnicodeError is one
            raise ForbiddenReferenceError("the reference is no URL") from error
        plain = len(url) <= MAX_URL and url.isascii() and url.isprintable() and " " not in url and "\\" not in url
        if not plain or parts.scheme != "https" or not host or parts.username is not None or parts.password is not None:
            raise ForbiddenReferenceError("the reference is no plain https URL")
        if not any(_covers(allowed, host, port) for allowed in self.hosts):
            raise ForbiddenReferenceError("this service does not fetch from that host")
        return parts, host, port

    async def _get(self, parts: SplitResult, host: str, port: int, address: str, into: BinaryIO, length: int) -> None:
        literal = f"[{address}]" if ":" in address else address
        target = f"https://{literal}:{port}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": host if port == 443 else f"{host}:{port}", "Accept-Encoding": "identity"}
        context = self.tls or ssl.create_default_context()
        try:
            async with (
                httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=10.0) as client,
                client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as response,
            ):
                if response.status_code != 200:
                    raise ResolutionError(f"the reference answers {response.status_code}; redirects are not followed")
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise ResolutionError("the reference answers with a compressed body")
                got = 0
                async for chunk in response.aiter_raw(1 << 16):
                    got += len(chunk)
                    if got > length:
                        raise ResolutionError("the asset is longer than assetLength says")
                    await asyncio.to_thread(into.write, chunk)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise ResolutionError(f"the reference cannot be fetched: {type(error).__name__}") from error
        if got < length:
            raise ResolutionError("the asset is shorter than assetLength says")


def _covers(allowed: str, host: str, port: int) -> bool:
    """Whether an entry of the settings (``name``, ``*.name``, either with ``:port``) allows a host and port."""
    name, _, wanted = allowed.partition(":")
    if str(port) != (wanted or "443"):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name
