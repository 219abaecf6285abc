"""MP4 and MOV: the manifest is a ``uuid`` box after ``ftyp``, before ``moov`` and the media (C2PA 2.4 A.5)."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

from safegen.errors import MediaError, ProvenanceError
from safegen.provenance.native.boxes import (
    LOOSE,
    MAX_INDEX_BYTES,
    OTHER_BACKEND,
    Box,
    OtherLayoutError,
    damaged,
    move_offsets,
    read_index,
    top_level,
)
from safegen.provenance.native.claim import ALG, HardBinding
from safegen.provenance.native.streaming import Piece

C2PA_UUID: Final = uuid.UUID("d8fec3d6-1b0e-483c-9297-5828877ec481").bytes
_PURPOSE: Final = bytes(4) + b"manifest\0" + bytes(8)  # version and flags, purpose, no Merkle box
_OVERHEAD: Final = 8 + len(C2PA_UUID) + len(_PURPOSE)
_EXCLUDED: Final = (b"ftyp", b"mfra")
_REWRITTEN: Final = (b"moov", b"moof", b"mfra")
_MOVABLE: Final = (b"moov", b"free", b"skip", b"wide", b"uuid", b"udta")
_QUICKTIME: Final = struct.pack(">I4s4sI4s", 20, b"ftyp", b"qt  ", 0, b"qt  ")
_SPACE: Final = (b"free", b"skip")
_MEDIA: Final = (b"mdat", b"moof", b"imda")


class Bmff:
    """An MP4 or MOV file: see ``streaming.Container``. UnreadableMediaError if its boxes do not add up.

    Where ``ftyp`` is missing QuickTime's is put in front, and bytes that follow the last box are put into a ``free``
    box: C2PA binds a manifest to boxes.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.boxes = _checked(top_level(source, lenient=True))
        self._old_film = self.boxes[0].kind != b"ftyp"

    @property
    def is_plain(self) -> bool:
        """Whether the file begins with ``ftyp`` and ends with a box."""
        return not self._old_film and self.boxes[-1].kind != LOOSE

    def before(self) -> Iterator[Piece]:
        """Yield ``ftyp``, which C2PA leaves out of the hash."""
        yield Piece(content=_QUICKTIME, hashed=False) if self._old_film else Piece(0, self.boxes[0].size, hashed=False)

    def after(self, hole: int) -> Iterator[Piece]:
        """Yield all other boxes, their offsets into the file corrected."""
        rest = self.boxes if self._old_film else self.boxes[1:]
        moved = hole + len(_QUICKTIME) if self._old_film else hole
        for box in rest:
            content = None
            if box.kind in _REWRITTEN:
                raw = read_index(self._source, box)
                move_offsets(raw, rest[0].start, moved)
                content = bytes(raw)
            elif box.kind == LOOSE:
                raw = read_index(self._source, box)
                content = struct.pack(">I4s", 8 + len(raw), b"free") + raw
            yield _piece(box, box.start + moved, content)

    def wrap(self, manifest: bytes) -> bytes:
        """Return the ``uuid`` box."""
        return struct.pack(">I4s", len(manifest) + _OVERHEAD, b"uuid") + C2PA_UUID + _PURPOSE + manifest

    def wrapped_size(self, size: int) -> int:
        """Return the box's size."""
        return size + _OVERHEAD

    def binding(self, hole: int, digest: bytes) -> HardBinding:
        """Return ``c2pa.hash.bmff.v3``: each top-level box with its offset before it, but for the exclusions."""
        manifest = [{"offset": 8, "value": C2PA_UUID}]
        exclusions: list[dict[str, Any]] = [{"xpath": "/uuid", "data": manifest}]
        exclusions += [{"xpath": f"/{kind.decode()}"} for kind in _EXCLUDED]
        data = {"exclusions": exclusions, "alg": ALG, "hash": digest, "name": "jumbf manifest"}
        return HardBinding("c2pa.hash.bmff.v3", data)


class ReservedRoom:
    """Room that the muxer left between ``ftyp`` and the media: signing there moves ``moov`` at most, never the media.

    ``head`` are the boxes between ``ftyp`` and the room. They move behind the manifest; the media stays where it is,
    so no offset changes.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.container = Bmff(source)
        boxes = self.container.boxes
        if not self.container.is_plain:
            raise MediaError("the file is not laid out in boxes alone", remedy="Sign into a new file.")
        for box in boxes:
            if box.kind in _REWRITTEN:  # the offsets stay; moving them by nothing looks whether its boxes fit
                move_offsets(read_index(source, box), box.end, 0)
        count = next((i for i, b in enumerate(boxes) if b.kind in _MEDIA), len(boxes))
        rooms = [i for i in range(1, count) if boxes[i].kind in _SPACE]
        if not rooms:
            raise MediaError(
                "the file has no room for a manifest before its media",
                remedy="Let the muxer reserve it (ffmpeg: -moov_size), or sign into a new file.",
            )
        best = max(rooms, key=lambda i: boxes[i].size)
        head = boxes[1:best]
        if any(b.kind not in _MOVABLE for b in head) or sum(b.size for b in head) > MAX_INDEX_BYTES:
            raise MediaError("the boxes before the reserved room cannot be moved", remedy="Sign into a new file.")
        self.room, self._rest, self.start = boxes[best], boxes[best + 1 :], boxes[0].end
        self._head = [(box, bytes(read_index(source, box))) for box in head]

    @property
    def moves_boxes(self) -> bool:
        """Whether boxes lie between ``ftyp`` and the room, so that a crash while writing could lose them."""
        return bool(self._head)

    def hole(self, wanted: int) -> int:
        """Return the size of the manifest box: ``wanted``, or a little more where the rest is too small for a box."""
        left = self.room.size - wanted
        if left < 0:
            raise MediaError(
                f"the manifest needs {wanted} bytes; {self.room.size} are reserved",
                remedy="Let the muxer reserve more room, or sign into a new file.",
            )
        return wanted if left == 0 or left >= 8 else self.room.size

    def pieces(self, hole: int) -> Iterator[Piece]:
        """Yield the file as it will be, for hashing."""
        for box, raw in self._head:
            yield _piece(box, box.start + hole, raw)
        space = self._space(hole)
        if space:
            start = self.room.end - len(space)
            yield _piece(Box(start, len(space), b"free"), start, space)
        for box in self._rest:
            yield _piece(box, box.start, None)

    def region(self, wrapped: bytes) -> bytes:
        """Return what stands from ``start`` on once the manifest is in."""
        return wrapped + b"".join(raw for _, raw in self._head) + self._space(len(wrapped))

    def _space(self, hole: int) -> bytes:
        left = self.room.size - hole
        return struct.pack(">I4s", left, b"free") + bytes(left - 8) if left else b""


def _piece(box: Box, offset: int, content: bytes | None) -> Piece:
    hashed = box.kind not in _EXCLUDED
    return Piece(box.start, box.size, content, struct.pack(">Q", offset), hashed)


def _checked(boxes: Iterable[Box]) -> tuple[Box, ...]:
    found = tuple(boxes)
    kinds = [box.kind for box in found]
    if kinds.count(b"ftyp") > 1 or kinds.count(b"moov") != 1 or not set(kinds) & {b"mdat", b"moof"}:
        raise damaged("index or media are missing")
    if b"meta" in kinds:
        raise OtherLayoutError("the file keeps items at absolute offsets (meta)", remedy=OTHER_BACKEND)
    if any(box.extended == C2PA_UUID for box in found):
        raise ProvenanceError("the file carries a manifest already", remedy="Name it as an ingredient instead.")
    return found
