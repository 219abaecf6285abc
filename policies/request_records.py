"""What a record holds of the texts of a request: salted commitments, and the words only where that is allowed."""

from __future__ import annotations

from collections.abc import Iterable

from safegen.keys import commit_text
from safegen.policies.pack_model import Pack
from safegen.types import Decision, Json


def text_records(
    pack: Pack, decision: Decision | None, texts: Iterable[tuple[str, str]], key: bytes
) -> dict[str, dict[str, Json]]:
    """Return, for each (source, text), its commitment under ``key``; with ``text`` where the pack records in clear.

    A rewritten prompt is recorded beside the one that was asked for. A text that concerns minors, or that nothing has
    judged, is never recorded in clear, whatever the pack says.
    """
    clear = pack.record_clear and decision is not None and not decision.words_withheld
    named = [(source, text) for source, text in texts if text]
    if decision is not None and decision.rewrite is not None:
        named.append(("rewritten_prompt", decision.rewrite.prompt))
    return {
        source: {"commitment": dict(commit_text(text, key)), **({"text": text} if clear else {})}
        for source, text in named
    }
