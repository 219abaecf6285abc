"""Soft-binding values as the API writes them: base64 of what a mark carries."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from safegen.release.marking import LATENT_SCHEME, NOISE_SCHEME, PIXEL_SCHEME, STILL_SCHEME
from safegen.types import LOOKS_ALG, ContentId, parse_content_id, soft_binding_alg

WATERMARKS: Final = tuple(
    soft_binding_alg(scheme) for scheme in (LATENT_SCHEME, STILL_SCHEME, NOISE_SCHEME, PIXEL_SCHEME)
)
FINGERPRINTS: Final = (LOOKS_ALG,)
ALGORITHMS: Final = WATERMARKS + FINGERPRINTS
"""The algorithms whose bindings can be looked up."""

ALG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""The name of any algorithm: those of others can be stored, though nothing of theirs is read here."""

BASE64: Final = r"^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?$"
"""Either alphabet of RFC 4648, with or without padding. Written so that JSON Schema and Python read it alike."""

_PATTERN: Final = re.compile(BASE64)


def encode_value(content_id: ContentId) -> str:
    """The binding value of a mark that carries ``content_id``: base64 of its 8 bytes."""
    return base64.b64encode(bytes.fromhex(content_id)).decode("ascii")


def is_base64(text: str) -> bool:
    """Whether ``text`` can be a value at all."""
    return bool(text) and not text.endswith("\n") and _PATTERN.match(text) is not None


def decode_value(text: str) -> ContentId | None:
    """The content id that a base64 value stands for; None for a value that none of our marks can carry.

    Manifests written through c2pa-python state the value as 16 hex digits of text; base64 of those is understood too.
    """
    data = decode_bytes(text)
    if data is None:
        return None
    if len(data) == 8:
        return ContentId(data.hex())
    try:
        return parse_content_id(data.decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return None


def decode_bytes(text: str) -> bytes | None:
    """What a base64 value stands for, in either alphabet and with or without padding; None if it is none."""
    plain = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
