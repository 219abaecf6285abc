"""AIGC labels in PNG: the XMP packet in the iTXt chunk ``XML:com.adobe.xmp``; tEXt ``AIGC`` is read as well."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import InputError, UnreadableMediaError
from safegen.media import exif, xmp
from safegen.media.pieces import Piece, RawLabel, Stretch, read_at, size_of

PLACE: Final = f"iTXt XML:com.adobe.xmp ({xmp.PROPERTY})"
OLD_PLACE: Final = "tEXt AIGC (Annex B)"

_KEYWORD: Final = b"XML:com.adobe.xmp\0"
_OLD_KEYWORD: Final = b"AIGC\0"
_SIGNATURE_BYTES: Final = 8
_FRAME: Final = 12  # length, type and checksum of a chunk


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length + _FRAME


def find(file: BinaryIO) -> list[RawLabel]:
    """Return the labels; UnreadableMediaError where the chunks are damaged."""
    labels = []
    for chunk in _chunks(file):
        if chunk.kind == b"tEXt" and (body := _body(file, chunk)).startswith(_OLD_KEYWORD):
            labels.append(RawLabel(OLD_PLACE, body[len(_OLD_KEYWORD) :].decode("latin-1")))
        elif chunk.kind == b"eXIf":
            labels += exif.find(_body(file, chunk))
        elif chunk.kind == b"iTXt" and (packet := _packet(_body(file, chunk))) is not None:
            labels += [RawLabel(PLACE, text) for text in xmp.find(packet)]
    return labels


def plan(file: BinaryIO, text: str, source_type: str = "") -> list[Piece]:
    """Return the file with the label in its XMP packet, which comes before the picture; InputError if it is signed."""
    chunks = list(_chunks(file))
    if any(chunk.kind == b"caBX" for chunk in chunks):
        raise InputError("is signed (C2PA); the label would break its manifest", remedy="Label first, sign last.")
    old = None
    for chunk in chunks:
        if chunk.kind == b"iTXt" and (packet := _packet(_body(file, chunk))) is not None:
            old = (chunk, packet)
            break
    body = _KEYWORD + bytes(4) + xmp.merge(None if old is None else old[1], text, source_type)
    fresh = struct.pack(">I4s", len(body), b"iTXt") + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    after_header = chunks[0].end
    start, end = (after_header, after_header) if old is None else (old[0].start, old[0].end)
    return [Stretch(0, start), fresh, Stretch(end, size_of(file))]


def _damaged(what: str) -> UnreadableMediaError:
    return UnreadableMediaError(f"the PNG structure is damaged ({what})", remedy="Fetch or export the file again.")


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    """Yield the chunks up to IEND; what lies behind it is no part of the picture."""
    size, position = size_of(file), _SIGNATURE_BYTES
    first = True
    while True:
        if position + _FRAME > size:
            raise _damaged("its end is missing")
        length, kind = struct.unpack(">I4s", read_at(file, position, 8))
        chunk = _Chunk(kind, position, length)
        if chunk.end > size:
            raise _damaged("a chunk is cut off")
        if first and kind != b"IHDR":
            raise _damaged("it does not begin with IHDR")
        first = False
        yield chunk
        if kind == b"IEND":
            return
        position = chunk.end


def _body(file: BinaryIO, chunk: _Chunk) -> bytes:
    if chunk.length > xmp.MAX_PACKET:
        raise _damaged("a text chunk is larger than 16 MiB")
    body = read_at(file, chunk.start + 8, chunk.length)
    checksum = read_at(file, chunk.end - 4, 4)
    if zlib.crc32(chunk.kind + body) != int.from_bytes(checksum, "big"):
        raise _damaged("the checksum of a text chunk")
    return body


def _packet(body: bytes) -> bytes | None:
    """Return the XMP packet of an iTXt chunk, None if it holds something else."""
    if not body.startswith(_KEYWORD):
        return None
    parts = body[len(_KEYWORD) + 2 :].split(b"\0", 2)  # language and translated keyword, both empty in XMP
    if len(parts) != 3:
        raise _damaged("the XMP chunk")
    if body[len(_KEYWORD)] == 0:
        return parts[2]
    inflater = zlib.decompressobj()
    try:
        packet = inflater.decompress(parts[2], xmp.MAX_PACKET)
    except zlib.error as error:
        raise _damaged("the XMP chunk") from error
    if not inflater.eof:
        raise _damaged("the XMP chunk is cut off or too large")
    return packet
