"""Finding the labels of one file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

from safegen.errors import UnreadableMediaError
from safegen.media.formats import still_format
from safegen.provenance.ai_labels import aigc, iptc, movies, parameters, providers, reference, stills
from safegen.provenance.ai_labels.label import AiLabel
from safegen.provenance.ai_labels.metadata import Collected

MAX_LABELS: Final = 20
_KINDS: Final = (aigc, iptc, parameters, reference, providers)


def read_ai_labels(path: Path) -> tuple[AiLabel, ...]:
    """Return the labels in a file's metadata, at most ``MAX_LABELS``; none of them is believed.

    Looks into PNG, JPEG, WebP, MP4, MOV, Matroska and WebM, and for XMP and EXIF in files of any format. Damage hides
    labels and is no error. UnreadableMediaError where the file cannot be read at all.
    """
    found = Collected()
    try:
        with path.open("rb") as file:
            _collect(file, found)
    except OSError as error:
        raise UnreadableMediaError(f"cannot read {path}: {error}", remedy="Give a readable media file.") from error
    labels: dict[tuple[str, str, str], AiLabel] = {}
    for kind in _KINDS:
        for label in kind.find(found.words):
            labels.setdefault((label.kind, label.place, label.says), label)
            if len(labels) == MAX_LABELS:
                return tuple(labels.values())
    return tuple(labels.values())


def _collect(file: BinaryIO, found: Collected) -> None:
    head = file.read(64)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        stills.read_png(file, found)
    elif head[:3] == b"\xff\xd8\xff":
        stills.read_jpeg(file, found)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        stills.read_webp(file, found)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        movies.read_matroska(file, found)
    elif head[4:8] in movies.BEGINNINGS and still_format(head) is None:
        movies.read_mp4(file, found)
    else:
        stills.search(file, found)
