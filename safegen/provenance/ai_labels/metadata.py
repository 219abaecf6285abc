"""A file's metadata as named texts, read within bounds and past any damage.

What cannot be read is left out: a label that nobody could write is no label. Nothing is decoded but text.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError
from safegen.media import xmp
from safegen.provenance.ai_labels.label import Word

MAX_TEXT: Final = 1 << 20
"""Bytes of one text; of a longer one the beginning is read, of a longer XMP packet nothing."""

MAX_BYTES: Final = 8 << 20
"""Bytes of all texts of a file."""

MAX_WORDS: Final = 4096
MAX_PARTS: Final = 20_000
"""Chunks, segments, boxes or elements of a container that are looked at."""


@dataclass(slots=True)
class Collected:
    """What was found so far. ``full``: the bounds are reached, and the rest of the file stays unread."""

    words: list[Word] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        """Whether nothing more is taken."""
        return self.size >= MAX_BYTES or len(self.words) >= MAX_WORDS

    def text(self, place: str, key: str, raw: bytes | str) -> None:
        """Add a text, UTF-8 or Latin-1 where it comes as bytes."""
        if self.full:
            return
        raw = raw[:MAX_TEXT]
        self.size += len(raw) + len(key)
        self.words.append(Word(place, key, raw if isinstance(raw, str) else decoded(raw)))

    def packet(self, place: str, raw: bytes) -> None:
        """Add the properties of an XMP packet."""
        if self.full or len(raw) > MAX_TEXT:
            return
        self.size += len(raw)
        try:
            found = list(xmp.properties(raw))
        except UnreadableMediaError:
            return
        self.words += (Word(place, key, value[:MAX_TEXT]) for key, value in found[: MAX_WORDS - len(self.words)])


def decoded(raw: bytes) -> str:
    """Return text whose encoding is not said: UTF-8 where it is that, else Latin-1."""
    try:
        return raw.decode().strip("\0")
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip("\0")


def inflated(raw: bytes) -> bytes:
    """Return what zlib packed, at most ``MAX_TEXT`` bytes of it; nothing where it is damaged."""
    try:
        return zlib.decompressobj().decompress(raw, MAX_TEXT)
    except zlib.error:
        return b""


def window(file: BinaryIO, at: int, count: int) -> bytes:
    """Return up to ``count`` bytes from ``at``, none where a file says that something stands beyond all files."""
    try:
        file.seek(at)
    except (OSError, OverflowError, ValueError):
        return b""
    return file.read(count)
