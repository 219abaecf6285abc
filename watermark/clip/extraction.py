"""Read a clip's mark from its frames and the key alone: align, take samples, decode, check the MAC (spec section 7).

First the clip is read as it is. Where that finds no payload, the signpost says which phase each frame shows, and then
where the picture lies on the pattern's plane. What the signpost decides costs no false positives, since it knows no
key; every decoding of keyed samples is one *hypothesis* that the p-value pays for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safegen.bounds.timelimit import check_time
from safegen.opencv import cv2
from safegen.types import ContentId, Json
from safegen.watermark import ecc
from safegen.watermark.base import LIST_SIZE, Extraction, conclude, decide, recognise
from safegen.watermark.clip import alignment, pattern, reading, search
from safegen.watermark.clip.reading import SHORT, Canvas
from safegen.watermark.clip.segments import Segment, merge, moved, segment_map, unmarked
from safegen.watermark.payload import Payload, check_key, pack, to_bits

MIN_FRAMES = 5
SEARCH_FRAMES = 32
"""Frames that the search of places looks at; the payload is then read from all of them."""

WINDOW_FRAMES = 128
"""Frames of a long clip that are read together."""

SEARCHED_WINDOWS = 3
"""Windows of a long clip that are searched for a moved picture, about a second each."""

PART_FRAMES = 32
"""A window that says nothing is looked at in parts of so many frames, each starting in the middle of the last."""

SECOND_FRAMES = 16
"""An unmarked stretch this long is read once more."""

PRESENT_Z = 5.0
"""A signpost this clear is looked into; a weaker one is not worth a decoding."""

NONCE_TRIES = 3
"""How many of the key's placements are decoded in one reading; what they cost the p-value is counted for all."""

COARSE_Z = 4.8


@dataclass(frozen=True, slots=True)
class _Reading:
    """One decoding: what it found and how the clip was aligned for it."""

    statistic: float
    payload: Payload | None
    agreement: float
    signpost: float
    path: NDArray[np.int64]
    matrix: search.Matrix
    issued: int = 0  # the payload was recognised among so many


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
class _Outcome:
    """What one look at one canvas found. ``issued``: the payload was recognised among so many."""

    statistic: float
    payload: Payload | None
    hypotheses: int
    evidence: dict[str, Json]
    segments: tuple[Segment, ...] = ()
    issued: int = 0
    signpost: float = 0.0

    def rank(self) -> tuple[bool, float]:
        return self.payload is not None, self.statistic


def _conclude(found: _Outcome) -> Extraction:
    """The outcome by base.conclude's rules. A payload that they do not accept is not named by any segment either."""
    outcome = conclude(
        pattern.SCHEME, found.statistic, found.payload, found.hypotheses, found.evidence,
        issued=found.issued, placements=pattern.NONCES,
    )  # fmt: skip
    if outcome.payload is None or not found.segments:
        return outcome
    return replace(outcome, evidence={**outcome.evidence, "segments": [s.to_json() for s in found.segments]})


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
    if best.payload is None and issued:
        known = list(dict.fromkeys(issued))
        recognised = [_recognise(change, attempt, key, known) for attempt in tried]
        best = max((*recognised, best), key=lambda r: (r.payload is not None, r.statistic))
    evidence: dict[str, Json] = {
        "frames": len(change),
        "bit_agreement": round(best.agreement, 4),
        "signpost": round(best.signpost, 2),
        "moved": not np.array_equal(best.matrix, search.identity().matrix),
        "resampled": bool((best.path != alignment.untouched(len(change))).any()),
    }
    segments: tuple[Segment, ...] = ()
    if best.payload is not None:
        segments = _segments(change, best, best.payload, key)
        evidence["corners"] = _corners(best.matrix, fine.shape)
    return _Outcome(best.statistic, best.payload, len(tried), evidence, segments, best.issued, best.signpost)


def _readings(change: Canvas, key: bytes, look: bool) -> Iterator[_Reading]:
    """Decode under likelier and likelier, then costlier and costlier alignments."""
    plain = search.identity()
    untouched = alignment.untouched(len(change))
    first = _read_along(change, key, untouched, plain)
    yield first
    path = _follow(change, plain)
    if (path != untouched).any():
        followed = _read_where_present(change, key, path, plain, max(PRESENT_Z, first.signpost + 0.5))
        if followed is not None:
            yield followed
    if not look:
        return
    for start in search.coarse(change[:SEARCH_FRAMES]):
        if start.score < COARSE_Z:
            break
        check_time()
        path = _follow(change, start)
        better = search.refine(change[:SEARCH_FRAMES], path[:SEARCH_FRAMES], start)
        path = _follow(change, better)
        found = _read_where_present(change, key, path, better, PRESENT_Z)
        if found is not None:
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


def _read_along(change: Canvas, key: bytes, path: NDArray[np.int64], place: search.Alignment) -> _Reading:
    samples = _samples(change, path, place.matrix)
    return _decoded(samples, reading.signpost_fit(samples), key, path, place)


def _read_where_present(
    change: Canvas, key: bytes, path: NDArray[np.int64], place: search.Alignment, least: float
) -> _Reading | None:
    """The reading, where the signpost stands out so far: what it does not point at is not worth a decoding."""
    samples = _samples(change, path, place.matrix)
    signpost = reading.signpost_fit(samples)
    return _decoded(samples, signpost, key, path, place) if signpost >= least else None


def _decoded(
    samples: NDArray[np.float32], signpost: float, key: bytes, path: NDArray[np.int64], place: search.Alignment
) -> _Reading:
    statistic, payload, agreement = decode_samples(samples, key)
    return _Reading(statistic, payload, agreement, signpost, path, place.matrix)


def decode_samples(samples: NDArray[np.float32], key: bytes) -> tuple[float, Payload | None, float]:
    """Decode under the nonces whose sums stand out most: (statistic, payload or None, agreeing signs' share)."""
    placement = pattern.place(key)
    norm = placement.norm(samples)
    if not norm > 0:
        return 0.0, None, 0.0
    sums = placement.sums(samples)
    tried = []
    for nonce in np.argsort(-(sums**2).sum(axis=1), kind="stable")[:NONCE_TRIES]:
        statistic, payload, agreement = decide(sums[nonce], norm, key, LIST_SIZE)
        if payload is not None and pattern.nonce_of(payload.content_id, key) == nonce:
            return statistic, payload, agreement
        tried.append((statistic, agreement))
    statistic, agreement = max(tried)
    return statistic, None, agreement


def _recognise(change: Canvas, how: _Reading, key: bytes, issued: Sequence[ContentId]) -> _Reading:
    """The same reading, judged by the payloads that are known to be issued."""
    samples, placement = _samples(change, how.path, how.matrix), pattern.place(key)
    norm = placement.norm(samples)
    if not norm > 0:
        return how
    payloads = [Payload(content_id) for content_id in issued]
    words = ecc.encode_many(np.stack([to_bits(pack(p, key)) for p in payloads]))
    nonces = [pattern.nonce_of(content_id, key) for content_id in issued]
    statistics = np.einsum("nb,nb->n", words, placement.sums(samples)[nonces]) / norm
    found = recognise(statistics)
    if found is None:
        return how
    return replace(how, statistic=float(statistics[found]), payload=payloads[found], issued=len(issued))


def _samples(change: Canvas, path: NDArray[np.int64], matrix: search.Matrix) -> NDArray[np.float32]:
    laid, corner = _lay(reading.by_phase(change, path), matrix)
    return reading.whiten(reading.project(reading.even_out(laid), corner))


def _segments(change: Canvas, found: _Reading, payload: Payload, key: bytes) -> tuple[Segment, ...]:
    """Say for every SEGMENT_FRAMES frames whether the payload is there.

    A payload may be read before its frames' phases are known everywhere, so the followed phases are tried too.
    """
    laid, corner = _lay(change, found.matrix)
    followed = alignment.follow(reading.signpost_scores(laid, corner))[0]
    wanted = pattern.coefficients(payload, key) * (pattern.signpost() == 0)
    raw = reading.project(reading.even_out(laid), corner)
    scale = np.sqrt((raw**2).mean(axis=0)) + 1e-9
    flat = np.clip(raw / scale, -reading.CLIP, reading.CLIP) * (np.abs(wanted).max(axis=0) > 0)
    maps = [segment_map(flat, path, wanted, payload.content_id) for path in (found.path, followed)]
    return max(maps, key=lambda m: sum(s.statistic for s in m if s.content_id is not None))


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

    The clip is read WINDOW_FRAMES at a time; stretches of a window that one payload leaves unmarked are read
    once more, for another one. Moved pictures are searched for in the SEARCHED_WINDOWS with the clearest signposts.
    """
    best: _Outcome | None = None
    clearest: list[tuple[float, int, Canvas]] = []
    segments: list[Segment] = []
    hypotheses, count = 0, 0
    for canvas in _windows(frames):
        signpost = 0.0
        for found, first in _read_window(canvas, keys):
            hypotheses += found.hypotheses
            signpost = max(signpost, found.signpost)
            best = found if best is None or found.rank() > best.rank() else best
            segments = merge(segments, moved(found.segments, count + first))
        clearest = sorted([*clearest, (signpost, count, canvas)], key=lambda c: -c[0])[:SEARCHED_WINDOWS]
        count += len(canvas)
    if best is None or best.payload is None:
        for (_, first, canvas), key in itertools.product(clearest, keys):
            found = _look(canvas, key, look=look, issued=issued)
            hypotheses += found.hypotheses
            if best is None or found.rank() > best.rank():
                best, segments = found, merge(segments, moved(found.segments, first))
            if found.payload is not None:
                break
    if best is None:
        return _conclude(_Outcome(0.0, None, 1, {"frames": 0}))
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
        del frame  # so that a large one is not held while the next is read
        if len(held) == WINDOW_FRAMES + WINDOW_FRAMES // 4:
            yield np.concatenate(held[:WINDOW_FRAMES])
            held = held[WINDOW_FRAMES:]
    if held:
        yield np.concatenate(held)


def _read_window(canvas: Canvas, keys: Sequence[bytes]) -> Iterator[tuple[_Outcome, int]]:
    """What a window says under every key, then what parts of it say: (outcome, first frame)."""
    for key in keys:
        found = _look(canvas, key, look=False)
        yield found, 0
        if found.payload is not None:
            yield from _read_rest(canvas, key, found, 0)
            return
    for first in _promising(canvas):
        for key in keys:
            yield _look(canvas[first : first + PART_FRAMES], key, look=False), first


def _read_rest(canvas: Canvas, key: bytes, found: _Outcome, start: int) -> Iterator[tuple[_Outcome, int]]:
    """Read the stretches that a payload leaves unmarked, and what the next one leaves of them: clips may be joined."""
    for first, last in unmarked(found.segments):
        if SECOND_FRAMES <= last - first + 1 < len(canvas):
            part = canvas[first : last + 1]
            again = _look(part, key, look=False)
            yield again, start + first
            if again.payload is not None:
                yield from _read_rest(part, key, again, start + first)


def _promising(canvas: Canvas) -> Iterator[int]:
    """First frames of the parts of a window whose signpost is clear: a short marked stretch drowns in a long window."""
    if len(canvas) <= PART_FRAMES:
        return
    for first in range(0, len(canvas) - PART_FRAMES // 2, PART_FRAMES // 2):
        check_time()
        change = reading.moving(canvas[first : first + PART_FRAMES])
        samples = _samples(change, _follow(change, search.identity()), search.identity().matrix)
        if reading.signpost_fit(samples) >= PRESENT_Z:
            yield first


class ClipExtractor:
    """``extract_frames`` as an object, for whoever picks schemes by name (schemes.make_extractor)."""

    scheme = pattern.SCHEME

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 [T, H, W, 3] frames blindly."""
        return extract_frames(frames, key)
