"""Where a suspect lies on the kept pictures: from what the search for the mark found, then exactly, by the pictures.

The mark's pattern repeats, mirrored, at every short side, so a place found by it is one of several. Whichever the
pictures fit best is then moved by Gauss-Newton steps on an affine displacement, each after the colours are explained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from safegen.opencv import cv2
from safegen.watermark.fingerprint.explaining import Explainer, pooled
from safegen.watermark.fingerprint.kept_pictures import CELL, FINE, KeptPictures, Look, grid_of, look_at
from safegen.watermark.fingerprint.shown import LUMA, Plane, Shown

Matrix = NDArray[np.float64]
Corners = list[list[float]]
"""The picture's four corners, clockwise from the top left, on the marked clip's plane in its short sides: (x, y)."""

_BLACK = 4.0
_STEPS = ((4, 4), (2, 4), (1, 3))
"""Pixels of a kept picture that are taken together, and steps so taken, at most."""

_STILL = 0.05
"""Pixels: a step this short is the last one of its kind."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A suspect's half second on the grid of the kept pictures, and where it is to be seen there: ``weight`` [h, w], 0
    or 1.

    ``grain``: the variance over time of its single points, in cells, and ``faint`` the share of that which noise keeps
    in small frames.
    """

    look: Look
    weight: Plane
    grain: Plane
    faint: float


def places(kept: KeptPictures, shape: tuple[int, ...], corners: Corners | None) -> list[Matrix]:
    """Where a canvas [h, w] may lie: matrices [3, 3] from its pixels to those of the kept pictures.

    Without corners it is the whole picture, stretched. Empty where the corners say nothing sensible.
    """
    h, w = shape[:2]
    rows, columns = grid_of(kept.height, kept.width)
    if corners is None:
        return [np.diag([columns / w, rows / h, 1.0])]
    there = np.array(corners, np.float32)
    if there.shape != (4, 2) or not np.isfinite(there).all() or np.abs(there).max() > 40:
        return []
    here = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(here, there)
    width, height = kept.size
    ways = [_mirrorings(there[:, n].min(), there[:, n].max(), length) for n, length in enumerate((width, height))]
    scale = np.diag([columns / width, rows / height, 1.0])
    return [
        scale @ np.array([[turn_x, 0, move_x], [0, turn_y, move_y], [0, 0, 1.0]]) @ matrix
        for (turn_x, move_x), (turn_y, move_y) in product(*ways)
    ]


def _mirrorings(low: float, high: float, length: float) -> list[tuple[int, int]]:
    """The (sign, shift) that bring most of [low, high] onto [0, length]; the plane's period is 2."""
    found = []
    for sign, (start, stop) in ((1, (low, high)), (-1, (-high, -low))):
        for shift in range(-42, 43, 2):
            found.append((min(stop + shift, length) - max(start + shift, 0.0), sign, shift))
    most = max(found)[0]
    return [(sign, shift) for overlap, sign, shift in found if overlap > 0 and overlap >= 0.8 * most]


def lay(shown: Shown, place: Matrix, kept: KeptPictures, *, whole: bool) -> Laid:
    """Lay a half second on the kept grid. ``whole``: nothing round it is left out as a border."""
    rows, columns = grid_of(kept.height, kept.width)
    fine = np.diag([FINE, FINE, 1.0]) @ place
    lit = np.ones(shown.mean.shape[:2], np.float32) if whole else _lit(np.asarray(shown.mean @ LUMA, np.float32))
    size = (FINE * columns, FINE * rows)
    mean, grain = (_warped(p, fine, size) for p in (shown.mean, shown.grain))
    small = shown.unrest.shape
    coarser = place @ np.diag([lit.shape[1] / small[1], lit.shape[0] / small[0], 1.0])
    unrest = _warped(shown.unrest, coarser, (columns, rows))
    inside = cv2.warpPerspective(np.pad(lit, 1), _centred(fine) @ _moved(-1, -1), size, flags=cv2.INTER_LINEAR)
    weight = cv2.resize((inside > 0.99).astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    faint = small[0] * small[1] / lit.size
    many = cv2.resize(grain, (columns // CELL, rows // CELL), interpolation=cv2.INTER_AREA)
    return Laid(look_at(mean, unrest), (weight > 0.99).astype(np.float32), np.asarray(many, np.float32), faint)


def align(shown: Shown, place: Matrix, explainer: Explainer, kept: KeptPictures, *, whole: bool) -> Matrix:
    """Move ``place`` until the explained picture fits the suspect as well as a few steps can make it."""
    for together, steps in _STEPS:
        for _ in range(steps):
            laid = lay(shown, place, kept, whole=whole)
            if laid.weight.mean() < 0.1:
                return place
            change, length = _step(laid, explainer, together)
            place = change @ place
            if length < _STILL * together:
                break
    return place


def _step(laid: Laid, explainer: Explainer, together: int) -> tuple[Matrix, float]:
    """What moves the suspect to where it is explained best: one Gauss-Newton step, and how far it goes, in pixels.

    Colours and displacement are solved for at once, or else colours would explain away what lies elsewhere.
    """
    light, weight = (pooled(p, together) for p in (laid.look.luma, laid.weight))
    h, w = light.shape
    slope_x, slope_y = (cv2.Sobel(light, cv2.CV_32F, *way) / (8 * together) for way in ((1, 0), (0, 1)))
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    x, y = (2 * x + 1 - w) / min(h, w), (2 * y + 1 - h) / min(h, w)
    one, along = np.ones_like(x), slope_x * x + slope_y * y
    moves = [slope * q for slope in (slope_x, slope_y) for q in (one, x, y)] + [along * x, along * y]
    tolerance = (36.0 + (0.7 * pooled(explainer.look.moving, together)) ** 2).reshape(-1)
    solution = explainer.fit_moved(light, np.stack(moves, axis=-1), weight, tolerance, together)
    move = np.clip(solution, -4, 4)
    # The suspect is read where the displacement leads, so the place is moved the other way.
    short = min(h, w) * together
    unit = np.array([[2 / short, 0, -w * together / short], [0, 2 / short, -h * together / short], [0, 0, 1]])
    a = 2 / short * move
    there = np.array([[1 + a[1], a[2], a[0]], [a[4], 1 + a[5], a[3]], [-a[6], -a[7], 1]])
    return np.linalg.inv(np.linalg.inv(unit) @ there @ unit), float(np.abs(move).max())


def _warped(plane: NDArray[np.float32], place: Matrix, size: tuple[int, int]) -> NDArray[np.float32]:
    shrink = 1 / math.sqrt(max(abs(float(np.linalg.det(place[:2, :2]))), 1e-3))
    if shrink > 1.2:
        plane = cv2.GaussianBlur(plane, (0, 0), 0.35 * shrink, borderType=cv2.BORDER_REPLICATE)
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpPerspective(plane, _centred(place), size, flags=flags, borderMode=border), np.float32)


def _centred(place: Matrix) -> Matrix:
    """The same for cv2, which counts from pixel centres."""
    return _moved(-0.5, -0.5) @ place @ _moved(0.5, 0.5)


def _moved(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _lit(light: Plane) -> Plane:
    """1 within the picture, 0 in black borders and a little around them: where a picture was moved, they lie about.

    Pictures are convex, turned ones too. What is black within the hull of the rest was drawn there.
    """
    black = (light < _BLACK).astype(np.uint8)
    _, parts = cv2.connectedComponents(np.pad(black, 1, constant_values=1), connectivity=4)
    points = np.argwhere(parts[1:-1, 1:-1] != parts[0, 0])[:, ::-1]
    lit = np.zeros(light.shape, np.uint8)
    if len(points) < 3:
        return lit.astype(np.float32)
    cv2.fillConvexPoly(lit, cv2.convexHull(points.astype(np.int32)), (1,))
    reach = 2 * max(1, round(0.03 * min(light.shape))) + 1
    # The frame's own edge is no border.
    outside = cv2.dilate(1 - lit, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(1 - outside, np.float32)
