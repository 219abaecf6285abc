"""Files whose pictures are not read, or not here, and that are examined for their credential all the same."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError
from safegen.media import MediaInfo
from safegen.media.aigc_mp4 import has_track
from safegen.media.decoding import MAX_VIDEO_PIXELS
from safegen.media.formats import still_format
from safegen.provenance.carriers import HEAD_BYTES, Carrier, by_beginning

_SOUND: Final = frozenset({b"M4A ", b"M4B ", b"M4P "})
_STILLS: Final = {"AVIF": Carrier("AVIF", "image/avif", True), "HEIF": Carrier("HEIC", "image/heic", True)}


def why_unseen(path: Path, readable: Future[MediaInfo]) -> str:
    """Why no pictures are read, where the file is of a format that carries credentials all the same; else "".

    That may be what else than pictures it holds, or their size. Raises what ``probe`` raised for any other file.
    """
    try:
        info = readable.result()
    except UnreadableMediaError as error:
        found = carrier(path) if path.is_file() else None
        if found is None:
            raise
        return str(error) if found.has_decoder else f"the pictures or sound of {found.name} files are not read"
    too_large = info.kind == "video" and info.width * info.height > MAX_VIDEO_PIXELS
    return f"film of {info.width}x{info.height} pixels is not read, 4K is the most" if too_large else ""


def carrier(path: Path) -> Carrier | None:
    """Recognise a file by content; None for a film, another still, and what carries no credential.

    OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        return by_beginning(head) or (_iso(head, file) if head[4:8] == b"ftyp" else None)


def _iso(head: bytes, file: BinaryIO) -> Carrier | None:
    """Still pictures and sound in ISO boxes; a film is no carrier here, since its pictures are read."""
    if still := still_format(head):
        return _STILLS[still]
    try:
        sound_alone = head[8:12] in _SOUND or not has_track(file, b"vide")
    except UnreadableMediaError:
        return None  # a damaged film, as far as can be told
    return Carrier("MP4 with sound alone", "audio/mp4") if sound_alone else None
