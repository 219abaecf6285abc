"""Files that can carry a credential, and whose pictures or sound safegen does not read.

Told by their first bytes, as ``media.formats`` tells the others; the media types are those of C2PA 2.4, A.3 to A.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 4096
"""What is looked at of a file."""

_DNG_VERSION: Final = (b"\xc6\x12", b"\x12\xc6")  # tag 50706, which makes a TIFF file a DNG, in either byte order
_PREAMBLE: Final = ((b"<?", b"?>"), (b"<!--", b"-->"), (b"<!DOCTYPE", b">"))  # of an XML document's root element
_ROOT: Final = re.compile(rb"<(?:\w+:)?svg[\s/>]")
_BEGINNINGS: Final = (
    (b"%PDF-", "PDF", "application/pdf"),
    (b"fLaC", "FLAC", "audio/flac"),
    (b"ID3", "MP3", "audio/mpeg"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "image/jxl"),
    (b"PK\x03\x04", "ZIP (documents and books too)", "application/x-zip"),
)


@dataclass(frozen=True, slots=True)
class Carrier:
    """A format as people call it, and its media type as the C2PA library wants it.

    ``has_decoder``: its pictures are read too, where the decoder is installed and the file is not damaged.
    """

    name: str
    media_type: str
    has_decoder: bool = False


def by_beginning(head: bytes) -> Carrier | None:
    """Recognise what needs no more than a file's first bytes: all but what lies in ISO boxes."""
    for beginning, name, media_type in _BEGINNINGS:
        if head.startswith(beginning):
            return Carrier(name, media_type)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return Carrier("WAV", "audio/wav")
    if head[:4] in (b"II*\0", b"MM\0*"):
        dng = any(mark in head for mark in _DNG_VERSION)
        return Carrier("DNG", "image/dng") if dng else Carrier("TIFF", "image/tiff")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # a frame of MPEG audio, layer III
        return Carrier("MP3", "audio/mpeg")
    return Carrier("SVG", "image/svg+xml") if _is_svg(head) else None


def _is_svg(head: bytes) -> bool:
    at = len(head) - len(head.removeprefix(b"\xef\xbb\xbf").lstrip())
    while found := next(((a, b) for a, b in _PREAMBLE if head.startswith(a, at)), None):
        end = head.find(found[1], at + len(found[0]))
        if end < 0:
            return False
        at = end + len(found[1])
        at += len(head[at:]) - len(head[at:].lstrip())
    return _ROOT.match(head, at) is not None
