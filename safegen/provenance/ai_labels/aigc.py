"""The implicit label of GB 45438-2025 (China): a JSON record ``AIGC``, at whatever place a tool has put it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from safegen.provenance.ai_labels.label import AiLabel, Kind, Word
from safegen.types import Json

_NAMESPACE: Final = "{http://www.tc260.org.cn/ns/AIGC/1.0/}AIGC"
_MEANING: Final = {"1": "AI-generated", "2": "maybe AI-generated", "3": "suspected to be AI-generated"}
_MAX_RECORD: Final = 1 << 16
_COMMENTS: Final = frozenset({"usercomment", "comment", "description", "imagedescription"})


def find(words: Sequence[Word]) -> Iterator[AiLabel]:
    """Yield the records, the ones that cannot be read too: that one is there is all that they say."""
    for word in words:
        named = word.key == _NAMESPACE or word.key.lower() == "aigc"
        if not named and not (word.key.lower() in _COMMENTS and '"AIGC"' in word.value[:64]):
            continue
        record = _record(word.value)
        if record is None:
            if named:
                yield AiLabel(Kind.AIGC, word.place, "an AIGC record (GB 45438) that cannot be read")
            continue
        label = str(record.get("Label", ""))[:8]
        said = _MEANING.get(label, "no known label")
        by = str(record.get("ContentProducer", ""))[:64]
        values: dict[str, Json] = {"label": label, "content_producer": by, "produce_id": _text(record, "ProduceID")}
        yield AiLabel(
            Kind.AIGC, word.place, f"{said}{f' by {by}' if by else ''} (GB 45438 AIGC record)",
            True if label in _MEANING else None, values,
        )  # fmt: skip


def _record(text: str) -> dict[str, Any] | None:
    if len(text) > _MAX_RECORD:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and isinstance(found.get("AIGC"), dict):
        found = found["AIGC"]
    return found if isinstance(found, dict) and "Label" in found else None


def _text(record: dict[str, Any], name: str) -> str:
    return str(record.get(name, ""))[:200]
