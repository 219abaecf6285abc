"""C2PA by reference: XMP's ``dcterms:provenance`` names where a manifest is kept. It is named, and never fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from safegen.provenance.ai_labels.label import AiLabel, Kind, Word

_PROVENANCE: Final = "{http://purl.org/dc/terms/}provenance"


def find(words: Sequence[Word]) -> Iterator[AiLabel]:
    """Yield the addresses; one within the file itself (``self#jumbf=...``) is no reference to elsewhere."""
    for word in words:
        url = word.value.strip()[:500]
        if word.key == _PROVENANCE and not url.startswith("self#"):
            yield AiLabel(
                Kind.REFERENCE, word.place, f"a C2PA manifest at {url}, which was not fetched", None, {"url": url}
            )
