"""AIGC labels in WebP: the XMP packet in the chunk ``XMP ``; EXIF UserComment is read as well."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import InputError, UnreadableMediaError
from safegen.media import exif, xmp
from safegen.media.pieces import Piece, RawLabel, Stretch, read_at, size_of

PLACE: Final = f"chunk 'XMP ' ({xmp.PROPERTY})"

_HEADER: Final = 12
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10
_PICTURES: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X"})


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + 8 + self.length + self.length % 2


def find(file: BinaryIO) -> list[RawLabel]:
    """Return the labels; UnreadableMediaError where the chunks are damaged."""
    labels = []
    for chunk in _chunks(file):
        if chunk.kind == b"XMP ":
            labels += [RawLabel(PLACE, text) for text in xmp.find(_body(file, chunk))]
        elif chunk.kind == b"EXIF":
            labels += exif.find(_body(file, chunk))
    return labels


def plan(file: BinaryIO, text: str, source_type: str = "") -> list[Piece]:
    """Return the file, in WebP's extended form, with the label in its XMP packet; InputError if it is signed."""
    chunks = list(_chunks(file))
    if any(chunk.kind == b"C2PA" for chunk in chunks):
        raise InputError("is signed (C2PA); the label would break its manifest", remedy="Label first, sign last.")
    old = next((chunk for chunk in chunks if chunk.kind == b"XMP "), None)
    packet = xmp.merge(None if old is None else _body(file, old), text, source_type)
    pieces: list[Piece] = [_extended(file, chunks[0])]
    for chunk in chunks[1 if chunks[0].kind == b"VP8X" else 0 :]:
        if chunk is not old:
            pieces.append(Stretch(chunk.start, chunk.end))
    pieces.append(_chunk(b"XMP ", packet))
    total = 4 + sum(len(p) if isinstance(p, bytes) else p.end - p.start for p in pieces)
    if total >= 1 << 32:
        raise InputError("is too large for WebP")
    return [b"RIFF" + struct.pack("<I", total) + b"WEBP", *pieces]


def _damaged(what: str) -> UnreadableMediaError:
    return UnreadableMediaError(f"the WebP structure is damaged ({what})", remedy="Fetch or export the file again.")


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    size = size_of(file)
    (length,) = struct.unpack_from("<I", read_at(file, 0, _HEADER), 4)
    end = 8 + length
    if end > size:
        raise _damaged("it is cut off")
    position, first = _HEADER, True
    while position < end:
        if position + 8 > end:
            raise _damaged("a chunk is cut off")
        kind, count = struct.unpack("<4sI", read_at(file, position, 8))
        chunk = _Chunk(kind, position, count)
        if chunk.end > end:
            raise _damaged("a chunk is cut off")
        if first and kind not in _PICTURES:
            raise _damaged("it does not begin with a picture")
        first = False
        yield chunk
        position = chunk.end
    if first:
        raise _damaged("it is empty")


def _body(file: BinaryIO, chunk: _Chunk) -> bytes:
    if chunk.length > xmp.MAX_PACKET:
        raise _damaged("a metadata chunk is larger than 16 MiB")
    return read_at(file, chunk.start + 8, chunk.length)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _extended(file: BinaryIO, first: _Chunk) -> bytes:
    """Return the VP8X chunk that announces an XMP packet: the file's own with the flag set, or a new one."""
    head = read_at(file, first.start + 8, min(10, first.length))
    if len(head) < (5 if first.kind == b"VP8L" else 10):
        raise _damaged("its header")
    if first.kind == b"VP8X":
        return _chunk(b"VP8X", bytes([head[0] | _XMP_FLAG]) + head[1:])
    if first.kind == b"VP8L":  # one byte of signature; 14 bits of width - 1 and height - 1, one of alpha
        bits = int.from_bytes(head[1:5], "little")
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    else:  # a VP8 key frame: three bytes of tag, three of start code, then the sizes
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        alpha = 0
    flags = _XMP_FLAG | (_ALPHA_FLAG if alpha else 0)
    if not (width and height):
        raise _damaged("a picture of no size")
    sizes = b"".join((n - 1).to_bytes(3, "little") for n in (width, height))
    return _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sizes)
