"""Draw where and when a clip's mark was found: one frame with the marked clip's outline, and a strip of time below.

The mark says where the file's picture lies on the pattern's plane (``corners``). The pattern repeats there every two
short sides and is mirrored in between, so the marked clip is the repetition that the picture covers most of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safegen.errors import LedgerError
from safegen.media import decode
from safegen.opencv import cv2

if TYPE_CHECKING:
    from safegen.settings import Home
    from safegen.types import ContentId
    from safegen.watermark.base import Extraction

# Imported where they are used: what loads sqlalchemy.

Box = tuple[float, float, float, float]

SIDE = 640
"""Pixels of the drawn frame's longer side, at least: thin lines need room."""

STRIP = 24
PAPER, UNMARKED, OUTLINE = (255, 255, 255), (205, 205, 205), (255, 64, 0)
MARKED = ((0, 110, 180), (0, 150, 90), (150, 60, 160), (190, 130, 0))
"""Colours (RGB) of the content ids in a time map, in order of appearance."""


def draw(path: Path, found: Extraction, home: Home) -> NDArray[np.uint8]:
    """Return the picture, uint8 RGB [H, W, 3]. Raises what ``media.decode`` raises.

    The outline needs the marked clip's size, which the home's ledger has; without it only time is drawn.
    """
    evidence: Mapping[str, Any] = found.evidence
    segments: Sequence[Mapping[str, Any]] = evidence.get("segments") or ()
    marked = [s for s in segments if s["content_id"] is not None]
    middle = (marked[0]["first"] + marked[0]["last"]) // 2 if marked else 0
    frame = _enlarged(_frame(path, middle))
    size = None if found.payload is None else _made_size(found.payload.content_id, home)
    if size is not None and (corners := evidence.get("corners")):
        place = outline(corners, size, frame.shape[0], frame.shape[1])
        if place is not None:
            frame, shift = _with_room(frame, place)
            points = np.rint((place + shift) * 16).astype(np.int32)
            cv2.polylines(frame, [points], True, PAPER, 6, cv2.LINE_AA, 4)
            cv2.polylines(frame, [points], True, OUTLINE, 3, cv2.LINE_AA, 4)
    strip = _strip(segments, int(evidence.get("frames", 0)), frame.shape[1])
    gap = np.full((STRIP // 3, frame.shape[1], 3), PAPER, np.uint8)
    return np.concatenate([frame, gap, strip])


def outline(
    corners: Sequence[Sequence[float]], size: tuple[int, int], height: int, width: int
) -> NDArray[np.float32] | None:
    """Where the marked clip's corners [4, 2] lie in a picture of ``height`` x ``width`` pixels, as (x, y).

    ``corners``: the picture's own corners on the pattern's plane, in short sides, clockwise from the upper left.
    ``size``: the marked clip's (height, width) when it was made. None where the two cannot be laid over each other.
    """
    plane = np.array(corners, np.float32)
    picture = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    if not cv2.isContourConvex(plane) or cv2.contourArea(plane) < 1e-4:
        return None
    best, most = None, 0.0
    for box in _repetitions(size, plane):
        left, top, right, bottom = box
        at = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
        shared = float(cv2.intersectConvexConvex(plane, at)[0])
        if shared > 1.01 * most:  # equal ones: the first, which is not mirrored
            best, most = at, shared
    if best is None:
        return None
    back = cv2.getPerspectiveTransform(plane, picture)
    there = cv2.perspectiveTransform(best[None], back)[0]
    limit = 20 * max(height, width)
    return np.asarray(there, np.float32) if np.isfinite(there).all() and np.abs(there).max() < limit else None


def _repetitions(size: tuple[int, int], plane: NDArray[np.float32]) -> Iterator[Box]:
    """The places on the plane that look like the marked clip's own, which comes first, around ``plane`` [4, 2]."""
    tall, wide = (n / min(size) for n in size)
    steps = [_around(plane[:, axis]) for axis in (0, 1)]
    for flip_x, flip_y in ((False, False), (True, False), (False, True), (True, True)):
        for x in steps[0]:
            for y in steps[1]:
                left, top = 2 * x - wide * flip_x, 2 * y - tall * flip_y
                yield left, top, left + wide, top + tall


def _around(values: NDArray[np.float32]) -> list[int]:
    """Periods near ``values``, the nearest to 0 first."""
    return sorted(range(int(values.min() // 2) - 1, int(values.max() // 2) + 2), key=abs)


def _frame(path: Path, number: int) -> NDArray[np.uint8]:
    """Frame ``number``, or the last one there is."""
    last: NDArray[np.uint8] | None = None
    for n, frame in enumerate(decode(path, tolerant=True)):
        last = frame
        if n >= number:
            break
    assert last is not None  # noqa: S101 - decode yields a frame or raises
    return last


def _enlarged(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = SIDE / max(frame.shape[:2])
    if scale <= 1:
        return np.ascontiguousarray(frame)
    size = (max(1, round(scale * frame.shape[1])), max(1, round(scale * frame.shape[0])))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _with_room(frame: NDArray[np.uint8], place: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Add margins where ``place`` reaches beyond the frame, up to its own side: (frame, what moves a point (x, y))."""
    height, width = frame.shape[:2]
    size = np.array([width, height])
    before = np.clip(np.ceil(-place.min(axis=0)), 0, size).astype(int)
    after = np.clip(np.ceil(place.max(axis=0)) - size, 0, size).astype(int)
    room = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    return np.pad(frame, room, constant_values=UNMARKED[0]), before.astype(np.float32)


def _strip(segments: Sequence[Mapping[str, Any]], frames: int, width: int) -> NDArray[np.uint8]:
    strip = np.full((STRIP, width, 3), UNMARKED, np.uint8)
    ids = list(dict.fromkeys(s["content_id"] for s in segments if s["content_id"] is not None))
    for segment in segments:
        start, stop = (round(n * width / max(frames, 1)) for n in (segment["first"], segment["last"] + 1))
        if segment["content_id"] is not None:
            strip[:, start:stop] = MARKED[ids.index(segment["content_id"]) % len(MARKED)]
        if start:
            strip[:, start : start + 1] = PAPER
    return strip


def _made_size(content_id: ContentId, home: Home) -> tuple[int, int] | None:
    """(height, width) of the clip when it was made, None where the ledger does not say."""
    from safegen.ledger import Ledger

    try:
        with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
            entry = next((e for e in ledger.find_content(content_id) if e.kind == "generated"), None)
    except LedgerError:
        return None
    shape = None if entry is None else entry.body.get("shape")
    if not isinstance(shape, list) or len(shape) != 3:
        return None
    height, width = shape[1:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None
