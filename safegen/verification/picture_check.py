"""Whether the pictures that carry a mark are those of the clip it names: a mark can be copied onto others.

A mark says which clip it was made for, not what is to be seen. The home keeps small pictures of that clip, whose hash
the ledger entry holds (``safegen.watermark.fingerprint``, docs/fingerprint.md). They are compared here, half second by
half second and at the place where the mark was found, with what the file shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import LedgerError, SafegenError
from safegen.media import decode
from safegen.provenance.kept_manifests import kept_pictures
from safegen.settings import Home
from safegen.types import ContentId, Json, Status
from safegen.verification.mark_reading import Mark
from safegen.watermark.base import MarkStatus

if TYPE_CHECKING:
    from safegen.ledger import Entry
    from safegen.watermark.base import Extraction
    from safegen.watermark.fingerprint.comparing import Comparison, Span
    from safegen.watermark.fingerprint.kept_pictures import KeptPictures

# Imported where they are used: what loads cv2 or sqlalchemy.

WHOLE = 0.9
"""Share of a file's time, and of its area, that must be the clip's for it to be called whole."""

EDGE = 8
"""Frames at the ends of a marked stretch that may be its neighbour's: marks are found in stretches of so many."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How a file's pictures compare: where it is marked, and ``whole``, whether the clip is all that it shows.

    ``time`` and ``area`` are the shares of the file that the clip explains.
    """

    marked: Comparison
    time: float
    area: float

    @property
    def whole(self) -> bool:
        """Whether all of the file is the clip's, but for small captions and flat borders."""
        return self.marked.same is True and self.time >= WHOLE and self.area >= WHOLE

    def to_json(self) -> dict[str, Json]:
        """As the finding's evidence says it."""
        spans: list[Json] = [
            {"start": round(s.start, 2), "end": round(s.end, 2), "first": s.first, "last": s.last, "same": s.same,
             "unexplained": round(s.unexplained, 3)}
            for s in self.marked.spans
        ]  # fmt: skip
        return {
            "same": self.marked.same, "whole": self.whole, "unexplained": round(self.marked.unexplained, 3),
            "seen": round(self.marked.seen, 3), "time": round(self.time, 3), "area": round(self.area, 3),
            "spans": spans,
        } | ({"why": self.marked.why} if self.marked.same is None else {})  # fmt: skip


def check_pictures(mark: Mark, path: Path, fps: float, home: Home) -> Mark:
    """Return ``mark`` with the comparison in its evidence.

    Other pictures make it a failure, and pictures that cannot be compared leave it open. Where the ledger knows nothing
    of the clip there is nothing to compare with; that is the ledger's finding.
    """
    if mark.content_id is None or mark.extraction is None:
        return mark
    try:
        entry = _entry(mark.content_id, home)
        if entry is None:
            return mark
        kept, why = kept_pictures(home, entry.content_id, entry.body.get("mark"))
        compared = None if kept is None else _compare(kept, mark.content_id, mark.extraction, path, fps)
    except SafegenError as error:
        compared, why = None, str(error)
    evidence: dict[str, Json] = dict(mark.finding.evidence)
    if compared is None:
        evidence["pictures"] = {"same": None, "whole": False, "why": why}
        return _open(mark, evidence, why)
    evidence["pictures"] = compared.to_json()
    if compared.marked.same is None:
        return _open(mark, evidence, compared.marked.why)
    if compared.marked.same:
        return replace(mark, finding=replace(mark.finding, evidence=evidence))
    evidence["status"] = str(MarkStatus.COPIED)
    summary = f"The mark names clip {mark.content_id}, but the pictures are not that clip's: the mark was copied."
    return replace(mark, finding=replace(mark.finding, evidence=evidence, status=Status.FAIL, summary=summary))


def _open(mark: Mark, evidence: dict[str, Json], why: str) -> Mark:
    evidence["status"] = str(MarkStatus.UNCOMPARED)
    summary = f"The mark names clip {mark.content_id}, but the pictures could not be compared with that clip's: {why}."
    finding = replace(mark.finding, evidence=evidence, status=Status.INCONCLUSIVE, summary=summary.replace("..", "."))
    return replace(mark, finding=finding)


def _entry(content_id: ContentId, home: Home) -> Entry | None:
    from safegen.ledger import Ledger

    try:
        with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
            return next((e for e in ledger.find_content(content_id) if e.kind == "generated"), None)
    except LedgerError:
        return None  # the ledger's own finding says so


def _compare(kept: KeptPictures, content_id: ContentId, extraction: Extraction, path: Path, fps: float) -> Compared:
    from safegen.watermark.fingerprint.comparing import Comparing, conclude
    from safegen.watermark.fingerprint.shown import watch

    corners: Any = extraction.evidence.get("corners")  # the other schemes are read from whole pictures only
    comparing = Comparing(kept, corners)
    parts = list(stretches(extraction, content_id))
    ours = sum(last - first + 1 for first, last, marked in parts if marked)
    total = sum(last - first + 1 for first, last, _ in parts)
    # Where most of it is another's anyway, that part need not be looked at.
    wanted = [s for s in parts if s[2] or ours >= total / 2] or [(0, 2**62, True)]
    frames = decode(path, tolerant=True)
    spans = [comparing.judge(one) for one in watch(frames, fps, stretches=[s[:2] for s in wanted])]
    marked = [s for s in spans if any(first <= s.first <= last for first, last, is_marked in wanted if is_marked)]
    same = [s for s in spans if s.same]
    covered = sum(_length(s) for s in same)
    time = covered / max(sum(map(_length, spans)) + (0 if ours >= total / 2 else (total - ours) / fps), 1e-9)
    area = sum(s.explained * _length(s) for s in same) / covered if covered else 0.0
    return Compared(conclude(marked), min(time, 1.0), area)


def _length(span: Span) -> float:
    return span.end - span.start


def stretches(extraction: Extraction, content_id: ContentId) -> Iterator[tuple[int, int, bool]]:
    """(first frame, last frame, whether the clip's mark is there), in order; none where the mark says nothing of it.

    A marked stretch gives those frames at its ends to its neighbours that may be theirs.
    """
    segments: Any = extraction.evidence.get("segments") or []
    runs: list[tuple[int, int, bool]] = []
    for marked, group in groupby(segments, key=lambda s: s["content_id"] == content_id):
        few: Sequence[Mapping[str, Any]] = list(group)
        runs.append((few[0]["first"], few[-1]["last"], marked))
    frames: Any = extraction.evidence.get("frames")
    if runs and runs[-1][1] + 1 < frames:
        runs.append((runs[-1][1] + 1, frames - 1, False))
    for n, (first, last, marked) in enumerate(runs):
        if not marked:
            yield first, last, False
            continue
        spare = EDGE if last - first + 1 >= 2 * EDGE else 0
        start, end = first + (spare if n else 0), last - (spare if n + 1 < len(runs) else 0)
        if end < start:
            start, end = first, last
        if start > first:
            yield first, start - 1, False
        yield start, end, True
        if end < last:
            yield end + 1, last, False
