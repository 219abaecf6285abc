"""The metadata of PNG, JPEG and WebP files, and packets and blocks in files of any other format."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from safegen.provenance.ai_labels.exif_words import add_exif
from safegen.provenance.ai_labels.metadata import MAX_PARTS, MAX_TEXT, Collected, inflated, window

_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_XMP_SEGMENT: Final = b"http://ns.adobe.com/xap/1.0/\0"
_SEARCHED: Final = 8 << 20
_MOST: Final = 8  # packets, and blocks of either byte order
_TIFF_HEADS: Final = (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")


def read_png(file: BinaryIO, found: Collected) -> None:
    """PNG, third edition, 11.3.3 (text) and 11.3.4.6 (eXIf)."""
    at = 8
    for _ in range(MAX_PARTS):
        head = window(file, at, 8)
        if len(head) < 8 or found.full:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            _png_text(kind, file.read(min(length, MAX_TEXT)), found)
        at += length + 12


def _png_text(kind: bytes, body: bytes, found: Collected) -> None:
    if kind == b"eXIf":
        add_exif("PNG eXIf", body, found)
        return
    keyword, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        rest = inflated(rest[1:])
    elif kind == b"iTXt":
        packed, parts = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
        if len(parts) != 3:
            return
        rest = inflated(parts[2]) if packed else parts[2]
    if keyword == _XMP_KEYWORD:
        found.packet("PNG XMP", rest)
    else:
        found.text(f"PNG {kind.decode()}", keyword[:79].decode("latin-1"), rest)


def read_jpeg(file: BinaryIO, found: Collected) -> None:
    """Segments up to the first scan: APP1 (EXIF, XMP) and COM."""
    at = 2
    for _ in range(MAX_PARTS):
        head = window(file, at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA) or found.full:
            return
        if head[1] == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(head[2:], "big")
        if head[1] in (0xE1, 0xFE):
            body = file.read(max(0, length - 2))
            if head[1] == 0xFE:
                found.text("JPEG comment", "comment", body)
            elif body.startswith(_XMP_SEGMENT):
                found.packet("JPEG XMP", body[len(_XMP_SEGMENT) :])
            elif body.startswith(b"Exif\0\0"):
                add_exif("JPEG EXIF", body, found)
        at += 2 + max(2, length)


def read_webp(file: BinaryIO, found: Collected) -> None:
    """RIFF chunks ``EXIF`` and ``XMP ``."""
    at = 12
    for _ in range(MAX_PARTS):
        head = window(file, at, 8)
        if len(head) < 8 or found.full:
            return
        kind, length = struct.unpack("<4sI", head)
        if kind == b"XMP ":
            found.packet("WebP XMP", file.read(min(length, MAX_TEXT)))
        elif kind == b"EXIF":
            add_exif("WebP EXIF", file.read(min(length, MAX_TEXT)), found)
        at += 8 + length + length % 2


def search(file: BinaryIO, found: Collected) -> None:
    """XMP packets (XMP specification, part 3) and EXIF blocks in files of other formats, within the first 8 MiB."""
    content = window(file, 0, _SEARCHED)
    at = 0
    for _ in range(_MOST):
        start = content.find(b"<x:xmpmeta", at)
        end = content.find(b"</x:xmpmeta>", start)
        if start < 0 or end < 0:
            break
        at = end + 12
        found.packet("XMP", content[start:at])
    for order in _TIFF_HEADS:
        at = -1
        for _ in range(_MOST):
            at = content.find(order, at + 1)
            if at < 0:
                break
            add_exif("EXIF", content[at : at + MAX_TEXT], found)
