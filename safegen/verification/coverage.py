"""Whether a marked clip is all that its file shows: second tracks and layers, odd times, foreign sound.

Exit code 0 is a promise about the file, not about the part of it that carries the mark. A file whose own hash the
ledger holds is whole by that; any other, where nothing here and nothing in the comparison of pictures says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class MarkedSpan:
    """A stretch of the file, in seconds, that carries the mark of one clip."""

    content_id: str
    start: float
    end: float

    def to_json(self) -> dict[str, Json]:
        """As the finding's evidence says it."""
        return {"content_id": self.content_id, "start": round(self.start, 2), "end": round(self.end, 2)}


def marked_spans(segments: Sequence[Mapping[str, Any]], fps: float) -> list[MarkedSpan]:
    """Join the reader's segments (each some frames, ``first`` to ``last``) to stretches of one clip's mark each."""
    found = []
    for content_id, group in groupby(segments, key=lambda s: s["content_id"]):
        few = list(group)
        if content_id is not None:
            found.append(MarkedSpan(content_id, few[0]["first"] / fps, (few[-1]["last"] + 1) / fps))
    return found


def note_what_is_marked(mark: Mark, fps: float) -> Mark:
    """Return ``mark`` with the stretches that carry a mark in its evidence, and their share of the file in words.

    A clip that makes up the whole file has flat stretches too, which carry no mark: where its kept pictures explain
    them, there is nothing to say.
    """
    read: Mapping[str, Any] = {} if mark.extraction is None else mark.extraction.evidence
    segments, frames = read.get("segments"), read.get("frames")
    if not segments or not frames or fps <= 0:
        return mark
    spans = marked_spans(segments, fps)
    clips = dict.fromkeys(s.content_id for s in spans)
    evidence: dict[str, Json] = {**mark.finding.evidence, "marked": [s.to_json() for s in spans]}
    summary = mark.finding.summary
    pictures = evidence.get("pictures")
    if len(clips) > 1 or not (isinstance(pictures, Mapping) and pictures.get("whole") is True):
        seconds = sum(s.end - s.start for s in spans)
        summary += f" {seconds:.1f} of {frames / fps:.1f} s carry {_whose(spans, list(clips))}."
    return replace(mark, finding=replace(mark.finding, evidence=evidence, summary=summary))


def _whose(spans: Sequence[MarkedSpan], clips: Sequence[str]) -> str:
    if len(clips) == 1:
        return "that mark"
    told = (f"{c} ({', '.join(f'{s.start:.1f} to {s.end:.1f} s' for s in spans if s.content_id == c)})" for c in clips)
    return f"the marks of {len(clips)} clips: {'; '.join(told)}"


def is_whole(marked: Finding) -> bool:
    """Whether the marked clip is all that the file shows, as far as the watermark's finding says."""
    pictures = marked.evidence.get("pictures")
    partly = isinstance(pictures, Mapping) and pictures.get("whole") is False
    return not partly and not marked.evidence.get("beyond")
