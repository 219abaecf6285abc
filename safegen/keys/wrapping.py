"""The key that wraps data subjects' keys (docs/privacy.md): a file of its own, made when it is first needed.

It is read only where personal fields are written or opened, and is no part of ``KeyStore``: signing and verifying go
without it. ``keys renew`` and ``keys init --force`` carry it over.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Final

from safegen.errors import KeyStoreError
from safegen.files import create_file
from safegen.keys.commitment import KEY_BYTES
from safegen.keys.files import check_mode, read_private
from safegen.keys.pki import symmetric_id
from safegen.settings import Home

FILE: Final = "wrapping.key"

_BACKUP: Final = (
    f"Put {FILE} back from a backup of the keys folder. Without it nobody can read the ledger's personal fields again."
)


def fresh() -> bytes:
    """The content of a new file."""
    return secrets.token_hex(KEY_BYTES).encode() + b"\n"


def read_wrapping_key(home: Home) -> bytes | None:
    """Return the home's wrapping key (32 bytes), None where it has none. KeyStoreError if it is open to others,
    unreadable or damaged.
    """
    path = home.keys / FILE
    if not path.is_file():
        return None
    check_mode(home.keys, 0o700)
    check_mode(path, 0o600)
    return _parse(path)


def make_wrapping_key(home: Home) -> bytes:
    """Return the home's wrapping key; it is made if there is none. KeyStoreError as above, or without a key store."""
    path = home.keys / FILE
    if not home.keys.is_dir():
        raise KeyStoreError(f"there is no key store at {home.keys}", remedy="Run `safegen keys init`.")
    if not path.exists():
        try:
            with contextlib.suppress(FileExistsError):  # what another process was quicker to make is not replaced
                create_file(path, fresh())
        except OSError as error:
            raise KeyStoreError(f"cannot write {path}: {error}", remedy="Check the folder's owner.") from error
    found = read_wrapping_key(home)
    if found is None:
        raise KeyStoreError(f"cannot write {path}", remedy="Check the folder's owner.")
    return found


def wrapping_id(key: bytes) -> str:
    """The key's public name: 16 hex digits."""
    return symmetric_id(key, "wrapping")


def missing(home: Home) -> KeyStoreError:
    """The error of a ledger that has personal fields and a home that cannot open them."""
    return KeyStoreError(f"{home.keys / FILE} is missing", remedy=_BACKUP)


def _parse(path: Path) -> bytes:
    try:
        key = bytes.fromhex(read_private(path, _BACKUP).decode("ascii"))
    except ValueError as error:
        raise KeyStoreError(f"{path} is damaged: {error}", remedy=_BACKUP) from error
    if len(key) != KEY_BYTES:
        raise KeyStoreError(f"{path} is damaged: {len(key)} bytes instead of {KEY_BYTES}", remedy=_BACKUP)
    return key
