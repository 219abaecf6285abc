"""Payload v1: what a mark carries, and the keyed streams that place it (docs/spec/payload-v1.md).

112 bits: content id (64), version (8), truncated HMAC-SHA256 (40). The MAC is the accept rule: without the watermark
key nobody can make a payload that reads as ours, and a wrong decoding passes with probability 2**-40. The random
content id comes first because it is also the nonce: run through the convolutional code it leaves no coded bit that
is the same in every clip of a key, and it chooses how pattern.py lays the bits, so that averaging clips averages the
payload away. Pure stdlib.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safegen.errors import PayloadError
from safegen.types import ContentId, parse_content_id

VERSION = 1
KEY_BYTES = 32
MAC_BYTES = 5
PAYLOAD_BYTES = 14
PAYLOAD_BITS = 8 * PAYLOAD_BYTES
CONTENT_BITS = 64

_MAC_LABEL = b"safegen/watermark/v1/mac"
_STREAM_LABEL = b"safegen/watermark/v1/stream/"


@dataclass(frozen=True, slots=True)
class Payload:
    """What the mark says: which clip this is. ``version`` is the payload format."""

    content_id: ContentId
    version: int = VERSION


def pack(payload: Payload, key: bytes) -> bytes:
    """Return the 14 bytes of ``payload`` authenticated under the 32-byte watermark ``key``.

    Raises PayloadError for an unknown version, a malformed content id or a key of another length.
    """
    if payload.version != VERSION:
        raise PayloadError(f"payload version {payload.version} is unknown", remedy=f"This release writes {VERSION}.")
    try:
        identity = bytes.fromhex(parse_content_id(payload.content_id))
    except (ValueError, TypeError) as exc:
        raise PayloadError(f"{exc}", remedy="Draw one with safegen.types.new_content_id().") from exc
    body = identity + bytes([payload.version])
    return body + _mac(body, key)


def unpack(data: bytes, key: bytes) -> Payload | None:
    """Return the payload in ``data`` if its MAC holds under ``key`` and its version is known, else None.

    Raises PayloadError when ``data`` is not 14 bytes long or the key has another length than 32 bytes.
    """
    if len(data) != PAYLOAD_BYTES:
        raise PayloadError(f"a payload has {PAYLOAD_BYTES} bytes, not {len(data)}")
    body = data[:-MAC_BYTES]
    genuine = hmac.compare_digest(_mac(body, key), data[-MAC_BYTES:])
    if not genuine or body[-1] != VERSION:
        return None
    return Payload(ContentId(body[:-1].hex()), body[-1])


def to_bits(data: bytes) -> NDArray[np.uint8]:
    """Bytes to bits, most significant first: uint8 [8 * len(data)]."""
    return np.unpackbits(np.frombuffer(data, np.uint8))


def from_bits(bits: NDArray[np.uint8]) -> bytes:
    """Bits (0 or 1, most significant first) to bytes; PayloadError unless whole bytes."""
    if len(bits) % 8:
        raise PayloadError(f"{len(bits)} bits are no whole number of bytes")
    return np.packbits(np.asarray(bits, np.uint8)).tobytes()


def stream(key: bytes, label: str, *numbers: int, length: int) -> bytes:
    """``length`` bytes of SHAKE-256 keyed by ``key`` for a ``label`` (a scheme's name) and unsigned 32-bit numbers."""
    subkey = hmac.new(check_key(key), _STREAM_LABEL + label.encode("ascii"), hashlib.sha256).digest()
    position = b"".join(n.to_bytes(4, "big") for n in numbers)
    return hashlib.shake_256(subkey + position).digest(length)


def check_key(key: bytes) -> bytes:
    """Return ``key``; PayloadError unless it is 32 bytes."""
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise PayloadError("the watermark key must be 32 bytes", remedy="Make keys with `safegen keys init`.")
    return key


def _mac(body: bytes, key: bytes) -> bytes:
    subkey = hmac.new(check_key(key), _MAC_LABEL, hashlib.sha256).digest()
    return hmac.new(subkey, body, hashlib.sha256).digest()[:MAC_BYTES]
