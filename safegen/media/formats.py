"""Tell a file's format from its first bytes.

ffmpeg is never asked to guess: its guesses include playlists and scripts (HLS, concat, ffconcat, SDP, image patterns)
that open further files or addresses. We recognise a few self-contained containers and name the demuxer ourselves.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safegen.errors import InputError, UnreadableMediaError

Kind = Literal["video", "image"]

_SNIFF_BYTES = 64
_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_STILL_BRANDS = _AVIF_BRANDS | {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"heif", b"mif1", b"msf1"}
_SUPPORTED = "Supported are MP4/MOV, MKV/WebM, AVI and GIF clips, and PNG, JPEG, WebP, AVIF and HEIC images."


@dataclass(frozen=True, slots=True)
class Source:
    """A local file whose format is known: ``format`` is ffmpeg's demuxer for a video, Pillow's name for an image."""

    path: Path
    kind: Kind
    format: str

    @property
    def url(self) -> str:
        """The path as ffmpeg must be given it: no leading dash, colon or percent sign can change its meaning."""
        return f"file:{self.path.absolute()}"


def identify(path: Path | str) -> Source:
    """Recognise the file at ``path`` by content, never by name.

    Raises:
        InputError: there is no such file.
        UnreadableMediaError: a folder, device, empty file, or no supported media. Whether this Python can decode an
            AVIF or HEIC picture is seen when it is read (``images``).
    """
    path = Path(path)
    head = _head(path)
    found = _by_signature(head)
    if found is None:
        raise UnreadableMediaError(f"{path.name}: not a supported video or image", remedy=_SUPPORTED)
    return Source(path, *found)


def _head(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableMediaError(f"{path}: is a folder, not a file", remedy="Give the path of one media file.")
        if not stat.S_ISREG(mode):
            raise UnreadableMediaError(f"{path}: is a device or pipe, not a regular file", remedy="Copy it to a file.")
        with path.open("rb") as file:
            head = file.read(_SNIFF_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", remedy="Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise InputError(f"{path}: cannot be opened: {error}", remedy="Check the path and its permissions.") from error
    if not head:
        raise UnreadableMediaError(f"{path}: is empty (0 bytes)", remedy="The file was not written completely.")
    return head


def _by_signature(head: bytes) -> tuple[Kind, str] | None:
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "image", "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "image", "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image", "WEBP"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video", "avi"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "video", "gif"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video", "matroska"
    if head[4:8] in _ISO_BOXES:
        still = still_format(head)
        return ("image", still) if still else ("video", "mov")
    return None


def still_format(head: bytes) -> str | None:
    """Return AVIF or HEIF for a still picture in ISO boxes (ISO/IEC 23008-12), told by the brands of its ``ftyp``."""
    if head[4:8] != b"ftyp" or head[8:12] not in _STILL_BRANDS:
        return None
    size = min(int.from_bytes(head[:4], "big"), len(head))
    named = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
    return "AVIF" if named & _AVIF_BRANDS else "HEIF"
