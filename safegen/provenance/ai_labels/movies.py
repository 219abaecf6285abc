"""The metadata of MP4 and MOV (boxes) and of Matroska and WebM (EBML tags)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from safegen.provenance.ai_labels.metadata import MAX_PARTS, MAX_TEXT, Collected, window

BEGINNINGS: Final = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide"})
"""Boxes that a film may begin with."""

MAX_INDEX: Final = 32 << 20
"""Bytes of a ``moov`` box that are read."""

_XMP_UUID: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_TUNES: Final = {b"\xa9cmt": "comment", b"\xa9too": "encoder", b"\xa9des": "description", b"desc": "description"}
_MAX_DEPTH: Final = 8
_INSIDE: Final = frozenset({b"moov", b"udta", b"trak"})

_SEGMENT, _TAGS, _TAG, _SIMPLE_TAG = 0x18538067, 0x1254C367, 0x7373, 0x67C8
_TAG_NAME, _TAG_STRING = 0x45A3, 0x4487
_MASTERS: Final = frozenset({_SEGMENT, _TAGS, _TAG, _SIMPLE_TAG})


def read_mp4(file: BinaryIO, found: Collected) -> None:
    """ISO/IEC 14496-12 and QuickTime: ``meta`` with ``keys`` and ``ilst``, iTunes' and QuickTime's texts, XMP."""
    size, at = file.seek(0, 2), 0
    for _ in range(MAX_PARTS):
        head = window(file, at, 32)
        if len(head) < 8 or found.full:
            return
        length, kind = struct.unpack_from(">I4s", head)
        body = 8
        if length == 1 and len(head) >= 16:
            (length,), body = struct.unpack_from(">Q", head, 8), 16
        elif length == 0:
            length = size - at
        if length < body:
            return
        if kind == b"uuid" and head[body : body + 16] == _XMP_UUID:
            found.packet("MP4 XMP", window(file, at + body + 16, max(0, min(length - body - 16, MAX_TEXT))))
        elif kind in (b"moov", b"meta") and length <= MAX_INDEX:
            content = window(file, at + body, length - body)
            _meta(content, found) if kind == b"meta" else _boxes_with_texts(content, found)
        at += length


def _boxes_with_texts(index: bytes, found: Collected) -> None:
    waiting, left = [(index, 0)], MAX_PARTS
    while waiting and left > 0:
        data, depth = waiting.pop()
        for kind, body in _boxes(data, left):
            left -= 1
            if kind in _INSIDE and depth < _MAX_DEPTH:
                waiting.append((body, depth + 1))
            elif kind == b"meta":
                _meta(body, found)
            elif kind == b"XMP_":
                found.packet("MP4 XMP", body)
            elif kind[:1] == b"\xa9" and len(body) > 4:  # QuickTime: length, language, text
                found.text("MP4 udta", _TUNES.get(kind, kind.decode("latin-1")), body[4:])


def _meta(meta: bytes, found: Collected) -> None:
    parts = dict(_boxes(meta if meta[4:8] == b"hdlr" else meta[4:], 64))
    keys = _keys(parts.get(b"keys", b""))
    for kind, item in _boxes(parts.get(b"ilst", b""), MAX_PARTS):
        inside = dict(_boxes(item, 16))
        if (data := inside.get(b"data")) is None:
            continue
        number = int.from_bytes(kind, "big")
        if 1 <= number <= len(keys):
            key = keys[number - 1]
        elif kind == b"----":
            key = inside.get(b"name", b"")[4:].decode("latin-1")
        else:
            key = _TUNES.get(kind, kind.decode("latin-1"))
        found.text("MP4 ilst", key, data[8:])


def _keys(box: bytes) -> list[str]:
    found: list[str] = []
    at = 8
    while at + 8 <= len(box) and len(found) < MAX_PARTS:
        size = int.from_bytes(box[at : at + 4], "big")
        if size < 8:
            break
        found.append(box[at + 8 : at + size].decode("latin-1"))
        at += size
    return found


def _boxes(data: bytes, most: int) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    for _ in range(most):
        if at + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 0:
            size = len(data) - at
        if size < 8 or at + size > len(data):
            return
        yield kind, data[at + 8 : at + size]
        at += size


def read_matroska(file: BinaryIO, found: Collected) -> None:
    """RFC 9559, 5.1.8: every ``SimpleTag``. Clusters are passed over; one of unknown size ends the search."""
    at, name = 0, ""
    for _ in range(MAX_PARTS):
        head = window(file, at, 12)
        number, width = _vint(head, keep_marker=True)
        size, more = _vint(head[width:], keep_marker=False)
        if not width or not more or found.full:
            return
        body = at + width + more
        unknown = size == (1 << 7 * more) - 1
        if number in _MASTERS:
            at = body
            continue
        if unknown:
            return
        if number in (_TAG_NAME, _TAG_STRING):
            text = window(file, body, min(size, MAX_TEXT))
            if number == _TAG_NAME:
                name = text.decode("utf-8", "replace")
            else:
                found.text("Matroska tag", name, text)
        at = body + size


def _vint(raw: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Read a number of variable width (RFC 8794, 4): itself and its bytes, 0 bytes where there is none."""
    width = 9 - raw[0].bit_length() if raw and raw[0] else 0
    if not width or len(raw) < width:
        return 0, 0
    value = int.from_bytes(raw[:width], "big")
    return (value if keep_marker else value & ~(1 << 7 * width)), width
