"""Who may do what: named bearer tokens with scopes, from a file."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from safegen.errors import ConfigError

FETCH: Final = "fetch:manifests"
STORE_MANIFESTS: Final = "store:manifests"
STORE_BINDINGS: Final = "store:bindings"
SCOPES: Final = (FETCH, STORE_MANIFESTS, STORE_BINDINGS)
"""The scopes of the Soft Binding Resolution API."""

_LINE: Final = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<token>[!-~]{16,})\s+(?P<scopes>[a-z:,]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever presents ``token``: by name, with the scopes that were granted."""

    name: str
    token: str = field(repr=False)
    scopes: frozenset[str] = frozenset()


def read_holders(path: Path) -> tuple[Holder, ...]:
    """Read lines of ``NAME TOKEN SCOPE,SCOPE``; empty ones and those that begin with # are none.

    A name may have several tokens. What it has stored is its own, by whichever of them.
    ConfigError if the file cannot be read, says something else, or others than its owner may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read the tokens in {path}", remedy=f"Run: chmod 600 {path}")
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the tokens in {path}: {error}", remedy="Give a readable file.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        said = _LINE.fullmatch(line.strip())
        scopes = frozenset(said["scopes"].split(",")) if said else frozenset()
        if said is None or not scopes <= set(SCOPES):
            raise ConfigError(
                f"line {number} of {path} is none of NAME TOKEN SCOPE,SCOPE",
                remedy=f"Tokens have 16 characters or more, scopes are {', '.join(SCOPES)}.",
            )
        found.append(Holder(said["name"], said["token"], scopes))
    if not found:
        raise ConfigError(f"there is no token in {path}", remedy="Write a line NAME TOKEN SCOPE,SCOPE into it.")
    return tuple(found)


def holder_of(token: str | None, holders: tuple[Holder, ...]) -> Holder | None:
    """Whose token it is; all are compared, so that the time tells nothing."""
    given = (token or "").encode()
    matching = [holder for holder in holders if hmac.compare_digest(given, holder.token.encode())]
    return matching[0] if matching else None
