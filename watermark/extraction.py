"""Read a clip's mark from its frames and the key alone: align, take samples, decode, check the MAC (spec section 7).

First the clip is read as it is. Where that finds no payload, the signpost says which phase each frame shows, and then
where the picture lies on the pattern's plane. What the signpost decides costs no false positives, since it knows no
key; every decoding of keyed samples is one *hypothesis* that the p-value pays for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from safegen.types import ContentId, Json
from safegen.watermark import alignment, pattern, reading, search
from safegen.watermark.base import LIST_SIZE, Extraction, conclude, decide, recognise
from safegen.watermark.payload import Payload, check_key
from safegen.watermark.reading import SHORT, Canvas

MIN_FRAMES = 5
SEARCH_FRAMES = 32
"""Frames that the search of places looks at; the payload is then read from all of them."""

PRESENT_Z = 5.0
"""A signpost this clear is looked into; a weaker one is not worth a decoding."""

COARSE_Z = 4.8
SEGMENT_FRAMES = 8
SEGMENT_Z = 3.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """One decoding: what it found and how the clip was aligned for it."""

    statistic: float
    payload: Payload | None
    agreement: float
    signpost: float
    path: NDArray[np.int64]
    matrix: search.Matrix


def extract_frames(
    frames: NDArray[np.uint8], key: bytes, *, look: bool = True, issued: Sequence[ContentId] = ()
) -> Extraction:
    """Read the mark of a clip, uint8 RGB ``frames [T, H, W, 3]``, blindly.

    ``look`` allows the search of cropped, turned, scaled or otherwise moved pictures (a second or two where nothing is
    found). ``issued`` are content ids that this key is known to have marked: where no payload can be decoded, the one
    that fits best is accepted if it does so by far (base.recognise). Raises WatermarkError when the frames are no clip,
    PayloadError for a key that is not 32 bytes.
    """
    check_key(key)
    reading.check_frames(frames)
    return read_canvas(reading.to_canvas(frames, search.FINE), key, look=look, issued=issued)


def read_canvas(fine: Canvas, key: bytes, *, look: bool = True, issued: Sequence[ContentId] = ()) -> Extraction:
    """``extract_frames`` for a canvas with search.FINE pixels along the short side."""
    if len(fine) < MIN_FRAMES:
        return conclude(pattern.SCHEME, 0.0, None, 1, {"frames": len(fine)})
    change = reading.moving(fine)
    tried: list[_Reading] = []
    for found in _readings(change, key, look):
        tried.append(found)
        if found.payload is not None:
            break
    best = max(tried, key=lambda r: (r.payload is not None, r.statistic))
    known = 0
    if best.payload is None and issued:
        recognised = [_recognise(change, reading_, key, issued) for reading_ in tried]
        likeliest = max(recognised, key=lambda r: (r.payload is not None, r.statistic))
        if likeliest.payload is not None:
            best, known = likeliest, len(issued)
    evidence = _evidence(change, best, key, fine.shape)
    return conclude(pattern.SCHEME, best.statistic, best.payload, len(tried), evidence, issued=known)


def _readings(change: Canvas, key: bytes, look: bool) -> Iterator[_Reading]:
    """Decode under likelier and likelier, then costlier and costlier alignments."""
    plain = search.identity()
    untouched = alignment.untouched(len(change))
    first = _read(change, key, untouched, plain)
    yield first
    path = _follow(change, plain)
    followed = None
    if (path != untouched).any():
        followed = _read(change, key, path, plain)
        if followed.signpost > max(PRESENT_Z, first.signpost + 0.5):
            yield followed
    if not look:
        return
    for start in search.coarse(change[:SEARCH_FRAMES]):
        if start.score < COARSE_Z:
            break
        path = _follow(change, start)
        better = search.refine(change[:SEARCH_FRAMES], path[:SEARCH_FRAMES], start)
        path = _follow(change, better)
        found = _read(change, key, path, better)
        if found.signpost >= PRESENT_Z:
            yield found


def _follow(change: Canvas, place: search.Alignment) -> NDArray[np.int64]:
    laid, corner = _lay(change, place.matrix)
    return alignment.follow(reading.signpost_scores(laid, corner))[0]


def _lay(pictures: Canvas, matrix: search.Matrix) -> tuple[Canvas, tuple[int, int]]:
    """Pictures of a FINE canvas on the plane: (canvas, its corner). Cheap where nothing was moved."""
    if np.array_equal(matrix, search.identity().matrix):
        n, _, h, w = pictures.shape
        half = (max(1, round(w * SHORT / search.FINE)), max(1, round(h * SHORT / search.FINE)))
        small = [cv2.resize(p, half, interpolation=cv2.INTER_AREA) for p in pictures.reshape(-1, h, w)]
        return np.stack(small).reshape(n, 3, half[1], half[0]), (0, 0)
    return search.warp(pictures, matrix)


def _read(change: Canvas, key: bytes, path: NDArray[np.int64], place: search.Alignment) -> _Reading:
    blank = _Reading(0.0, None, 0.0, 0.0, path, place.matrix)
    samples, _ = _samples(change, blank)
    sums, norm = _sums(samples, key)
    if not norm > 0:
        return blank
    statistic, payload, agreement = decide(sums, norm, key, LIST_SIZE)
    return _Reading(statistic, payload, agreement, reading.signpost_fit(samples), path, place.matrix)


def _recognise(change: Canvas, how: _Reading, key: bytes, issued: Sequence[ContentId]) -> _Reading:
    sums, norm = _sums(_samples(change, how)[0], key)
    statistic, payload = recognise(sums, norm, key, issued)
    return replace(how, statistic=statistic, payload=payload)


def _samples(change: Canvas, how: _Reading) -> tuple[NDArray[np.float32], tuple[int, int]]:
    laid, corner = _lay(reading.by_phase(change, how.path), how.matrix)
    return reading.whiten(reading.project(reading.even_out(laid), corner)), corner


def _sums(samples: NDArray[np.float32], key: bytes) -> tuple[NDArray[np.float64], float]:
    """Correlation sums of the coded bits, and the norm of the samples in them."""
    placement = pattern.place(key)
    return placement.sums(samples), float(np.sqrt((samples[placement.signs != 0].astype(np.float64) ** 2).sum()))


def _evidence(change: Canvas, found: _Reading, key: bytes, shape: tuple[int, ...]) -> dict[str, Json]:
    evidence: dict[str, Json] = {
        "frames": len(change),
        "bit_agreement": round(found.agreement, 4),
        "signpost": round(found.signpost, 2),
        "moved": not np.array_equal(found.matrix, search.identity().matrix),
        "resampled": bool((found.path != alignment.untouched(len(change))).any()),
    }
    if found.payload is not None:
        evidence["segments"] = _segments(change, found, key)
        evidence["corners"] = _corners(found.matrix, shape)
    return evidence


def _segments(change: Canvas, found: _Reading, key: bytes) -> Json:
    """Where in time the mark is: [first frame, last frame, statistic] of every SEGMENT_FRAMES frames, and whether."""
    assert found.payload is not None  # noqa: S101 - the caller's promise
    word = pattern.codeword(found.payload, key).astype(np.float32)
    wanted = pattern.place(key).coefficients(word) + pattern.signpost()
    laid, corner = _lay(change, found.matrix)
    raw = reading.project(reading.even_out(laid), corner)
    scale = np.sqrt((raw**2).mean(axis=0)) + 1e-9
    flat = np.clip(raw / scale, -reading.CLIP, reading.CLIP) * reading.used_float()
    out: list[Json] = []
    for start in range(0, len(change), SEGMENT_FRAMES):
        stop = min(start + SEGMENT_FRAMES, len(change))
        frames = np.arange(start, stop)
        mine = flat[frames].reshape(len(frames), -1)
        theirs = wanted[found.path[frames]].reshape(len(frames), -1)
        # Frames of one phase repeat the same signs, so their products add up coherently under chance too.
        norm = math.sqrt(
            sum(float((mine[found.path[frames] == k].sum(axis=0) ** 2).sum()) for k in set(found.path[frames]))
        )
        statistic = float((mine * theirs).sum()) / norm if norm > 0 else 0.0
        out.append({"first": int(start), "last": int(stop - 1), "statistic": round(statistic, 2),
                    "marked": statistic >= SEGMENT_Z})  # fmt: skip
    return out


def _corners(matrix: search.Matrix, shape: tuple[int, ...]) -> Json:
    """The picture's four corners on the plane, in short sides: (0, 0) to (1, 1) for an untouched square picture."""
    h, w = shape[2:]
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float32)
    at = cv2.perspectiveTransform(corners, matrix)[0] / SHORT
    return [[round(float(x), 3), round(float(y), 3)] for x, y in at]


class ClipExtractor:
    """``extract_frames`` as an object, for whoever picks schemes by name (base.make_extractor)."""

    scheme = pattern.SCHEME

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 [T, H, W, 3] frames blindly."""
        return extract_frames(frames, key)
