"""How much work a file is for the C2PA library, found out without it.

The library bounds nesting, but not time and memory: they grow with the square of the number of boxes in a manifest
store, and of those in an MP4's index (40,000 boxes in 320 kB: ten seconds). What is of ordinary extent can be read
right here; for anything else ``sandbox`` has a process that can be killed. No judgement about validity is made.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError
from safegen.provenance.native.boxes import Box, top_level

C2PA_UUID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")

SMALL_STORE: Final = 64 << 10
"""A manifest store of so many bytes is never much work, unless it is compressed."""

MAX_STORE: Final = 32 << 20
MAX_BOXES: Final = 2_000
MAX_CLAIMS: Final = 256 << 10
"""Bytes of claims: each names assertions, 60 bytes and more apiece, and every one is repeated in the report."""

MAX_REPEATED: Final = 32 << 20
MAX_INDEX: Final = 32 << 20
"""Bytes of an MP4's boxes without media: the index of a film of about 80 hours."""

MAX_INDEX_BOXES: Final = 4_000
SMALL_FILE: Final = MAX_INDEX_BOXES * 16
"""A damaged MP4 of so many bytes cannot hold more boxes than are bearable."""

MAX_SEARCHED: Final = 32 << 20
"""Images and damaged files up to this size are searched for manifest stores."""

_COMPRESSED: Final = b"brob"
_MEDIA: Final = (b"mdat", b"free", b"skip", b"wide")
_BMFF: Final = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"uuid")
_MARKS: Final = {b"\x89PNG": b"caBX", b"RIFF": b"C2PA"}
_NEVER_EMBEDDED: Final = (b"\x1a\x45\xdf\xa3",)  # Matroska, WebM
_JPEG_MARKER: Final = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # but for stuffed zeros and restarts
_CLAIM: Final = ((b"c2cl", 16), (b"c2pa.claim", 33))  # type and label of a claim, and where they stand in its box
_CONTAINERS: Final = frozenset(
    b"moov trak mdia minf stbl moof traf edts udta dinf tref treg mvex mfra schi sinf rinf meta iprp ipco ilst "
    b"strk strd meco fiin paen gmhd wave hinf hnti".split()
)  # all that any version of the library might look into
_LARGEST_PREFIX: Final = 64  # of a C2PA uuid box before its manifest: version, purpose, offset


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at a file gave. ``boxes`` are an MP4's or MOV's top level, empty if it is none or has gaps.

    ``damaged``: how many boxes the library finds in it cannot be foretold; it reads the head of each, which is seen.
    """

    ordinary: bool
    boxes: tuple[Box, ...] = ()
    damaged: bool = False


def survey(file: BinaryIO) -> Survey:
    """Look at a file of any kind: whether reading it with the library is of ordinary extent."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    if head[4:8] in _BMFF:
        try:
            boxes = top_level(file)
        except UnreadableMediaError:
            return Survey(size <= MAX_SEARCHED and _search(file, C2PA_UUID, 16), damaged=size > SMALL_FILE)
        return Survey(_bmff(file, boxes), boxes)
    if head.startswith(_NEVER_EMBEDDED):
        return Survey(True)
    if size > MAX_SEARCHED:
        return Survey(False)
    if mark := _MARKS.get(head[:4]):
        return Survey(_search(file, mark, 4 if mark == b"caBX" else 8))
    if head[:2] == b"\xff\xd8":
        return Survey(_jpeg(file))
    return Survey(False)


def is_ordinary_store(raw: bytes) -> bool:
    """Whether a manifest store is of ordinary extent."""
    if len(raw) > MAX_STORE or _COMPRESSED in raw:
        return False
    if len(raw) <= SMALL_STORE:
        return True
    try:
        return _Extent.of(raw).ordinary
    except (struct.error, ValueError):
        return _Extent.at_most(raw).ordinary


@dataclass(slots=True)
class _Extent:
    boxes: int = 0
    claims: int = 0  # bytes
    longest: int = 0  # bytes of the longest box of words, which the report repeats wherever a claim names it

    @property
    def ordinary(self) -> bool:
        repeated = self.claims // 60 * self.longest
        return self.boxes <= MAX_BOXES and self.claims <= MAX_CLAIMS and repeated <= MAX_REPEATED

    @classmethod
    def of(cls, raw: bytes) -> _Extent:
        """Return the extent of an intact store; struct.error or ValueError for any other."""
        found, waiting = cls(), [(0, len(raw), False)]
        while waiting and found.boxes <= MAX_BOXES:
            at, end, in_claim = waiting.pop()
            while at < end and found.boxes <= MAX_BOXES:
                size, kind = struct.unpack_from(">I4s", raw, at)
                if size < 8 or at + size > end:
                    raise ValueError("it does not fit")
                if kind == b"jumb":
                    found.boxes += 1
                    waiting.append((at + 8, at + size, any(raw.startswith(m, at + o) for m, o in _CLAIM)))
                elif kind in (b"cbor", b"json"):
                    if in_claim:
                        found.claims += size
                    else:
                        found.longest = max(found.longest, size)
                at += size
        return found

    @classmethod
    def at_most(cls, raw: bytes) -> _Extent:
        """Return what the extent of a damaged store cannot exceed."""
        claims = 0
        for mark, offset in _CLAIM:
            for at in _all(raw, mark):
                start = at - offset
                if start >= 0 and raw[start + 4 : start + 8] == b"jumb":
                    size = int.from_bytes(raw[start : start + 4], "big")
                    claims += size if 8 <= size <= len(raw) - start else len(raw) - start
        return cls(raw.count(b"jumb"), claims, len(raw))


def _bmff(file: BinaryIO, boxes: tuple[Box, ...]) -> bool:
    index, count = 0, len(boxes)
    for box in boxes:
        if box.extended == C2PA_UUID:
            if box.size > MAX_STORE:
                return False
            file.seek(box.start)
            if not _is_ordinary_from(file.read(box.size), 24):
                return False
        elif box.kind not in _MEDIA:
            index += box.size
            if index > MAX_INDEX or count > MAX_INDEX_BOXES:
                return False
            if box.kind in _CONTAINERS:
                file.seek(box.start)
                count += _boxes_in(file.read(box.size), MAX_INDEX_BOXES)
    return count <= MAX_INDEX_BOXES


def _boxes_in(raw: bytes, limit: int) -> int:
    """Return how many boxes are in a container, to any depth; more than ``limit`` if they do not fit each other."""
    count, waiting = 0, [(0, len(raw))]
    while waiting:
        at, end = waiting.pop()
        while end - at >= 8:
            size, kind = struct.unpack_from(">I4s", raw, at)
            head = 8
            if size == 1 and end - at >= 16:
                (size,), head = struct.unpack_from(">Q", raw, at + 8), 16
            elif size == 0:
                size = end - at
            count += 1
            if size < head or size > end - at or count > limit:
                return limit + 1
            if kind == b"meta" and not raw[at + head + 4 : at + head + 8].isalnum():
                head += 4  # version and flags, which QuickTime's has not
            if kind in _CONTAINERS:
                waiting.append((at + head, at + size))
            at += size
        if any(raw[at:end]):  # QuickTime ends some lists with zeros
            return limit + 1
    return count


def _is_ordinary_from(content: bytes, at: int) -> bool:
    start = content.find(b"jumb", at, at + _LARGEST_PREFIX) - 4
    if start < 0:
        return len(content) <= SMALL_STORE  # no manifest store; Merkle hashes perhaps
    size = int.from_bytes(content[start : start + 4], "big")
    return is_ordinary_store(content[start : start + size] if size >= 8 else content[start:])


def _search(file: BinaryIO, mark: bytes, behind: int) -> bool:
    """Whether every manifest store in a file is of ordinary extent. It starts ``behind`` bytes after a ``mark``."""
    content = _all_of(file)
    for at in _all(content, mark):
        start = content.find(b"jumb", at + behind, at + behind + _LARGEST_PREFIX) - 4
        if start >= 0 and not _is_ordinary_from(content[start : start + MAX_STORE + 1], 0):
            return False
    return True


def _all_of(file: BinaryIO) -> bytes:
    """Read a file. Not mapped into memory: a file that another process cuts short would then crash this one."""
    file.seek(0)
    return file.read(MAX_SEARCHED)


def _all(content: bytes, mark: bytes) -> Iterator[int]:
    at = content.find(mark)
    while at >= 0:
        yield at
        at = content.find(mark, at + 1)


def _jpeg(file: BinaryIO) -> bool:
    """The same for JPEG, where a store is cut into APP11 segments, each with the head of its first box again."""
    stores: dict[bytes, bytearray] = {}
    total = 0
    content, at = _all_of(file), 2
    while (found := _JPEG_MARKER.search(content, at)) is not None:
        at = found.end()
        kind = content[at - 1]
        if kind in (0xD8, 0xD9, 0x01):
            continue
        size = int.from_bytes(content[at : at + 2], "big")
        segment = content[at + 2 : at + size]
        at += size
        if kind != 0xEB or segment[:2] != b"JP":
            continue
        store = stores.setdefault(segment[2:4], bytearray())
        store += segment[16:] if store else segment[8:]
        total += 1
        if total > MAX_BOXES or len(store) > MAX_STORE:
            return False
    return all(is_ordinary_store(bytes(store)) for store in stores.values())
