"""Whether a marked clip is all that its file shows: second tracks and layers, odd times, foreign sound.

Exit code 0 is a promise about the file, not about the part of it that carries the mark. A file whose own hash the
ledger holds is whole by that; any other, where nothing here and nothing in the comparison of pictures says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safegen.errors import SafegenError
from safegen.media.presentation import presentation
from safegen.types import Finding, Json
from safegen.verification.mark_reading import Mark

FOREIGN_SOUND = "It has sound, which this home's clips are made without."


def note_what_else_is_shown(mark: Mark, path: Path) -> Mark:
    """Return ``mark`` with what a player may show or play besides the frames that were read, in evidence and words."""
    try:
        found = presentation(path)
        beyond = (*found.beyond, *((FOREIGN_SOUND,) if found.audio else ()))
    except SafegenError as error:
        beyond = (f"What else it shows could not be found out: {error}.".replace("..", "."),)
    if not beyond:
        return mark
    evidence: dict[str, Json] = {**mark.finding.evidence, "beyond": list(beyond)}
    summary = " ".join((mark.finding.summary, *beyond))
    return replace(mark, finding=replace(mark.finding, evidence=evidence, summary=summary))


def is_whole(marked: Finding) -> bool:
    """Whether the marked clip is all that the file shows, as far as the watermark's finding says."""
    pictures = marked.evidence.get("pictures")
    partly = isinstance(pictures, Mapping) and pictures.get("whole") is False
    return not partly and not marked.evidence.get("beyond")
