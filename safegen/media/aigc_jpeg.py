"""AIGC labels in JPEG: the XMP packet in APP1 ``http://ns.adobe.com/xap/1.0/``; EXIF UserComment is read as well."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import InputError, UnreadableMediaError
from safegen.media import exif, xmp
from safegen.media.pieces import Piece, RawLabel, Stretch, read_at, size_of

PLACE: Final = f"APP1 http://ns.adobe.com/xap/1.0/ ({xmp.PROPERTY})"

_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF: Final = b"Exif\0\0"
_APP0, _APP1, _APP11, _SOS, _EOI = 0xE0, 0xE1, 0xEB, 0xDA, 0xD9
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_MAX_SEGMENT: Final = 0xFFFF - 2
_MAX_SEGMENTS: Final = 4096
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int
    body: int
    end: int


def find(file: BinaryIO) -> list[RawLabel]:
    """Return the labels; UnreadableMediaError where the segments are damaged."""
    labels = []
    for segment in _segments(file):
        if segment.marker == _APP1:
            body = _body(file, segment)
            if body.startswith(_XMP):
                labels += [RawLabel(PLACE, text) for text in xmp.find(body[len(_XMP) :])]
            elif body.startswith(_EXIF):
                labels += exif.find(body)
    return labels


def plan(file: BinaryIO, text: str, source_type: str = "") -> list[Piece]:
    """Return the file with the label in its XMP packet, behind JFIF and EXIF.

    InputError if the file is signed, or its packet would no longer fit into a segment.
    """
    segments = _segments(file)
    old = None
    at = 2
    for segment in segments:
        body = _body(file, segment) if segment.marker in (_APP1, _APP11) else b""
        if segment.marker == _APP11 and b"jumb" in body[:64]:
            raise InputError("is signed (C2PA); the label would break its manifest", remedy="Label first, sign last.")
        if segment.marker == _APP0 or body.startswith(_EXIF):
            at = segment.end
        if body.startswith(_XMP) and old is None:
            old = (segment, body[len(_XMP) :])
    packet = _XMP + xmp.merge(None if old is None else old[1], text, source_type)
    if len(packet) > _MAX_SEGMENT:
        raise InputError(
            "has so much XMP metadata that the label does not fit", remedy="Write a copy without it first."
        )
    fresh = struct.pack(">BBH", 0xFF, _APP1, len(packet) + 2) + packet
    start, end = (at, at) if old is None else (old[0].start, old[0].end)
    return [Stretch(0, start), fresh, Stretch(end, size_of(file))]


def _damaged(what: str) -> UnreadableMediaError:
    return UnreadableMediaError(f"the JPEG structure is damaged ({what})", remedy="Fetch or export the file again.")


def _segments(file: BinaryIO) -> list[_Segment]:
    """Return the segments before the picture's data, which must come to an end."""
    size, position = size_of(file), 2
    found: list[_Segment] = []
    while len(found) < _MAX_SEGMENTS:
        if position + 4 > size:
            raise _damaged("its picture is missing")
        lead, marker, length = struct.unpack(">BBH", read_at(file, position, 4))
        if lead != 0xFF or marker in (0x00, _EOI):
            raise _damaged("a segment does not begin with a marker")
        if marker == 0xFF or marker in _BARE:  # a fill byte, or a marker that stands alone
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + length
        if length < 2 or end > size:
            raise _damaged("a segment is cut off")
        if marker == _SOS:
            _check_ends(file, end, size)
            return found
        found.append(_Segment(marker, position, position + 4, end))
        position = end
    raise _damaged("too many segments")


def _check_ends(file: BinaryIO, position: int, size: int) -> None:
    last = b""
    while position < size:
        chunk = read_at(file, position, min(_CHUNK, size - position))
        if b"\xff\xd9" in last + chunk:
            return
        last, position = chunk[-1:], position + len(chunk)
    raise _damaged("its end is missing")


def _body(file: BinaryIO, segment: _Segment) -> bytes:
    return read_at(file, segment.body, segment.end - segment.body)
