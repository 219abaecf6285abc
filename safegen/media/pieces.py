"""A changed file as a list of pieces: new bytes, and stretches of the old file that are copied without being held."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes ``start`` to ``end`` of the old file."""

    start: int
    end: int


Piece = bytes | Stretch


@dataclass(frozen=True, slots=True)
class RawLabel:
    """A label as it lies in a file: the place, in the container's own terms, and the text found there."""

    place: str
    text: str


def size_of(file: BinaryIO) -> int:
    """Return the file's size in bytes."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Read exactly ``count`` bytes at ``start``; UnreadableMediaError where the file ends before."""
    file.seek(start)
    data = file.read(count)
    if len(data) != count:
        raise UnreadableMediaError("the file ends in the middle of its own structure", remedy="Fetch it again.")
    return data


def copy_pieces(source: BinaryIO, pieces: Sequence[Piece], target: BinaryIO) -> None:
    """Write ``pieces`` to ``target``, holding 1 MiB of the old file at a time."""
    for piece in pieces:
        if isinstance(piece, bytes):
            target.write(piece)
            continue
        position = piece.start
        while position < piece.end:
            chunk = read_at(source, position, min(_CHUNK, piece.end - position))
            target.write(chunk)
            position += len(chunk)
