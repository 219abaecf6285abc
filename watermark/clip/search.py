"""Where a picture lies on the pattern's plane: found from the signpost alone (spec section 7).

The pattern is a sum of cosines of period two short sides, even in both directions. Shifting it by one short side
mirrors it, so one circular correlation over the period finds every crop, shift, mirroring and half turn at once;
scales, rotations and the quarter turn are tried in turn. Then the four corners are moved until the signpost fits best,
which undoes mild perspective too. No key takes part, so however much is tried, the payload's statistics stay unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safegen.bounds.timelimit import check_time
from safegen.opencv import cv2
from safegen.watermark.clip import reading
from safegen.watermark.clip.pattern import FRAMES_PER_PHASE, ORDER, PHASES, signpost
from safegen.watermark.clip.reading import SHORT, Canvas

FINE = 2 * SHORT
"""Short side, in pixels, of the canvas that is searched."""

WHITENING = 2.0
"""Neighbourhood, in half-periods, that a frequency's strength is measured against."""

GRID = 64
"""Shifts tried per period and direction."""

SCALES = tuple(round(1.03**n, 4) for n in range(-27, 28))
ANGLES = tuple(a for a in np.arange(-15.0, 15.1, 1.5).tolist() if a)
TURNED_SCALES = (1.0, 1.12)
SQUEEZED_SCALES = tuple(round(1.06**n, 4) for n in range(-3, 9))
ASPECTS = (1.0, 16 / 9, 9 / 16, 4 / 3, 3 / 4)
SPEEDS = (1.0, 1.25, 0.8, -1.0)
_TRANSPOSITION = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])  # with a mirroring: a quarter turn

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Alignment:
    """``matrix`` [3, 3] takes a pixel (x, y) of the FINE canvas to the plane (SHORT pixels per short side).

    ``score`` is how many standard deviations the signpost's correlation stands above the rest.
    """

    matrix: Matrix
    score: float


def identity() -> Alignment:
    """The alignment of a picture that nobody has moved."""
    return Alignment(_scaling(SHORT / FINE, SHORT / FINE), 0.0)


def coarse(change: Canvas, keep: int = 6) -> list[Alignment]:
    """The best alignments of a FINE canvas's changes [T, 3, h, w], best first."""
    pictures = reading.even_out(change)
    h, w = change.shape[2:]
    size = (max(1, w * 2 // 3), max(1, h * 2 // 3))
    flat = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures.reshape(-1, h, w)]
    small = np.stack(flat).reshape(*pictures.shape[:2], size[1], size[0])
    found = []
    for matrix in _hypotheses(w, h):
        check_time()
        score, shift = _correlate(pictures, small, matrix)
        moved = matrix.copy()
        moved[:2, 2] += shift
        found.append(Alignment(moved, score))
    return sorted(found, key=lambda a: -a.score)[:keep]


def refine(change: Canvas, path: NDArray[np.int64], start: Alignment) -> Alignment:
    """Move the four corners until the signpost fits best, given each frame's phase."""
    pictures = reading.by_phase(change, path)
    h, w = change.shape[2:]
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    places = cv2.perspectiveTransform(corners[None], start.matrix)[0].astype(np.float32)

    def fit(at: NDArray[np.float32]) -> float:
        matrix = cv2.getPerspectiveTransform(corners, at)
        warped, corner = warp(pictures, matrix)
        return reading.signpost_fit(reading.whiten(reading.project(reading.even_out(warped), corner)))

    best = fit(places)
    for step in (2.5, 1.0, 0.4):
        for _ in range(4):
            check_time()
            before = best
            for move in _MOVES:
                for sign in (step, -step):
                    trial = (places + sign * move).astype(np.float32)
                    score = fit(trial)
                    if score > best:
                        best, places = score, trial
                        break
            if best - before < 0.05:
                break
    return Alignment(cv2.getPerspectiveTransform(corners, places), best)


def warp(pictures: Canvas, matrix: Matrix) -> tuple[Canvas, tuple[int, int]]:
    """Lay pictures [N, 3, h, w] of a FINE canvas on the plane: (canvas, its first pixel's (row, column))."""
    n, _, h, w = pictures.shape
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float32)
    at = cv2.perspectiveTransform(corners, matrix)[0]
    if not np.isfinite(at).all() or np.abs(at).max() > 40 * SHORT:
        return np.zeros((n, 3, SHORT, SHORT), np.float32), (0, 0)
    low, high = np.floor(at.min(axis=0)).astype(int), np.ceil(at.max(axis=0)).astype(int)
    size = (max(int(high[0] - low[0]), 1), max(int(high[1] - low[1]), 1))
    # cv2 counts from pixel centres, the plane from corners.
    to_plane = _shift(-low[0] - 0.5, -low[1] - 0.5) @ matrix @ _shift(0.5, 0.5)
    flat = pictures.reshape(n * 3, h, w)
    out = np.stack([cv2.warpPerspective(p, to_plane, size, flags=cv2.INTER_LINEAR) for p in _smoothed(flat, matrix)])
    return out.reshape(n, 3, size[1], size[0]), (int(low[1]), int(low[0]))


def _smoothed(pictures: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """Against aliasing where the warp shrinks."""
    shrink = 1 / math.sqrt(max(abs(float(np.linalg.det(matrix[:2, :2]))), 1e-3))
    if shrink <= 1.2:
        return pictures
    return np.stack([cv2.GaussianBlur(p, (0, 0), 0.35 * shrink) for p in pictures])


def _hypotheses(width: int, height: int) -> Iterator[Matrix]:
    """Scales, rotations and aspects of a FINE canvas; shifts and mirrorings come by correlation."""
    unit = _scaling(SHORT / FINE, SHORT / FINE)
    yield unit
    yield _TRANSPOSITION @ unit
    for scale in SCALES:
        if scale != 1:
            yield _scaling(scale, scale) @ unit
    centre = (width / 2, height / 2)
    for angle in ANGLES:
        for scale in TURNED_SCALES:
            yield unit @ np.vstack([cv2.getRotationMatrix2D(centre, angle, scale), [0, 0, 1]])
    for scale in SQUEEZED_SCALES:
        for ratio in (0.87, 1.15):
            yield _scaling(scale * ratio, scale / ratio) @ unit
    for aspect in ASPECTS:
        if abs(math.log(aspect * height / width)) > 0.1:  # the whole picture, squeezed
            yield _scaling(max(aspect, 1) * SHORT / width, max(1 / aspect, 1) * SHORT / height)


def _correlate(pictures: Canvas, small: Canvas, matrix: Matrix) -> tuple[float, NDArray[np.float64]]:
    """Correlate with the signpost at every shift in space and time: (best score, its shift (x, y) on the plane).

    ``pictures`` [T, 3, h, w] are evened-out changes, ``small`` the same at two thirds of the size.
    """
    if matrix[0, 0] == 0:  # a quarter turn
        pictures, small = np.swapaxes(pictures, 2, 3), np.swapaxes(small, 2, 3)
        scale = (matrix[0, 1], matrix[1, 0])
    elif matrix[0, 1] != 0:
        shape = pictures.shape
        flat = pictures.reshape(-1, *shape[2:])
        pictures = small = np.stack([_rotate(p, matrix) for p in flat]).reshape(shape)
        scale = (SHORT / FINE, SHORT / FINE)
    else:
        scale = (matrix[0, 0], matrix[1, 1])
    if max(scale) <= 1.05 * SHORT / FINE and small is not pictures:
        scale = (scale[0] * pictures.shape[3] / small.shape[3], scale[1] * pictures.shape[2] / small.shape[2])
        pictures = small
    products = _products(_spectrum(pictures, scale))
    maps = np.zeros((len(_walks(len(pictures))), GRID, GRID // 2 + 1), np.complex64)
    frames = np.arange(len(pictures))
    for n, walk in enumerate(_walks(len(pictures))):
        both = products[frames, walk].sum(axis=0)
        maps[n, :ORDER, :ORDER] = both[ORDER - 1 :]
        maps[n, GRID - ORDER + 1 :, :ORDER] = both[: ORDER - 1]
    field = np.fft.irfft2(maps, s=(GRID, GRID), axes=(1, 2))
    spread = np.sqrt((field**2).mean(axis=(1, 2), keepdims=True)) + 1e-12
    field /= spread
    _, y, x = np.unravel_index(int(field.argmax()), field.shape)
    return float(field.max()), np.array([x, y]) * (2 * SHORT / GRID)


def _spectrum(pictures: Canvas, scale: tuple[float, float]) -> NDArray[np.complex64]:
    """Complex amplitudes [T, 3, 2*ORDER-1, ORDER] at the cosines' frequencies, for pixels ``scale`` apart; whitened."""
    h, w = pictures.shape[2:]
    rows, columns = _waves(h, scale[1]), _waves(w, scale[0])[ORDER - 1 :]
    tall = np.matmul(np.concatenate([rows.real, rows.imag]), pictures)
    wide = np.matmul(tall, np.concatenate([columns.real, columns.imag]).T)
    top, bottom, n = wide[:, :, : 2 * ORDER - 1], wide[:, :, 2 * ORDER - 1 :], ORDER
    real = top[..., :n] - bottom[..., n:]
    imaginary = top[..., n:] + bottom[..., :n]
    power = (real**2 + imaginary**2).mean(axis=0)
    near = np.stack([cv2.GaussianBlur(p, (0, 0), WHITENING, borderType=cv2.BORDER_REFLECT) for p in power])
    scale = np.maximum(np.sqrt(near + 1e-12), np.hypot(real, imaginary) / reading.CLIP)
    amplitudes: NDArray[np.complex64] = (real + 1j * imaginary) / scale
    return amplitudes


def _products(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Every frame's spectrum against every phase's: [T, PHASES, 2*ORDER-1, ORDER]."""
    out: NDArray[np.complex64] = np.einsum("tcvu,kcvu->tkvu", spectrum.conj(), _posts())
    return out


@lru_cache(maxsize=64)
def _walks(frames: int) -> NDArray[np.int64]:
    """Ways in which a clip may go through the phases: every start, at some speeds, one backwards; [N, frames]."""
    starts = np.arange(PHASES * FRAMES_PER_PHASE)[:, None]
    return np.concatenate(
        [
            (starts + np.floor(speed * np.arange(frames))).astype(np.int64) // FRAMES_PER_PHASE % PHASES
            for speed in SPEEDS
        ]
    )


def _rotate(picture: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """Apply the rotation of ``matrix`` (which also shrinks to the plane) at the FINE canvas's own size."""
    h, w = picture.shape
    fine = _scaling(FINE / SHORT, FINE / SHORT) @ matrix
    turned: NDArray[np.float32] = cv2.warpAffine(picture, (_shift(-0.5, -0.5) @ fine @ _shift(0.5, 0.5))[:2], (w, h))
    return turned


@lru_cache(maxsize=256)
def _waves(length: int, scale: float) -> NDArray[np.complex64]:
    """exp(-i pi k x / SHORT) for k = 1-ORDER..ORDER-1 at pixel centres that ``scale`` puts on the plane."""
    k, x = np.arange(1 - ORDER, ORDER)[:, None], (np.arange(length) + 0.5)[None, :] * scale
    waves: NDArray[np.complex64] = np.exp(-1j * np.pi * k * x / SHORT).astype(np.complex64)
    return waves


@lru_cache(maxsize=1)
def _posts() -> NDArray[np.complex64]:
    """Spectrum of the signpost's phases over one period: [PHASES, 3, 2*ORDER-1, ORDER]."""
    posts = signpost()
    half = np.where(np.arange(ORDER) == 0, 1.0, 0.5)  # cos = (exp + exp*) / 2
    weighted = posts * half[:, None] * half[None, :]
    both = np.concatenate([weighted[:, :, :0:-1], weighted], axis=2)
    return both.astype(np.complex64)


def _scaling(x: float, y: float) -> Matrix:
    return np.diag([x, y, 1.0])


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _corner_moves() -> tuple[NDArray[np.float32], ...]:
    """Directions that the corners [4, 2] are moved in: shift, scale, turn, shear and perspective, mixed."""
    along = np.array([[1, 1, 1, 1], [-1, 1, 1, -1], [-1, -1, 1, 1], [1, -1, 1, -1]], np.float32)
    moves = []
    for axis in (0, 1):
        for row in along:
            move = np.zeros((4, 2), np.float32)
            move[:, axis] = row
            moves.append(move)
    return tuple(moves)


_MOVES = _corner_moves()
