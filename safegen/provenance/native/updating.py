"""Where an update manifest goes (C2PA 2.4 §11.2.4, A.3, A.5.3): media and earlier manifests stay as they are.

PNG and JPEG have one manifest store, which grows. In MP4 and MOV nothing may move: the first store stays in its place,
from now on called ``original``, and updates go into a store of their own at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, Final

from safegen.errors import ProvenanceError, UnreadableMediaError
from safegen.provenance.manifest import MediaFormat
from safegen.provenance.native.bmff import C2PA_UUID
from safegen.provenance.native.boxes import MAX_INDEX_BYTES, Box, OtherLayoutError, top_level
from safegen.provenance.native.claim import HardBinding
from safegen.provenance.native.jpeg import BOX_HEAD, SEGMENT_HEAD, stored, wrap_segments, wrapped_segments_size
from safegen.provenance.native.jumbf import Superbox, manifests
from safegen.provenance.native.png import CHUNK, chunks, wrap_chunk
from safegen.provenance.native.streaming import Piece

_UPDATE_HEAD: Final = C2PA_UUID + bytes(4) + b"update\0" + bytes(8)  # version and flags, purpose, no Merkle box
_PURPOSES: Final = (b"manifest\0", b"original\0", b"update\0")
_OTHERWISE: Final = "Update it with the backend c2pa-python."


@dataclass(frozen=True, slots=True)
class Updated:
    """A signed file: see ``streaming.Container``.

    ``earlier`` are the manifests that the new store begins with, ``original`` those that stay in one of their own.
    """

    earlier: tuple[Superbox, ...]
    original: tuple[Superbox, ...]
    head: tuple[Piece, ...]
    tail: tuple[Piece, ...]
    wrap: Callable[[bytes], bytes]
    wrapped_size: Callable[[int], int]

    def before(self) -> tuple[Piece, ...]:
        """Return what comes before the store."""
        return self.head

    def after(self, hole: int) -> tuple[Piece, ...]:
        """Return what comes behind it."""
        return self.tail

    def binding(self, hole: int, digest: bytes) -> HardBinding | None:
        """Return None: that of the first manifest goes on to hold."""
        return None


def bmff(source: BinaryIO) -> Updated:
    """An MP4 or MOV file: what updates it has are moved into the new box at the end, all else stays in place."""
    boxes = top_level(source)
    stores = [box for box in boxes if box.extended == C2PA_UUID]
    read = [_stored(source, box) for box in stores]
    purposes = [purpose for purpose, _, _ in read]
    if not stores:
        raise _unsigned()
    last = stores[-1] if purposes == [b"original\0", b"update\0"] else None
    if purposes != [b"manifest\0"] and (last is None or last != boxes[-1]):
        raise OtherLayoutError("the file's manifests are laid out in another way", remedy=_OTHERWISE)
    source.seek(boxes[-1].start)
    if source.read(4) == bytes(4):
        raise OtherLayoutError("the file's last box has no size of its own", remedy=_OTHERWISE)
    _, at, _ = read[0]
    renamed = Piece(at, len(_PURPOSES[1]), _PURPOSES[1], hashed=False)
    end = boxes[-1].end if last is None else last.start
    behind = at + len(_PURPOSES[1])
    head = (Piece(0, at, hashed=False), renamed, Piece(behind, end - behind, hashed=False))
    earlier = () if last is None else manifests(read[1][2])
    return Updated(earlier, manifests(read[0][2]), head, (), _update_box, lambda size: 8 + len(_UPDATE_HEAD) + size)


def png(source: BinaryIO) -> Updated:
    """A PNG file: its chunk is written anew, with all that it held."""
    size = source.seek(0, 2)
    found = [(start, length) for kind, start, length in chunks(source, size) if kind == b"caBX"]
    if len(found) != 1:
        raise _unsigned()
    ((start, length),) = found
    earlier = manifests(_read_manifest(source, start + 8, length))
    end = start + length + CHUNK
    tail = (Piece(end, size - end, hashed=False),)
    return Updated(earlier, (), (Piece(0, start, hashed=False),), tail, wrap_chunk, lambda size: size + CHUNK)


def jpeg(source: BinaryIO) -> Updated:
    """A JPEG file: its segments are written anew, with all that they held."""
    size = source.seek(0, 2)
    segments = stored(source, size)
    if not segments:
        raise _unsigned()
    start, end = segments[0][0], segments[-1][1]
    if any(one[1] != other[0] for one, other in pairwise(segments)):
        raise OtherLayoutError("the file's manifests are laid out in another way", remedy=_OTHERWISE)
    parts = [_read_manifest(source, at + SEGMENT_HEAD, stop - at - SEGMENT_HEAD) for at, stop in segments]
    earlier = manifests(parts[0] + b"".join(part[BOX_HEAD:] for part in parts[1:]))
    tail = (Piece(end, size - end, hashed=False),)
    return Updated(earlier, (), (Piece(0, start, hashed=False),), tail, wrap_segments, wrapped_segments_size)


UPDATED: Final[dict[MediaFormat, Callable[[BinaryIO], Updated]]] = {
    MediaFormat.MP4: bmff,
    MediaFormat.MOV: bmff,
    MediaFormat.PNG: png,
    MediaFormat.JPEG: jpeg,
}


def _stored(source: BinaryIO, box: Box) -> tuple[bytes, int, bytes]:
    """Return a store's purpose, where in the file that stands, and the store itself."""
    raw = _read_manifest(source, box.start, box.size)
    at = (16 if raw[:4] == b"\0\0\0\1" else 8) + len(C2PA_UUID) + 4
    for purpose in _PURPOSES:
        if raw.startswith(purpose, at):
            return purpose, box.start + at, raw[at + len(purpose) + 8 :]
    raise OtherLayoutError("the file's manifests are laid out in another way", remedy=_OTHERWISE)


def _update_box(manifest: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(_UPDATE_HEAD) + len(manifest), b"uuid") + _UPDATE_HEAD + manifest


def _read_manifest(source: BinaryIO, at: int, length: int) -> bytes:
    if not 0 <= length <= MAX_INDEX_BYTES:
        raise UnreadableMediaError(f"a manifest of {length} bytes", remedy="Give the whole file, undamaged.")
    source.seek(at)
    content = source.read(length)
    if len(content) != length:
        raise UnreadableMediaError("the file became shorter while it was read", remedy="Update a finished file.")
    return content


def _unsigned() -> ProvenanceError:
    return ProvenanceError("the file carries no manifest to update", remedy="Sign it instead.")
