"""Whether a file holds a manifest store that the C2PA library does not find: what is left of a damaged one.

A credential that is gone and one that was spoiled are not the same. A bit that flips in the name or the purpose of the
box around a store hides it from the library; the store itself is still there to be seen.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError
from safegen.provenance.native.boxes import LOOSE, top_level
from safegen.provenance.survey import C2PA_UUID

_STORE: Final = b"jumd" + bytes.fromhex("6332706100110010800000aa00389b71")
"""Type of the description box of a manifest store, and the UUID of its content (C2PA 2.4, A.2)."""

_TRACES: Final = (C2PA_UUID, _STORE[4:], b"c2pa.claim", b"c2pa.assertions", b"c2pa.signature", b"urn:c2pa:")
_BLOCK: Final = 1 << 20
_MOST_WRONG_BITS: Final = 8
_HEAD: Final = 160  # of a box, segment or chunk: room for what stands before the store
_MOST_PARTS: Final = 4096
_MOST_SEARCHED: Final = 64 << 20
_PLAIN: Final = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"mfra"})


def hidden_store(file: BinaryIO) -> bool:
    """Whether the head of a top-level box (MP4, MOV), segment (JPEG) or chunk (PNG, RIFF) begins a manifest store.

    False for a file of another format, too.
    """
    file.seek(0)
    start = file.read(12)
    if start[:2] == b"\xff\xd8":
        return _in_jpeg(file)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return _in_chunks(file, 8, ">I4s", trailer=4)
    if start[:4] == b"RIFF":
        return _in_chunks(file, 12, "<4sI", trailer=0)
    if start[4:8] not in _PLAIN:
        return False
    try:
        boxes = top_level(file)
    except UnreadableMediaError:
        return _anywhere(file)
    return any(box.kind not in _PLAIN and _begins_store(file, box.start) for box in boxes[:_MOST_PARTS])


def has_no_trace(file: BinaryIO) -> bool:
    """Whether a film that lacks ``ftyp``, or goes on behind its last box, holds nothing of a manifest store.

    The library cannot parse such films, and says no more. False for any other file. Every store has names by which it
    would be found; without them there is no credential that could be read or broken.
    """
    if file.seek(0, 2) > _MOST_SEARCHED:
        return False
    try:
        boxes = top_level(file, lenient=True)
    except UnreadableMediaError:
        return False
    if not boxes or (boxes[0].kind == b"ftyp" and boxes[-1].kind != LOOSE):
        return False
    file.seek(0)
    longest, last = max(map(len, _TRACES)), b""
    while block := file.read(_BLOCK):
        if any(trace in last + block for trace in _TRACES):
            return False
        last = block[-longest:]
    return True


def _in_jpeg(file: BinaryIO) -> bool:
    at = 2
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return False
        if _begins_store(file, at):
            return True
        at += 2 + max(2, int.from_bytes(head[2:], "big"))
    return False


def _in_chunks(file: BinaryIO, at: int, form: str, *, trailer: int) -> bool:
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return False
        if _begins_store(file, at):
            return True
        size = next(field for field in struct.unpack(form, head) if isinstance(field, int))
        at += 8 + size + trailer + (size % 2 if not trailer else 0)
    return False


def _anywhere(file: BinaryIO) -> bool:
    """Search an MP4 whose boxes do not fit: any of them may be the one with the store."""
    file.seek(0)
    return _STORE in file.read(_MOST_SEARCHED)


def _begins_store(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    head = file.read(_HEAD)
    wanted, size = int.from_bytes(_STORE, "big"), len(_STORE)
    return any(
        (int.from_bytes(head[i : i + size], "big") ^ wanted).bit_count() <= _MOST_WRONG_BITS
        for i in range(len(head) - size + 1)
    )
