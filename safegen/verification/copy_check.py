"""Whether the pictures that carry a mark are those of the clip it names: a mark can be copied onto others.

A mark says which clip it was made for, not what is to be seen. The ledger entry holds a fingerprint of what that clip
showed (``safegen.watermark.fingerprint``, docs/fingerprint.md), which is compared here with those frames of the file
that carry the mark, at the place where it was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.errors import LedgerError, SafegenError
from safegen.media import decode
from safegen.settings import MARK_FRAMES, Home
from safegen.types import Clip, ContentId, Json, Status
from safegen.verification.mark_reading import Mark
from safegen.watermark.base import MarkStatus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safegen.watermark.base import Extraction
    from safegen.watermark.fingerprint.fingerprint import Match

# Imported where they are used: what loads cv2 or sqlalchemy.


def check_pictures(mark: Mark, path: Path, clip: Clip, home: Home) -> Mark:
    """Return ``mark`` with the comparison in its evidence: a failure where other pictures carry it.

    ``clip`` is the file's beginning. Where nothing could be compared, the evidence says why and nothing else changes.
    """
    if mark.content_id is None or mark.extraction is None:
        return mark
    try:
        match, why = _compare(mark.content_id, mark.extraction, path, clip, home)
    except SafegenError as error:
        match, why = None, str(error)
    evidence: dict[str, Json] = dict(mark.finding.evidence)
    if match is None or match.same is None:
        seen = round(match.seen, 3) if match else 0.0
        evidence["pictures"] = {"same": None, "seen": seen, "why": why or "too little is seen"}
        return replace(mark, finding=replace(mark.finding, evidence=evidence))
    evidence["pictures"] = {
        "same": match.same,
        "luma": round(match.luma, 3),
        "chroma": round(match.chroma, 3),
        "seen": round(match.seen, 3),
    }
    finding = replace(mark.finding, evidence=evidence)
    if not match.same:
        evidence["status"] = str(MarkStatus.COPIED)
        summary = f"The mark names clip {mark.content_id}, but the pictures are not that clip's: the mark was copied."
        finding = replace(finding, status=Status.FAIL, summary=summary)
    return replace(mark, finding=finding)


def _compare(
    content_id: ContentId, extraction: Extraction, path: Path, clip: Clip, home: Home
) -> tuple[Match | None, str]:
    """The comparison, or None and why there is none."""
    from safegen.watermark.fingerprint.fingerprint import Fingerprint, compare, matrix_of

    text = _kept(content_id, home)
    if text is None:
        return None, "the ledger holds no fingerprint of this clip"
    frames = _marked_frames(extraction, content_id, path, clip)
    if frames is None:
        return None, "no frames of one size carry the mark"
    corners: Any = extraction.evidence.get("corners")
    # The other schemes are read from whole pictures only.
    matrix = None if corners is None else matrix_of(corners, *frames.shape[1:3])
    return compare(Fingerprint.from_hex(text), frames, matrix=matrix), ""


def _kept(content_id: ContentId, home: Home) -> str | None:
    """The fingerprint that the ledger holds of a clip, None if it holds none."""
    from safegen.ledger import Ledger

    try:
        with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
            entry = next((e for e in ledger.find_content(content_id) if e.kind == "generated"), None)
    except LedgerError:
        return None  # the ledger's own finding says so
    mark = None if entry is None else entry.body.get("mark")
    text = mark.get("fingerprint") if isinstance(mark, Mapping) else None
    return None if text is None else str(text)


def _marked_frames(extraction: Extraction, content_id: ContentId, path: Path, clip: Clip) -> NDArray[np.uint8] | None:
    """Frames [T, H, W, 3] in which the mark was found, a few of the first MARK_FRAMES; None if there are none.

    Footage that others have spliced in carries no mark and is no matter of the fingerprint.
    """
    from safegen.watermark.fingerprint.fingerprint import MAX_FRAMES

    segments: Any = extraction.evidence.get("segments")
    if segments is None:
        return clip.frames
    marked = [n for s in segments if s["content_id"] == content_id for n in range(s["first"], s["last"] + 1)]
    if not marked:
        return None
    marked = marked[:MARK_FRAMES]
    spread = np.rint(np.linspace(0, len(marked) - 1, min(len(marked), MAX_FRAMES))).astype(int)
    return _pick(sorted({marked[n] for n in spread}), path, clip)


def _pick(numbers: Sequence[int], path: Path, clip: Clip) -> NDArray[np.uint8] | None:
    if numbers[-1] < len(clip.frames):
        chosen: NDArray[np.uint8] = clip.frames[list(numbers)]
        return chosen
    wanted, found = set(numbers), []
    for number, frame in enumerate(decode(path, tolerant=True)):
        if number in wanted:
            found.append(frame)
        if number >= numbers[-1]:
            break
    if not found or any(frame.shape != found[0].shape for frame in found):
        return None
    return np.stack(found)
