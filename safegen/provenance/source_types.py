"""What a digital source type says of a picture's origin: drawn by a trained model, or by a camera or a person.

IPTC's terms stand under http and https, C2PA has some of its own; the last part of the URI tells them apart. Whatever
says neither (a composite, a screen capture, no type at all) says nothing.
"""

from __future__ import annotations

import re
from typing import Final

_URI: Final = re.compile(
    r"https?://(?:cv\.iptc\.org/newscodes/digitalsourcetype|c2pa\.org/digitalsourcetype)/([A-Za-z]+)/?"
)
_BY_MODEL: Final = frozenset({
    "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicData", "compositeSynthetic",
})  # fmt: skip
_BY_CAMERA_OR_HAND: Final = frozenset({
    "digitalCapture", "computationalCapture", "negativeFilm", "positiveFilm", "print", "digitalCreation", "humanEdits",
    "compositeCapture", "digitalArt", "minorHumanEdits",
})  # fmt: skip


def says_ai(uri: str) -> bool:
    """Whether a source type names a trained model as the origin, of all or of a part."""
    return _term(uri) in _BY_MODEL


def says_camera_or_human(uri: str) -> bool:
    """Whether a source type names a camera or a person as the origin."""
    return _term(uri) in _BY_CAMERA_OR_HAND


def _term(uri: str) -> str:
    found = _URI.fullmatch(uri.strip())
    return "" if found is None else found[1]
