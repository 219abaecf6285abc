"""JPEG (ITU-T T.81): the manifest is one JUMBF box in ``APP11`` segments (ISO/IEC 19566-5 D.2, C2PA 2.4 A.3.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from safegen.errors import ProvenanceError, UnreadableMediaError
from safegen.provenance.native.boxes import OTHER_BACKEND, OtherLayoutError
from safegen.provenance.native.claim import HardBinding
from safegen.provenance.native.jumbf import STORE
from safegen.provenance.native.png import data_hash
from safegen.provenance.native.streaming import BUFFER, Piece

_SOI: Final = b"\xff\xd8"
_EOI: Final = b"\xff\xd9"
_APP0: Final = 0xE0
_APP11: Final = 0xEB
_SOS: Final = 0xDA
_COMMON: Final = b"JP"  # common identifier of JPEG XT boxes
_INSTANCE: Final = 1
SEGMENT_HEAD: Final = 12  # marker, length, identifier, instance, sequence number
BOX_HEAD: Final = 8  # repeated at the beginning of every segment
_MAX_DATA: Final = 65_000  # per segment, without any header; at most 65535 - 2 - 2 - 4 - 8 would fit
_MAX_SEGMENTS: Final = 100_000


class Jpeg:
    """A JPEG file: see ``streaming.Container``. UnreadableMediaError if its segments do not add up."""

    def __init__(self, source: BinaryIO) -> None:
        self._size = source.seek(0, 2)
        source.seek(0)
        if source.read(2) != _SOI:
            raise UnreadableMediaError("this is no JPEG file", remedy="Give a JPEG file, or name its real format.")
        self._at = len(_SOI)
        held = stored(source, self._size)
        if any(_begins_store(source, start) for start, _ in held):
            raise ProvenanceError("the file carries a manifest already", remedy="Name it as an ingredient instead.")
        if held:
            raise OtherLayoutError("the file carries JUMBF of another kind", remedy=OTHER_BACKEND)
        for marker, start, end in _walk(source, self._size):
            if marker == _APP0 and start == len(_SOI):
                self._at = end  # JFIF wants its own segment right after SOI
            if marker == _SOS:
                _check_end(source, end)

    def before(self) -> Iterator[Piece]:
        """Yield SOI and the JFIF segment."""
        yield Piece(0, self._at)

    def after(self, hole: int) -> Iterator[Piece]:
        """Yield everything else."""
        yield Piece(self._at, self._size - self._at)

    def wrap(self, manifest: bytes) -> bytes:
        """Return the segments: each repeats the box's header and carries the next part of its content."""
        return wrap_segments(manifest)

    def wrapped_size(self, size: int) -> int:
        """Return the segments' size."""
        return wrapped_segments_size(size)

    def binding(self, hole: int, digest: bytes) -> HardBinding:
        """Return the hash over all but the segments."""
        return data_hash(self._at, hole, digest)


def wrap_segments(manifest: bytes) -> bytes:
    """Return the segments that hold a manifest store."""
    head, body = manifest[:BOX_HEAD], manifest[BOX_HEAD:]
    segments = []
    for number, start in enumerate(range(0, len(body), _MAX_DATA), 1):
        content = head + body[start : start + _MAX_DATA]
        length = len(content) + SEGMENT_HEAD - 2
        segments.append(struct.pack(">BBH2sHI", 0xFF, _APP11, length, _COMMON, _INSTANCE, number) + content)
    return b"".join(segments)


def wrapped_segments_size(size: int) -> int:
    """Return how many bytes ``wrap_segments`` makes of a store of ``size`` bytes."""
    count = -(-(size - BOX_HEAD) // _MAX_DATA)
    return size - BOX_HEAD + count * (SEGMENT_HEAD + BOX_HEAD)


def stored(source: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Return start and end of the segments that hold JUMBF."""
    found = []
    for marker, start, end in _walk(source, size):
        source.seek(start + 4)
        if marker == _APP11 and source.read(2) == _COMMON:
            found.append((start, end))
    return found


def _begins_store(source: BinaryIO, start: int) -> bool:
    source.seek(start)
    return STORE in source.read(SEGMENT_HEAD + 64)


def _walk(source: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of every segment up to the first scan."""
    at = len(_SOI)
    for _ in range(_MAX_SEGMENTS):
        source.seek(at)
        head = source.read(4)
        if head[:2] == b"\xff\xff":  # fill bytes may precede a marker
            at += 1
            continue
        if len(head) < 4 or head[0] != 0xFF or not 0xC0 <= head[1] <= 0xFE or head[1] in (0xD8, 0xD9):
            break
        (length,) = struct.unpack(">H", head[2:])
        end = at + 2 + length
        if length < 2 or end > size:
            break
        yield head[1], at, end
        if head[1] == _SOS:
            return
        at = end
    raise UnreadableMediaError("the JPEG file is truncated or damaged", remedy="Give the whole picture.")


def _check_end(source: BinaryIO, at: int) -> None:
    """Find the end of the picture; other data may follow it."""
    source.seek(at)
    last = b""
    while block := source.read(BUFFER):
        if _EOI in last + block:
            return
        last = block[-1:]
    raise UnreadableMediaError("the JPEG file is truncated", remedy="Give the whole picture.")
