"""AIGC labels in MP4 and MOV: ``moov/udta/meta`` with ``keys`` and ``ilst`` (QuickTime metadata, handler mdta)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import InputError, UnreadableMediaError
from safegen.media.pieces import Piece, RawLabel, Stretch, read_at, size_of

PLACE: Final = "moov/udta/meta/ilst (mdta AIGC)"
MAX_MOOV: Final = 64 << 20

_KEY: Final = b"mdtaAIGC"
_ENCODER: Final = b"\xa9too"  # the iTunes tag that names the program which wrote the file
_C2PA: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_ABSOLUTE: Final = frozenset({b"moof", b"mfra", b"sidx", b"ssix", b"meta"})
"""Boxes at the top of a file that hold offsets which we do not mend when the index grows."""


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    body: int  # where the content begins
    end: int


def find(file: BinaryIO) -> list[RawLabel]:
    """Return the labels; UnreadableMediaError where the index is damaged."""
    moov = _moov(file)
    index = read_at(file, moov.body, moov.end - moov.body)
    labels = []
    for path in ((b"udta", b"meta"), (b"meta",)):  # QuickTime's own place is moov/meta
        for meta in _descend(index, path):
            meta_index = index[meta.body : meta.end]
            if _handler(meta_index) == b"mdta":
                place = PLACE if len(path) == 2 else "moov/meta/ilst (mdta AIGC)"
                labels += [RawLabel(place, text) for text in _values(meta_index)]
    return labels


def has_track(file: BinaryIO, handler: bytes) -> bool:
    """Whether the file has a track of a kind (``vide``, ``soun``); UnreadableMediaError where the index is damaged."""
    moov = _moov(file)
    index = read_at(file, moov.body, moov.end - moov.body)
    return any(index[b.body + 8 : b.body + 12] == handler for b in _descend(index, (b"trak", b"mdia", b"hdlr")))


def plan(file: BinaryIO, text: str, source_type: str = "") -> list[Piece]:
    """Return the file with the label in it, every other box as it was but for chunk offsets.

    InputError where the file is signed, fragmented, or holds tags of another kind at the label's place.
    """
    moov = _moov(file)
    for box in _boxes_of_file(file):
        if box.kind in _ABSOLUTE:
            raise InputError(
                f"is no plain MP4 (it has a {box.kind.decode('latin-1')} box)",
                remedy="Write it as an unfragmented MP4 first.",
            )
        if box.kind == b"uuid" and box.end - box.body >= 16 and read_at(file, box.body, 16) == _C2PA:
            raise InputError("is signed (C2PA); the label would break its manifest", remedy="Label first, sign last.")
    index = bytearray(read_at(file, moov.body, moov.end - moov.body))
    udta = next(iter(_descend(bytes(index), (b"udta",))), None)
    new_udta = _box(b"udta", _with_meta(b"" if udta is None else bytes(index[udta.body : udta.end]), text))
    old = (len(index), len(index)) if udta is None else (udta.start, udta.end)
    growth = len(new_udta) - (old[1] - old[0]) + 8 - (moov.body - moov.start)  # the new header has 8 bytes
    _shift_chunks(index, moov.start, growth)
    index[old[0] : old[1]] = new_udta
    return [Stretch(0, moov.start), _box(b"moov", bytes(index)), Stretch(moov.end, size_of(file))]


# -- reading boxes -----------------------------------------------------------------------------------------------------


def _damaged(what: str) -> UnreadableMediaError:
    return UnreadableMediaError(f"the MP4 structure is damaged ({what})", remedy="Fetch or export the file again.")


def _header(head: bytes, start: int, limit: int) -> _Box:
    """Read a box's header; ``limit`` is where what holds the box ends."""
    if len(head) < 8:
        raise _damaged("a box's header is cut off")
    size, kind = struct.unpack_from(">I4s", head)
    body = start + 8
    if size == 1:
        if len(head) < 16:
            raise _damaged("a box's header is cut off")
        (size,) = struct.unpack_from(">Q", head, 8)
        body = start + 16
    end = limit if size == 0 else start + size
    if not body <= end <= limit:
        raise _damaged("a box does not fit into its place")
    return _Box(kind, start, body, end)


def _boxes_of_file(file: BinaryIO) -> Iterator[_Box]:
    size, position = size_of(file), 0
    while position < size:
        box = _header(read_at(file, position, min(16, size - position)), position, size)
        yield box
        position = box.end


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    while start < end:
        if data[start:end] == bytes(4):  # QuickTime may end a user data list so
            return
        box = _header(data[start : min(start + 16, end)], start, end)
        yield box
        start = box.end


def _moov(file: BinaryIO) -> _Box:
    found = [box for box in _boxes_of_file(file) if box.kind == b"moov"]
    if len(found) != 1:
        raise _damaged(f"{len(found)} indices (moov)")
    if found[0].end - found[0].start > MAX_MOOV:
        raise _damaged("the index is larger than 64 MiB")
    return found[0]


def _descend(data: bytes, path: tuple[bytes, ...]) -> list[_Box]:
    """Return every box at ``path`` below the list of boxes in ``data``."""
    at = [_Box(b"", 0, 0, len(data))]
    for kind in path:
        at = [box for parent in at for box in _boxes(data, parent.body, parent.end) if box.kind == kind]
    return at


def _meta_start(meta: bytes) -> int:
    """Where a meta box's list begins: after version and flags in MP4, at once in QuickTime."""
    return 0 if meta[4:8] == b"hdlr" else 4


def _children(meta: bytes) -> dict[bytes, _Box]:
    return {box.kind: box for box in _boxes(meta, _meta_start(meta), len(meta))}


def _handler(meta: bytes) -> bytes:
    hdlr = _children(meta).get(b"hdlr")
    return b"" if hdlr is None else meta[hdlr.body + 8 : hdlr.body + 12]


def _keys(meta: bytes) -> list[bytes]:
    """Return the keys, each as namespace and name; the first has number 1."""
    box = _children(meta).get(b"keys")
    if box is None:
        return []
    found, position = [], box.body + 8
    while position < box.end:
        size = int.from_bytes(meta[position : position + 4], "big")
        if size < 8 or position + size > box.end:
            raise _damaged("the list of metadata keys")
        found.append(meta[position + 4 : position + size])
        position += size
    return found


def _values(meta: bytes) -> Iterator[str]:
    ilst = _children(meta).get(b"ilst")
    numbers = {number.to_bytes(4, "big") for number, key in enumerate(_keys(meta), start=1) if key == _KEY}
    for item in _boxes(meta, ilst.body, ilst.end) if ilst is not None else ():
        if item.kind in numbers:
            for data in _boxes(meta, item.body, item.end):
                if data.kind == b"data":
                    yield _utf8(meta[data.body + 8 : data.end])


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UnreadableMediaError("the file's AIGC label is no UTF-8 text") from error


# -- writing them ------------------------------------------------------------------------------------------------------


def _box(kind: bytes, body: bytes) -> bytes:
    if len(body) + 8 >= 1 << 32:
        raise _damaged("the index is too large")
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _with_meta(udta: bytes, text: str) -> bytes:
    """Return the content of a ``udta`` box with the label in its ``meta``."""
    parts, old = [], b""
    for box in _boxes(udta, 0, len(udta)):
        if box.kind != b"meta":
            parts.append(udta[box.start : box.end])
            continue
        if old:
            raise _damaged("two meta boxes in one place")
        old = udta[box.body : box.end]
    ilst = _children(old).get(b"ilst") if old else None
    tags = [] if ilst is None else [box.kind for box in _boxes(old, ilst.body, ilst.end)]
    if old and _handler(old) != b"mdta":
        if any(kind != _ENCODER for kind in tags):  # ffmpeg -c copy leaves its own name there, which says nothing
            raise InputError(
                "has tags of another kind (iTunes) at the label's place",
                remedy="Write a copy without them first: ffmpeg -i FILE -map_metadata -1 -c copy COPY.",
            )
        old = b""
    return b"".join(parts) + _box(b"meta", _with_item(old, text))


def _with_item(old: bytes, text: str) -> bytes:
    """Return the content of an mdta ``meta`` box in which the key AIGC has the value ``text``."""
    hdlr = _box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    keys, items, others = _keys(old) if old else [], [], []
    if _KEY not in keys:
        keys.append(_KEY)
    number = (keys.index(_KEY) + 1).to_bytes(4, "big")
    for box in _boxes(old, _meta_start(old), len(old)):
        if box.kind == b"ilst":
            items = [old[i.start : i.end] for i in _boxes(old, box.body, box.end) if i.kind != number]
        elif box.kind == b"hdlr":
            hdlr = old[box.start : box.end]
        elif box.kind != b"keys":
            others.append(old[box.start : box.end])
    value = struct.pack(">II", 1, 0) + text.encode()  # type 1: UTF-8; no locale
    items.append(_box(number, _box(b"data", value)))
    listed = struct.pack(">II", 0, len(keys)) + b"".join(struct.pack(">I", len(key) + 4) + key for key in keys)
    return bytes(4) + hdlr + _box(b"keys", listed) + _box(b"ilst", b"".join(items)) + b"".join(others)


def _shift_chunks(index: bytearray, after: int, growth: int) -> None:
    """Add ``growth`` to every chunk offset beyond ``after``: what lies behind the index moves when it grows."""
    data = bytes(index)
    stbl = (b"trak", b"mdia", b"minf", b"stbl")
    if _descend(data, (*stbl, b"saio")):
        raise InputError("is encrypted; its index cannot be changed", remedy="Write a plain copy first.")
    for kind, code, width in ((b"stco", "I", 4), (b"co64", "Q", 8)):
        for box in _descend(data, (*stbl, kind)):
            (count,) = struct.unpack(">I", data[box.body + 4 : box.body + 8].rjust(4, b"\0"))
            if box.body + 8 + count * width > box.end:
                raise _damaged("the list of chunk offsets")
            layout = f">{count}{code}"
            moved = (
                offset + growth if offset > after else offset
                for offset in struct.unpack_from(layout, data, box.body + 8)
            )  # fmt: skip
            try:
                struct.pack_into(layout, index, box.body + 8, *moved)
            except struct.error as error:
                raise InputError("is too large for 32-bit offsets", remedy="Write it with 64-bit offsets.") from error
