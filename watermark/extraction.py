"""Read a clip's mark from its frames and the key alone: align, take samples, decode, check the MAC (spec section 7).

First the clip is read as it is. Where that finds no payload, the signpost says which phase each frame shows, and then
where the picture lies on the pattern's plane. What the signpost decides costs no false positives, since it knows no
key; every decoding of keyed samples is one *hypothesis* that the p-value pays for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
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

WINDOW_FRAMES = 128
"""Frames of a long clip that are read together."""

SECOND_FRAMES = 16
"""An unmarked stretch this long is read once more."""

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
    return _conclude(_look(fine, key, look=look, issued=issued))


@dataclass(frozen=True, slots=True)
class _Segment:
    """A stretch of frames, first to last, and how well it fits the payload found."""

    first: int
    last: int
    statistic: float
    content_id: ContentId | None  # None where the payload is not there

    def to_json(self) -> dict[str, Json]:
        return {
            "first": self.first,
            "last": self.last,
            "statistic": round(self.statistic, 2),
            "marked": self.content_id is not None,
            "content_id": self.content_id,
        }


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one look at one canvas found. ``issued``: the payload was recognised among so many."""

    statistic: float
    payload: Payload | None
    hypotheses: int
    evidence: dict[str, Json]
    segments: tuple[_Segment, ...] = ()
    issued: int = 0
    signpost: float = 0.0

    def rank(self) -> tuple[bool, float]:
        return self.payload is not None, self.statistic


def _conclude(found: _Outcome) -> Extraction:
    evidence = found.evidence
    if found.segments:
        evidence = {**evidence, "segments": [s.to_json() for s in found.segments]}
    return conclude(pattern.SCHEME, found.statistic, found.payload, found.hypotheses, evidence, issued=found.issued)


def _look(fine: Canvas, key: bytes, *, look: bool, issued: Sequence[ContentId] = ()) -> _Outcome:
    if len(fine) < MIN_FRAMES:
        return _Outcome(0.0, None, 1, {"frames": len(fine)})
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
    evidence: dict[str, Json] = {
        "frames": len(change),
        "bit_agreement": round(best.agreement, 4),
        "signpost": round(best.signpost, 2),
        "moved": not np.array_equal(best.matrix, search.identity().matrix),
        "resampled": bool((best.path != alignment.untouched(len(change))).any()),
    }
    segments: tuple[_Segment, ...] = ()
    if best.payload is not None:
        segments = tuple(_segments(change, best, best.payload, key))
        evidence["corners"] = _corners(best.matrix, fine.shape)
    return _Outcome(best.statistic, best.payload, len(tried), evidence, segments, known, best.signpost)


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


def _segments(change: Canvas, found: _Reading, payload: Payload, key: bytes) -> Iterator[_Segment]:
    """Say for every SEGMENT_FRAMES frames whether the payload is there."""
    word = pattern.codeword(payload, key).astype(np.float32)
    wanted = pattern.place(key).coefficients(word) + pattern.signpost()
    laid, corner = _lay(change, found.matrix)
    raw = reading.project(reading.even_out(laid), corner)
    scale = np.sqrt((raw**2).mean(axis=0)) + 1e-9
    flat = np.clip(raw / scale, -reading.CLIP, reading.CLIP) * reading.used_float()
    for start in range(0, len(change), SEGMENT_FRAMES):
        stop = min(start + SEGMENT_FRAMES, len(change))
        fit, power = 0.0, 0.0
        # Frames of one phase repeat the same signs, and by chance alone they agree with each other too.
        for phase in set(found.path[start:stop].tolist()):
            frames = start + np.flatnonzero(found.path[start:stop] == phase)
            together = flat[frames].sum(axis=0)
            fit += float((together * wanted[phase]).sum())
            power += float((together**2).sum())
        statistic = fit / math.sqrt(power) if power > 0 else 0.0
        there = statistic >= SEGMENT_Z
        yield _Segment(start, stop - 1, statistic, payload.content_id if there else None)


def _corners(matrix: search.Matrix, shape: tuple[int, ...]) -> Json:
    """The picture's four corners on the plane, in short sides: (0, 0) to (1, 1) for an untouched square picture."""
    h, w = shape[2:]
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float32)
    at = cv2.perspectiveTransform(corners, matrix)[0] / SHORT
    return [[round(float(x), 3), round(float(y), 3)] for x, y in at]


def extract_stream(
    frames: Iterable[NDArray[np.uint8]],
    keys: Sequence[bytes],
    *,
    look: bool = True,
    issued: Sequence[ContentId] = (),
) -> Extraction:
    """``extract_frames`` for clips of any length, frame by frame ([H, W, 3]), in bounded memory and under several keys.

    The clip is read WINDOW_FRAMES at a time; stretches of a window that the first payload leaves unmarked are read
    once more, for a second one. The search of moved pictures looks into the window with the clearest signpost alone.
    """
    best: _Outcome | None = None
    clearest: tuple[float, int, Canvas] | None = None
    segments: list[_Segment] = []
    hypotheses, count = 0, 0
    for canvas in _windows(frames):
        signpost = 0.0
        for found, first in _read_window(canvas, keys):
            hypotheses += found.hypotheses
            signpost = max(signpost, found.signpost)
            best = found if best is None or found.rank() > best.rank() else best
            segments = _merge(segments, _moved(found.segments, count + first))
        if clearest is None or signpost > clearest[0]:
            clearest = (signpost, count, canvas)
        count += len(canvas)
    if clearest is not None and (best is None or best.payload is None):
        for key in keys:
            found = _look(clearest[2], key, look=look, issued=issued)
            hypotheses += found.hypotheses
            if best is None or found.rank() > best.rank():
                best, segments = found, _moved(found.segments, clearest[1])
            if found.payload is not None:
                break
    if best is None:
        return conclude(pattern.SCHEME, 0.0, None, 1, {"frames": 0})
    evidence = best.evidence | {"frames": count}
    return _conclude(replace(best, hypotheses=max(hypotheses, 1), evidence=evidence, segments=tuple(segments)))


def _windows(frames: Iterable[NDArray[np.uint8]]) -> Iterator[Canvas]:
    """Canvases of WINDOW_FRAMES frames; a rest that is too short to stand alone joins the last one."""
    held: list[Canvas] = []
    for frame in frames:
        small = reading.to_canvas(frame[None], search.FINE)
        if held and held[-1].shape != small.shape:  # the picture's size changes within the clip
            yield np.concatenate(held)
            held = []
        held.append(small)
        if len(held) == WINDOW_FRAMES + WINDOW_FRAMES // 4:
            yield np.concatenate(held[:WINDOW_FRAMES])
            held = held[WINDOW_FRAMES:]
    if held:
        yield np.concatenate(held)


def _read_window(canvas: Canvas, keys: Sequence[bytes]) -> Iterator[tuple[_Outcome, int]]:
    """What a window says under every key, then what its unmarked stretches say: (outcome, first frame)."""
    for key in keys:
        found = _look(canvas, key, look=False)
        yield found, 0
        if found.payload is None:
            continue
        for first, last in _unmarked(found.segments):
            if last - first + 1 >= SECOND_FRAMES:
                yield _look(canvas[first : last + 1], key, look=False), first
        return


def _unmarked(segments: Sequence[_Segment]) -> Iterator[tuple[int, int]]:
    """Stretches of consecutive unmarked segments: (first frame, last frame)."""
    for marked, group in itertools.groupby(segments, key=lambda s: s.content_id is not None):
        stretch = list(group)
        if not marked:
            yield stretch[0].first, stretch[-1].last


def _moved(segments: Iterable[_Segment], by: int) -> list[_Segment]:
    return [replace(s, first=s.first + by, last=s.last + by) for s in segments]


def _merge(old: list[_Segment], new: list[_Segment]) -> list[_Segment]:
    """Put ``new`` segments in; where both speak of the same frames, the marked one stays."""
    covered = [s for s in new if s.content_id is not None]
    kept = [s for s in old if not any(c.first <= s.last and s.first <= c.last for c in covered) or s.content_id]
    fresh = [s for s in new if s.content_id or not any(k.first <= s.last and s.first <= k.last for k in kept)]
    return sorted(kept + fresh, key=lambda s: (s.first, s.last))


class ClipExtractor:
    """``extract_frames`` as an object, for whoever picks schemes by name (base.make_extractor)."""

    scheme = pattern.SCHEME

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 [T, H, W, 3] frames blindly."""
        return extract_frames(frames, key)
