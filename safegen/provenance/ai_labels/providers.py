"""Marks that providers put into metadata, as far as they have said so in public: a table, and nothing guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from safegen.provenance.ai_labels.label import AiLabel, Kind, Word


@dataclass(frozen=True, slots=True)
class _Mark:
    """``keys``: names of texts, in lower case and without an XMP namespace."""

    provider: str
    keys: frozenset[str]
    pattern: re.Pattern[str]


_MARKS: Final = (
    # IPTC, "Google extends AI transparency based on IPTC standards" (2024-10-28): the credit beside the source type.
    _Mark("Google", frozenset({"credit"}), re.compile(r"(Made|Edited) with Google AI|AI-Generated with Google")),
    # Apple's Photos: the credit beside IPTC's compositeWithTrainedAlgorithmicMedia.
    _Mark("Apple Photos Clean Up", frozenset({"credit"}), re.compile(r"Apple Photos Clean Up")),
    # github.com/black-forest-labs/flux.
    _Mark("Black Forest Labs FLUX", frozenset({"software"}), re.compile(r"AI generated;\w+;flux")),
    # Midjourney's downloads: the prompt, then the job.
    _Mark("Midjourney", frozenset({"description"}), re.compile(r"Job ID: [0-9a-f]{8}-[0-9a-f-]{27}")),
    # TikTok's downloads: what its author or TikTok itself has labelled; 0 is no label.
    _Mark("TikTok (AI label)", frozenset({"aigcinfo", "comment"}), re.compile(r'"aigc_label_type"\s*:\s*[1-9]')),
)  # fmt: skip


def find(words: Sequence[Word]) -> Iterator[AiLabel]:
    """Yield one label for each mark and place."""
    seen: set[tuple[str, str]] = set()
    for word in words:
        key = word.key.rpartition("}")[2].lower()
        for mark in _MARKS:
            if key in mark.keys and (mark.provider, word.place) not in seen and mark.pattern.search(word.value):
                seen.add((mark.provider, word.place))
                says = f"the mark of {mark.provider}"
                yield AiLabel(Kind.PROVIDER, word.place, says, True, {"provider": mark.provider, "key": key})
