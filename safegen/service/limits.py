"""What a resolution service allows: whom it answers, how much it takes, and from where it fetches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """

    token: str = field(default="", repr=False)
    max_asset_bytes: int = 256 << 20
    seconds: float = 60.0
    concurrent: int = 2
    reference_hosts: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()
    max_manifest_bytes: int = 4 << 20

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ServiceSettings:
        """Read the settings from variables.

        SAFEGEN_RESOLUTION_TOKEN_FILE or _TOKEN, _MAX_ASSET_MIB, _SECONDS, _CONCURRENT, _REFERENCE_HOSTS (separated by
        commas), _HOLDERS_FILE, _MAX_MANIFEST_MIB. ConfigError if one of them says nothing sensible.
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
