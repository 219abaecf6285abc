"""One pass over a file: copy it, hash it, leave room for the manifest. Memory stays at one buffer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from safegen.errors import UnreadableMediaError
from safegen.provenance.native.claim import HardBinding

BUFFER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the result. ``content`` replaces the source's bytes; ``prefix`` enters the hash but not the file."""

    start: int = 0
    length: int = 0
    content: bytes | None = None
    prefix: bytes = b""
    hashed: bool = True


class Container(Protocol):
    """Where a manifest goes in a file of one format, and how the file is hashed around it."""

    def before(self) -> Iterable[Piece]:
        """Yield what comes before the manifest."""
        ...

    def after(self, hole: int) -> Iterable[Piece]:
        """Yield what comes after ``hole`` bytes of wrapped manifest."""
        ...

    def wrap(self, manifest: bytes) -> bytes:
        """Return the manifest in the container's own packing; its size depends on the manifest's size alone."""
        ...

    def wrapped_size(self, size: int) -> int:
        """Return how many bytes ``wrap`` makes of a manifest of ``size`` bytes."""
        ...

    def binding(self, hole: int, digest: bytes) -> HardBinding | None:
        """Return the hard binding for a SHA-256 over all hashed pieces; None where an update manifest goes in."""
        ...


def copy(source: BinaryIO, target: BinaryIO, container: Container, hole: int) -> tuple[int, bytes]:
    """Write the result with ``hole`` zero bytes in place of the manifest; return their offset, and the hash."""
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(BUFFER))
    target.seek(0)
    for piece in container.before():
        _pass(source, piece, hasher, buffer, target)
    at = target.tell()
    target.write(bytes(hole))
    for piece in container.after(hole):
        _pass(source, piece, hasher, buffer, target)
    return at, hasher.digest()


def digest(source: BinaryIO, pieces: Iterator[Piece]) -> bytes:
    """Return the SHA-256 over ``pieces`` without writing anything."""
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(BUFFER))
    for piece in pieces:
        if piece.hashed:
            _pass(source, piece, hasher, buffer, None)
    return hasher.digest()


def _pass(source: BinaryIO, piece: Piece, hasher: hashlib._Hash, buffer: memoryview, target: BinaryIO | None) -> None:
    if piece.hashed:
        hasher.update(piece.prefix)
    if piece.content is not None:
        if piece.hashed:
            hasher.update(piece.content)
        if target is not None:
            target.write(piece.content)
        return
    source.seek(piece.start)
    left = piece.length
    while left:
        count = source.readinto(buffer[: min(left, BUFFER)])  # type: ignore[attr-defined]
        if not count:
            raise UnreadableMediaError("the file became shorter while it was read", remedy="Sign a finished file.")
        if piece.hashed:
            hasher.update(buffer[:count])
        if target is not None:
            target.write(buffer[:count])
        left -= count
