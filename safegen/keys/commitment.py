"""Salted, keyed commitments to prompts: they prove later what was asked without telling it now."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Final

from safegen.errors import KeyStoreError

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16


def commit_text(text: str, key: bytes, salt: bytes | None = None) -> dict[str, str]:
    """Commit to ``text`` without revealing it: HMAC-SHA256 under ``key`` of a 16-byte salt followed by the UTF-8 text.

    Keyed *and* salted: without the key nobody can test a guessed prompt against a published value, and with it equal
    prompts still give different values. Returns ``{"alg", "salt", "value"}``, the last two in hex. Raises
    KeyStoreError if key or salt have the wrong length.
    """
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
        raise KeyStoreError(f"a commitment needs a {KEY_BYTES}-byte key and a {SALT_BYTES}-byte salt")
    # surrogatepass: a commitment must exist for whatever text moderation was given, lone surrogates included.
    value = hmac.digest(key, salt + text.encode("utf-8", "surrogatepass"), "sha256")
    return {"alg": "hmac-sha256", "salt": salt.hex(), "value": value.hex()}


def check_commitment(text: str, key: bytes, commitment: Mapping[str, str]) -> bool:
    """Return whether ``commitment`` was made to ``text`` under ``key``; false too if it is malformed."""
    try:
        salt, value = bytes.fromhex(commitment["salt"]), commitment["value"]
    except (KeyError, TypeError, ValueError):
        return False
    if commitment.get("alg") != "hmac-sha256" or len(salt) != SALT_BYTES:
        return False
    return hmac.compare_digest(commit_text(text, key, salt)["value"].encode(), str(value).encode("utf-8", "replace"))
