"""PNG (W3C PNG, third edition): the manifest is a ``caBX`` chunk after ``IHDR`` (C2PA 2.4 A.3.2)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from safegen.errors import ProvenanceError, UnreadableMediaError
from safegen.provenance.native.boxes import OTHER_BACKEND, OtherLayoutError
from safegen.provenance.native.claim import ALG, HardBinding
from safegen.provenance.native.streaming import Piece

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
CHUNK: Final = 12  # length, type and CRC
_HEADER_END: Final = len(SIGNATURE) + 13 + CHUNK
_MAX_CHUNKS: Final = 1_000_000


def data_hash(at: int, hole: int, digest: bytes) -> HardBinding:
    """Return a ``c2pa.hash.data`` assertion over all but the ``hole`` bytes from ``at``."""
    data: dict[str, Any] = {
        "exclusions": [{"start": at, "length": hole}],
        "alg": ALG,
        "hash": digest,
        "name": "jumbf manifest",
        "pad": b"",
    }
    return HardBinding("c2pa.hash.data", data)


class Png:
    """A PNG file: see ``streaming.Container``. UnreadableMediaError if its chunks do not add up."""

    def __init__(self, source: BinaryIO) -> None:
        self._size = source.seek(0, 2)
        source.seek(0)
        if source.read(len(SIGNATURE)) != SIGNATURE:
            raise UnreadableMediaError("this is no PNG file", remedy="Give a PNG file, or name its real format.")
        kinds = [(kind, length) for kind, _, length in chunks(source, self._size)]
        if (
            not kinds
            or kinds[0] != (b"IHDR", 13)
            or kinds[-1] != (b"IEND", 0)
            or not any(k == b"IDAT" for k, _ in kinds)
        ):
            raise UnreadableMediaError("the PNG file is truncated or damaged", remedy="Give the whole picture.")
        if any(kind == b"caBX" for kind, _ in kinds):
            raise ProvenanceError("the file carries a manifest already", remedy="Name it as an ingredient instead.")

    def before(self) -> Iterator[Piece]:
        """Yield signature and IHDR."""
        yield Piece(0, _HEADER_END)

    def after(self, hole: int) -> Iterator[Piece]:
        """Yield all other chunks."""
        yield Piece(_HEADER_END, self._size - _HEADER_END)

    def wrap(self, manifest: bytes) -> bytes:
        """Return the chunk."""
        return wrap_chunk(manifest)

    def wrapped_size(self, size: int) -> int:
        """Return the chunk's size."""
        return size + CHUNK

    def binding(self, hole: int, digest: bytes) -> HardBinding:
        """Return the hash over all but the chunk."""
        return data_hash(_HEADER_END, hole, digest)


def wrap_chunk(manifest: bytes) -> bytes:
    """Return the chunk that holds a manifest store."""
    body = b"caBX" + manifest
    return struct.pack(">I", len(manifest)) + body + struct.pack(">I", zlib.crc32(body))


def chunks(source: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield every chunk's type, start and length of content; UnreadableMediaError if they do not add up."""
    at, count = len(SIGNATURE), 0
    while at < size:
        source.seek(at)
        head = source.read(8)
        count += 1
        if len(head) < 8 or count > _MAX_CHUNKS:
            raise UnreadableMediaError("the PNG file is truncated or damaged", remedy="Give the whole picture.")
        length, kind = struct.unpack(">I4s", head)
        at += length + CHUNK
        if at > size or not kind.isalpha():  # a type is four ASCII letters; readers stop at any other
            raise UnreadableMediaError("the PNG file is truncated or damaged", remedy="Give the whole picture.")
        yield kind, at - length - CHUNK, length
        if kind == b"IEND" and at < size:
            raise OtherLayoutError("bytes follow the end of the picture", remedy=OTHER_BACKEND)
