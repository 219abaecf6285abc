"""JUMBF boxes (ISO/IEC 19566-5) as C2PA uses them: superboxes with a label, CBOR content, a salt."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from safegen.errors import ProvenanceError

STORE: Final = b"c2pa"
MANIFEST: Final = b"c2ma"
UPDATE: Final = b"c2um"
ASSERTIONS: Final = b"c2as"
CLAIM: Final = b"c2cl"
SIGNATURE: Final = b"c2cs"
CBOR: Final = b"cbor"

_TYPE_SUFFIX: Final = bytes.fromhex("00110010800000AA00389B71")  # every C2PA box type is its four letters and this
_REQUESTABLE: Final = 0x03  # the label may stand in a URI
_PRIVATE: Final = 0x10  # a private box, the salt, follows the label
_HEADER: Final = 8
_DESCRIPTION: Final = 25  # header, type and toggles of a description box


@dataclass(frozen=True, slots=True)
class Superbox:
    """A labelled box: its four-letter type, its label, and all its bytes, header included."""

    kind: bytes
    label: str
    raw: bytes
    content_at: int

    @property
    def hashed(self) -> bytes:
        """What a hashed URI to this box covers (C2PA 2.4 §8.4.2.3): description and content, not the outer header."""
        return self.raw[_HEADER:]

    def children(self) -> tuple[Superbox, ...]:
        """Return the superboxes inside; ProvenanceError if they do not fit."""
        return tuple(_superboxes(self.raw, self.content_at, len(self.raw)))

    def cbor(self) -> Any:
        """Return the CBOR value inside; ProvenanceError if there is none."""
        try:
            size, kind = struct.unpack_from(">I4s", self.raw, self.content_at)
            if kind != CBOR:
                raise ValueError(f"it holds {kind!r}")
            return cbor2.loads(self.raw[self.content_at + _HEADER : self.content_at + size])
        except (struct.error, ValueError, cbor2.CBORDecodeError) as error:
            raise ProvenanceError(f"{self.label} holds no CBOR: {error}") from error


def box(kind: bytes, content: bytes) -> bytes:
    """Return a plain box: size, type, content."""
    return struct.pack(">I4s", len(content) + _HEADER, kind) + content


def superbox(kind: bytes, label: str, *content: bytes, salt: bytes = b"") -> bytes:
    """Return a superbox of ``content`` boxes. ``salt`` (16 or 32 bytes) keeps its hash from being guessed."""
    toggles = _REQUESTABLE | (_PRIVATE if salt else 0)
    private = box(b"c2sh", salt) if salt else b""
    description = kind + _TYPE_SUFFIX + bytes([toggles]) + label.encode() + b"\0" + private
    return box(b"jumb", box(b"jumd", description) + b"".join(content))


def cbor_box(kind: bytes, label: str, value: Any, *, salt: bytes = b"") -> Superbox:
    """Return a superbox that holds one CBOR value."""
    content = box(CBOR, cbor2.dumps(value))
    raw = superbox(kind, label, content, salt=salt)
    return Superbox(kind, label, raw, len(raw) - len(content))


def parse(raw: bytes) -> tuple[Superbox, ...]:
    """Return the superboxes that ``raw`` consists of; ProvenanceError if it is not made of them alone."""
    return tuple(_superboxes(raw, 0, len(raw)))


def manifests(store: bytes) -> tuple[Superbox, ...]:
    """Return the manifests of a manifest store, the active one last. ProvenanceError if it is no such store."""
    outer = parse(store)
    if len(outer) != 1 or outer[0].kind != STORE or not (inner := outer[0].children()):
        raise ProvenanceError("this is no C2PA manifest store")
    return inner


def _superboxes(raw: bytes, at: int, end: int) -> Iterator[Superbox]:
    while at < end:
        try:
            size, kind = struct.unpack_from(">I4s", raw, at)
            inner, inner_kind = struct.unpack_from(">I4s", raw, at + _HEADER)
            if kind != b"jumb" or inner_kind != b"jumd" or size < _HEADER + inner or at + size > end:
                raise ValueError(f"a box {kind!r} of {size} bytes does not fit")
            start, stop = at + _HEADER + _DESCRIPTION, at + _HEADER + inner
            label = raw[start : raw.index(b"\0", start, stop)].decode()
        except (struct.error, ValueError) as error:
            raise ProvenanceError(f"damaged JUMBF: {error}") from error
        yield Superbox(raw[at + 16 : at + 20], label, raw[at : at + size], _HEADER + inner)
        at += size
