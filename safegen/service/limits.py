"""What a resolution service allows: whom it answers, how much it takes, and from where it fetches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from safegen.errors import ConfigError
from safegen.service.holders import Holder, read_holders

DEFAULT_RESULTS: Final = 10
MAX_RESULTS: Final = 100
"""More are never given at once, whatever maxResults says."""
MAX_NUMBER: Final = (1 << 53) - 1
MAX_JSON_BYTES: Final = 128 << 10
MAX_VALUE_CHARACTERS: Final = 2048
"""Of a base64 value in a query string; in a request body it may be as long as the body."""

MAX_BOUND_CHARACTERS: Final = 8192
"""Of a base64 value that is stored: it stands in a ledger entry."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How a service behaves. ``token``: what callers must present as their bearer token; everybody may ask if empty.

    An uploaded or fetched asset has at most ``max_asset_bytes``; receiving and reading it takes ``seconds`` at most,
    and at most ``concurrent`` are read at once. Assets are fetched (``byReference``) from ``reference_hosts`` only,
    which are host names, ``*.name`` for all below a name, or ``name:port``; none by default. ``holders`` of tokens with
    scopes may store manifests of ``max_manifest_bytes`` at most; nobody by default.

    A connection has ``head_seconds`` to send a request's head. There are ``connections`` at most, ``requests`` are
    served at once, ``bodies`` of them still arriving; of one address ``per_address``, and twice as many connections.
    ``proxies`` are addresses or networks whose X-Forwarded-For is believed; none by default.
    """

    token: str = field(default="", repr=False)
    max_asset_bytes: int = 256 << 20
    seconds: float = 60.0
    concurrent: int = 2
    reference_hosts: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    max_manifest_bytes: int = 4 << 20
    head_seconds: float = 10.0
    connections: int = 512
    requests: int = 64
    bodies: int = 32
    per_address: int = 24
    proxies: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ServiceSettings:
        """Read the settings from variables.

        SAFEGEN_RESOLUTION_TOKEN_FILE or _TOKEN, _MAX_ASSET_MIB, _SECONDS, _CONCURRENT, _REFERENCE_HOSTS (separated by
        commas), _HOLDERS_FILE, _MAX_MANIFEST_MIB, _CONNECTIONS, _PER_ADDRESS, _PROXIES (by commas). ConfigError if one
        of them says nothing sensible.
        """
        given = os.environ if environment is None else environment

        def number(name: str, default: float, largest: float) -> float:
            text = given.get(f"SAFEGEN_RESOLUTION_{name}", "")
            try:
                value = float(text) if text else default
            except ValueError:
                value = -1.0
            if not 0 < value <= largest:
                raise ConfigError(
                    f"SAFEGEN_RESOLUTION_{name} is {text!r}", remedy=f"Give a number above 0, {largest:g} at most."
                )
            return value

        proxies = tuple(p.strip() for p in given.get("SAFEGEN_RESOLUTION_PROXIES", "").split(",") if p.strip())
        try:
            for proxy in proxies:
                ip_network(proxy)
        except ValueError as error:
            raise ConfigError(
                f"SAFEGEN_RESOLUTION_PROXIES: {error}", remedy="Give addresses or networks: 10.0.0.5,192.168.0.0/16."
            ) from error
        holders = given.get("SAFEGEN_RESOLUTION_HOLDERS_FILE", "")
        hosts = given.get("SAFEGEN_RESOLUTION_REFERENCE_HOSTS", "").lower().split(",")
        return cls(
            token=_token(given),
            max_asset_bytes=int(number("MAX_ASSET_MIB", 256, 1 << 14) * (1 << 20)),
            seconds=number("SECONDS", 60, 3600),
            concurrent=max(1, int(number("CONCURRENT", 2, 256))),
            reference_hosts=tuple(host.strip() for host in hosts if host.strip()),
            holders=read_holders(Path(holders).expanduser()) if holders else (),
            max_manifest_bytes=int(number("MAX_MANIFEST_MIB", 4, 64) * (1 << 20)),
            connections=max(2, int(number("CONNECTIONS", 512, 1 << 16))),
            per_address=max(1, int(number("PER_ADDRESS", 24, 1 << 16))),
            proxies=proxies,
        )


def _token(given: Mapping[str, str]) -> str:
    name = given.get("SAFEGEN_RESOLUTION_TOKEN_FILE", "")
    token = given.get("SAFEGEN_RESOLUTION_TOKEN", "")
    if name:
        try:
            token = Path(name).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the token file {name}: {error}", remedy="Give a readable file.") from error
        if not token:
            raise ConfigError(f"the token file {name} is empty", remedy="Write the token into it.")
    if token and (not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError("the token has characters that no HTTP header can carry", remedy="Use letters and digits.")
    return token
