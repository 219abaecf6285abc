"""Texts in an EXIF block (CIPA DC-008): description, camera, software, artist, comments."""

from __future__ import annotations

import struct
import warnings
from typing import Final

from PIL import Image

from safegen.provenance.ai_labels.metadata import MAX_TEXT, Collected, decoded

_EXIF_IFD: Final = 0x8769
_NAMES: Final = {
    0x010D: "DocumentName", 0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software",
    0x013B: "Artist", 0x9286: "UserComment", 0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9E: "XPKeywords",
}  # fmt: skip
_UTF16: Final = frozenset({0x9C9B, 0x9C9C, 0x9C9E})
_BREAKS: Final = (
    SyntaxError, ValueError, KeyError, TypeError, OSError, EOFError, IndexError, OverflowError, struct.error,
)  # fmt: skip
"""What Pillow raises on damaged blocks."""


def add_exif(place: str, block: bytes, found: Collected) -> None:
    """Add the texts of a block (TIFF data, with or without ``Exif\\0\\0``)."""
    exif = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow tells the terminal of damage
            exif.load(block if block.startswith(b"Exif\0\0") else b"Exif\0\0" + block)
            values = {**dict(exif), **exif.get_ifd(_EXIF_IFD)}
    except _BREAKS:
        return
    for tag, value in values.items():
        if tag in _NAMES and isinstance(value, bytes | str | tuple):
            found.text(place, _NAMES[tag], _text(tag, value))


def _text(tag: int, value: bytes | str | tuple[object, ...]) -> str:
    if isinstance(value, tuple):
        value = bytes(n for n in value if isinstance(n, int) and 0 <= n < 256)
    if isinstance(value, str):
        return value.strip("\0 ")
    value = value[:MAX_TEXT]
    if tag in _UTF16:
        return value.decode("utf-16-le", "replace").strip("\0 ")
    if tag != 0x9286:
        return decoded(value)
    code, text = value[:8], value[8:]  # which characters follow, by name
    if code.startswith(b"UNICODE"):
        # The byte order is the block's, but writers differ: text that is Latin for the most part tells it.
        order = "utf-16-le" if text[1::2].count(0) > text[0::2].count(0) else "utf-16-be"
        return text.decode(order, "replace").strip("\0 ")
    return decoded(text if code.rstrip(b"\0") in (b"", b"ASCII", b"JIS") else value).strip("\0 ")
