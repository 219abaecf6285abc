"""What a record holds of the texts of a request: salted commitments, and the words only where that is allowed."""

from __future__ import annotations

from collections.abc import Iterable

from safegen.keys import commit_text
from safegen.policies.pack.model import Pack
from safegen.types import Decision, Json

MAX_CLEAR_BYTES = 32_000
"""Texts that are longer together are recorded as commitments alone: an entry of the ledger holds 65,535 bytes."""


def text_records(
    pack: Pack, decision: Decision | None, texts: Iterable[tuple[str, str]], key: bytes
) -> dict[str, dict[str, Json]]:
    """Return, for each (source, text), its commitment under ``key``; with ``text`` where the pack records in clear.

    A rewritten prompt is recorded beside the one that was asked for. A text that concerns minors, or that nothing has
    judged, is never recorded in clear, whatever the pack says.
    """
    named = [(source, text) for source, text in texts if text]
    if decision is not None and decision.rewrite is not None:
        named.append(("rewritten_prompt", decision.rewrite.prompt))
    size = sum(len(text.encode("utf-8", "replace")) for _, text in named)
    clear = pack.record_clear and decision is not None and not decision.words_withheld and size <= MAX_CLEAR_BYTES
    return {
        source: {"commitment": dict(commit_text(text, key)), **({"text": text} if clear else {})}
        for source, text in named
    }
