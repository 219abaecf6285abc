"""IPTC Photo Metadata in XMP: the digital source type, and the AI system that was used (2025.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from safegen.provenance.ai_labels.label import AiLabel, Kind, Word
from safegen.provenance.source_types import says_ai, says_camera_or_human

_NAMESPACE: Final = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_SOURCE_TYPE: Final = f"{_NAMESPACE}DigitalSourceType"
_SYSTEM: Final = f"{_NAMESPACE}AISystemUsed"


def find(words: Sequence[Word]) -> Iterator[AiLabel]:
    """Yield one label for each source type and each AI system that is named."""
    for word in words:
        value = word.value.strip()[:200]
        if word.key == _SOURCE_TYPE:
            term = value.rstrip("/").rpartition("/")[2]
            ai = True if says_ai(value) else False if says_camera_or_human(value) else None
            yield AiLabel(Kind.IPTC, word.place, f"IPTC digital source type {term}", ai, {"digital_source_type": value})
        elif word.key == _SYSTEM:
            yield AiLabel(Kind.IPTC, word.place, f"IPTC AI system used: {value}", True, {"system": value})
