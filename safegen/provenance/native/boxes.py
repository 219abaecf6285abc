"""ISO base media boxes (ISO/IEC 14496-12): the file's top level, and moving the absolute offsets inside a box."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError

MAX_BOXES: Final = 200_000
MAX_INDEX_BYTES: Final = 64 << 20
"""Boxes that are rewritten in memory (``moov``, ``moof``, ``mfra``) may be this long: an index of about 200 hours."""

LOOSE: Final = b""
"""What bytes that belong to no box are called."""

_WITHOUT_FTYP: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})
_KNOWN: Final = _WITHOUT_FTYP | {
    b"ftyp", b"moof", b"mfra", b"uuid", b"meta", b"sidx", b"ssix", b"styp", b"emsg", b"prft", b"pdin", b"udta", b"imda",
}  # fmt: skip
"""Boxes at the top of a film: one that is cut off is damage, whatever stands before it."""

_DAMAGED: Final = "Give the whole file, as the encoder finished it."
# Which children to look into: a fixed path, so that nesting in the file cannot drive recursion. Where nothing inside is
# wanted, its boxes must fit all the same: other readers stumble there.
_INSIDE: Final[dict[bytes, tuple[bytes, ...]]] = {
    b"moov": (b"trak", b"meta", b"udta", b"mvex"),
    b"mvex": (),
    b"udta": (b"meta",),
    b"trak": (b"mdia", b"meta", b"edts"),
    b"edts": (),
    b"mdia": (b"minf",),
    b"minf": (b"stbl", b"dinf"),
    b"dinf": (),
    b"stbl": (b"stco", b"co64", b"saio"),
    b"moof": (b"traf",),
    b"traf": (b"tfhd",),
    b"mfra": (b"tfra",),
    b"meta": (b"iloc",),
}


@dataclass(frozen=True, slots=True)
class Box:
    """A box: where it starts, its whole length, its type, and for ``uuid`` boxes their extended type."""

    start: int
    size: int
    kind: bytes
    extended: bytes = b""

    @property
    def end(self) -> int:
        """The offset right behind it."""
        return self.start + self.size


OTHER_BACKEND: Final = "Sign it with the backend c2pa-python."


class OtherLayoutError(UnreadableMediaError):
    """The file may well be whole, but keeps its parts in a way that this writer does not know."""


def damaged(what: str) -> UnreadableMediaError:
    """Return the error about a file that contradicts itself."""
    return UnreadableMediaError(f"the MP4 file is truncated or damaged: {what}", remedy=_DAMAGED)


def top_level(source: BinaryIO, *, lenient: bool = False) -> tuple[Box, ...]:
    """Return the boxes of a file; they follow each other without gaps to its end. UnreadableMediaError otherwise.

    ``lenient``: ``ftyp`` may be missing, as in films of before 2004, and bytes that are no box may follow a film that
    is whole, as some cameras and programs leave them: they are returned as one box of kind ``LOOSE``.
    """
    end, at = source.seek(0, 2), 0
    boxes: list[Box] = []
    while at < end:
        source.seek(at)
        head = source.read(32)
        if len(head) < 8 and lenient and _is_film(boxes):  # a box that was cut off, or two or three bytes too many
            raise OtherLayoutError(f"{len(head)} bytes follow the last box", remedy=OTHER_BACKEND)
        if len(head) < 8 or len(boxes) >= MAX_BOXES:
            raise damaged(f"there is no box at byte {at}")
        size, kind = struct.unpack(">I4s", head[:8])
        if not boxes and kind != b"ftyp" and not (lenient and kind in _WITHOUT_FTYP):
            raise UnreadableMediaError(
                "this is no MP4 or MOV file", remedy="Give such a file, or name its real format."
            )
        length = 8
        if size == 1 and len(head) >= 16:
            (size,), length = struct.unpack(">Q", head[8:16]), 16
        elif size == 0:
            size = end - at
        if size < length or at + size > end:
            if lenient and kind not in _KNOWN and _is_film(boxes):
                return (*boxes, Box(at, end - at, LOOSE))
            raise damaged(f"the box at byte {at} does not fit")
        boxes.append(Box(at, size, kind, head[length : length + 16] if kind == b"uuid" else b""))
        at += size
    return tuple(boxes)


def _is_film(boxes: list[Box]) -> bool:
    kinds = {box.kind for box in boxes}
    return b"moov" in kinds and bool(kinds & {b"mdat", b"moof"})


def read_index(source: BinaryIO, box: Box) -> bytearray:
    """Return a box that is to be rewritten; UnreadableMediaError if it is unreasonably long."""
    if box.size > MAX_INDEX_BYTES:
        raise damaged(f"a {box.kind!r} box of {box.size} bytes")
    source.seek(box.start)
    raw = bytearray(source.read(box.size))
    if len(raw) != box.size:
        raise damaged("it became shorter while it was read")
    return raw


def move_offsets(raw: bytearray, first: int, by: int) -> None:
    """Add ``by`` to every absolute file offset of at least ``first`` in a ``moov``, ``moof`` or ``mfra`` box.

    Raises UnreadableMediaError where a table does not fit its box, or an offset would outgrow its 32 bits.
    """
    header = 16 if raw[:4] == b"\0\0\0\1" else 8
    try:
        _walk(raw, bytes(raw[4:8]), header, len(raw), first, by)
    except struct.error as error:
        raise damaged(f"a table of offsets does not fit ({error})") from error


def _walk(raw: bytearray, kind: bytes, at: int, end: int, first: int, by: int) -> None:
    wanted = _INSIDE[kind]
    if kind == b"meta" and raw[at + 4 : at + 8] != b"hdlr":  # QuickTime's has no version and flags
        at += 4
    for child, start, stop in _children(raw, at, end):
        if child not in wanted:
            continue
        if child in _INSIDE:
            _walk(raw, child, start, stop, first, by)
        elif child == b"iloc":
            raise OtherLayoutError("the file keeps items at absolute offsets (iloc)", remedy=OTHER_BACKEND)
        else:
            _TABLES[child](_Table(raw, start, stop, first, by))


def _children(raw: bytearray, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", raw, at)
        length = 8
        if size == 1:
            (size,), length = struct.unpack_from(">Q", raw, at + 8), 16
        if size < length or at + size > end:  # size 0, "to the end", is for the top level alone
            raise damaged(f"a box inside {bytes(raw[4:8])!r} does not fit")
        yield kind, at + length, at + size
        at += size


class _Table:
    """A full box with offsets in it."""

    def __init__(self, raw: bytearray, start: int, end: int, first: int, by: int) -> None:
        self.raw, self.at, self.end, self._first, self._by = raw, start, end, first, by
        (self.version_flags,) = self.take(">I")

    @property
    def version(self) -> int:
        return int(self.version_flags) >> 24

    def take(self, layout: str) -> tuple[int, ...]:
        size = struct.calcsize(layout)
        if self.at + size > self.end:
            raise struct.error(f"{size} bytes wanted at its end")
        values = struct.unpack_from(layout, self.raw, self.at)
        self.at += size
        return values

    def move(self, count: int, layout: str, *, stride: int = 0) -> None:
        """Correct ``count`` offsets, ``stride`` bytes apart."""
        size = struct.calcsize(layout)
        stride = stride or size
        if count and self.at + (count - 1) * stride + size > self.end:
            raise struct.error(f"{count} entries wanted")
        for at in range(self.at, self.at + count * stride, stride):
            (offset,) = struct.unpack_from(layout, self.raw, at)
            if offset >= self._first:
                struct.pack_into(layout, self.raw, at, offset + self._by)


def _chunk_offsets(table: _Table) -> None:
    (count,) = table.take(">I")
    table.move(count, ">I")


def _long_chunk_offsets(table: _Table) -> None:
    (count,) = table.take(">I")
    table.move(count, ">Q")


def _auxiliary_offsets(table: _Table) -> None:
    if table.version_flags & 1:
        table.take(">II")
    (count,) = table.take(">I")
    table.move(count, ">I" if table.version == 0 else ">Q")


def _fragment_header(table: _Table) -> None:
    table.take(">I")
    if table.version_flags & 1:  # base-data-offset-present
        table.move(1, ">Q")


def _fragment_index(table: _Table) -> None:
    _, sizes, count = table.take(">III")
    numbers = sum((sizes >> shift & 3) + 1 for shift in (4, 2, 0))
    time, layout = (4, ">I") if table.version == 0 else (8, ">Q")
    table.at += time
    table.move(count, layout, stride=2 * time + numbers)


_TABLES: Final = {
    b"stco": _chunk_offsets,
    b"co64": _long_chunk_offsets,
    b"saio": _auxiliary_offsets,
    b"tfhd": _fragment_header,
    b"tfra": _fragment_index,
}
