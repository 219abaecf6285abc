"""AIGC labels at the place of GB 45438's Annex B: EXIF UserComment. Read only."""

from __future__ import annotations

import struct
from typing import Final

from PIL import Image

from safegen.errors import UnreadableMediaError
from safegen.media.pieces import RawLabel

PLACE: Final = "EXIF UserComment (Annex B)"

_EXIF_IFD: Final = 0x8769
_USER_COMMENT: Final = 0x9286
_CODE_BYTES: Final = 8  # "ASCII\0\0\0" and its like


def find(block: bytes) -> list[RawLabel]:
    """Return the label in an EXIF block (TIFF data, with or without ``Exif\\0\\0``); other comments are no labels."""
    exif = Image.Exif()
    try:
        exif.load(block if block.startswith(b"Exif\0\0") else b"Exif\0\0" + block)
        comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, EOFError, struct.error) as error:
        raise UnreadableMediaError(f"the file's EXIF metadata is damaged ({error})") from error
    if not isinstance(comment, bytes):
        return []
    text = comment[_CODE_BYTES:].decode("utf-8", "replace").strip("\0 ")
    return [RawLabel(PLACE, text)] if text.startswith("{") and '"AIGC"' in text else []
