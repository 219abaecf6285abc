"""Whether a suspect's colours are a clip's, recoloured no further than edits do: the check behind the explanation.

An explanation (``explaining``) may bend and mix channels in many ways at once, and a scene of few forms, a sky over a
ground, is explained by another one then. So the lasting layout, 8 x 8 cells of Y, Cb and Cr, must also be explained by
*one* of a few plain changes: a gain of light and a gain and a turn of colour; the same of the negative; the same under
a vignette; or, where hardly any colour is left, light alone. What that leaves unexplained is the distance, in units of
what may remain. It makes nothing the same that the explanation does not; it leaves open what would take more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from safegen.opencv import cv2
from safegen.watermark.fingerprint.shown import Picture, Plane

CELLS: Final = 8
LUMA_LIMIT: Final = 0.28
CHROMA_LIMIT: Final = 0.36
"""Shares of a suspect's contrast (root mean square) that may be unexplained."""

GREY_LIMIT: Final = 0.45
"""Of LUMA_LIMIT, where light alone is compared: it says less."""

_GREY: Final = (
    7.0  # standard deviation of either chroma, in levels, up to which a picture is tinted rather than coloured
)
_ENOUGH: Final = 16  # cells that must be seen
_COVERED: Final = 0.2  # share of the cells that logos and subtitles may cover: the worst are left out
_LEAST_GAIN: Final = 0.25  # of the light's contrast that must be left
_FLOOR: Final = (3.0, 4.0)  # levels of luma and chroma that compression may leave in an even picture
_SPARE: Final = 3.0  # levels by which the kept picture itself may be off
_TINT: Final = 0.3  # how reluctantly light is explained by colour (changes of hue need it)
_TURN_FREE, _TURN_COST = 0.3, 0.8  # radians that colours may turn for nothing, and what each further one costs
_SHADING: Final = (0.15, 3.0)  # of a vignette at its strongest
_ROUNDS: Final = 4
_YCC: Final = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])

Cells = NDArray[np.float64]
"""Y, Cb, Cr in 8-bit levels, [3, N]."""


def distance(kept: Picture, found: Picture, weight: Plane) -> float:
    """How much more than edits do it takes to recolour ``kept`` [h, w, 3] to ``found``: up to 1 is plausible.

    ``weight`` [h, w] says where something is seen. Infinity where too little is.
    """
    seen = cv2.resize(weight, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel() > 0.5
    if int(seen.sum()) < _ENOUGH:
        return math.inf
    known, shown = _cells(kept)[:, seen], _cells(found)[:, seen]
    at = np.linspace(-1, 1, CELLS)
    radius = (at[:, None] ** 2 + at**2).ravel()[seen]
    return min(_distances(known, shown, radius))


def _distances(known: Cells, shown: Cells, radius: NDArray[np.float64]) -> Iterator[float]:
    for origin in (known, -known, _vignetted(known, shown, radius)):
        light, colour = _unexplained(origin, shown)
        yield max(light / LUMA_LIMIT, colour / CHROMA_LIMIT)
        if shown[1:].std(axis=1).max() < _GREY:
            yield light / (LUMA_LIMIT * GREY_LIMIT)


def _cells(picture: Picture) -> Cells:
    few = cv2.resize(picture, (CELLS, CELLS), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    return np.asarray(_YCC @ few.T, np.float64)


def _vignetted(known: Cells, shown: Cells, radius: NDArray[np.float64]) -> Cells:
    """``known`` under the vignette that explains ``shown`` best; unchanged where none does."""
    terms = np.stack([np.ones_like(radius), known[0], radius * known[0]], axis=1)
    _, gain, shade = np.linalg.lstsq(terms, shown[0], rcond=None)[0]
    shading = 1 + shade / (gain if abs(gain) > 1e-3 else 1e-3) * radius
    return known * shading if _SHADING[0] <= shading.min() and shading.max() <= _SHADING[1] else known


def _unexplained(kept: Cells, found: Cells) -> tuple[float, float]:
    """What ``kept``, recoloured, leaves unexplained of ``found``: shares (luma, chroma), 0 to 1.

    Fit, leave the worst cells out, and again; the first guess is a fit to all, or that nothing was recoloured.
    """
    unchanged = kept.copy()
    unchanged[0] += np.median(found[0] - kept[0])
    even = np.full(kept.shape[1], 1 / kept.shape[1])
    ends = [_settled(kept, found, guess) for guess in (_recoloured(kept, found, even), unchanged)]
    return min(ends, key=lambda end: max(end[0] / LUMA_LIMIT, end[1] / CHROMA_LIMIT))


def _settled(kept: Cells, found: Cells, guess: Cells) -> tuple[float, float]:
    count = kept.shape[1]
    left_out = int(_COVERED * count)
    for _ in range(_ROUNDS):
        off = (guess - found) ** 2
        odd = off[0] / (_SPARE**2 + _FLOOR[0] ** 2) + off[1:].sum(axis=0) / (_SPARE**2 + _FLOOR[1] ** 2)
        counted = np.full(count, 1.0)
        counted[np.argsort(-odd)[:left_out]] = 0.0
        counted /= counted.sum()
        guess = _recoloured(kept, found, counted)
    strain = 1 + _TURN_COST * max(_turn(kept, found, counted) - _TURN_FREE, 0.0)
    light, kept_light = (_power(counted, c[:1] - (counted * c[0]).sum()) for c in (found, kept))
    colour, kept_colour = (_power(counted, c[1:]) for c in (found, kept))
    gains = (
        _power(counted, guess[:1] - (counted * guess[0]).sum()) / (kept_light + 1.0),
        _power(counted, guess[1:]) / (kept_colour + 1.0),
    )
    left = [
        max(_power(counted, (guess - found)[part]) - gain * _SPARE**2, 0.0)
        for part, gain in zip((slice(0, 1), slice(1, 3)), gains, strict=True)
    ]
    shares = (math.sqrt(left[0] / (light + _FLOOR[0] ** 2)), math.sqrt(left[1] / (colour + _FLOOR[1] ** 2)))
    return min(strain * shares[0], 1.0), min(strain * shares[1], 1.0)


def _power(weight: NDArray[np.float64], cells: Cells) -> float:
    return float((weight * (cells**2).sum(axis=0)).sum())


def _turn(kept: Cells, found: Cells, weight: NDArray[np.float64]) -> float:
    """By what angle the colours are turned, in radians; 0 where either side has next to none."""
    known, seen = kept[1] + 1j * kept[2], found[1] + 1j * found[2]
    if min((weight * np.abs(c) ** 2).sum() for c in (known, seen)) < _FLOOR[1] ** 2:
        return 0.0
    return abs(float(np.angle((weight * known.conj() * seen).sum())))


def _recoloured(kept: Cells, found: Cells, weight: NDArray[np.float64]) -> Cells:
    """The kept cells in the suspect's colours: light by a line (never falling), colour by a gain and a turn."""
    mean = (weight * found[0]).sum()
    known = (kept - (weight * kept).sum(axis=1, keepdims=True)).T
    power = (known * weight[:, None]).T @ known
    tied = power + np.diag([0.1, *[_TINT * power[0, 0] + 4.0] * 2])
    aim = (known * weight[:, None]).T @ (found[0] - mean)
    slope = np.linalg.solve(tied, aim)
    if slope[0] < _LEAST_GAIN:
        rest = np.linalg.solve(tied[1:, 1:], aim[1:] - _LEAST_GAIN * tied[1:, 0])
        slope = np.array([_LEAST_GAIN, *rest])
    colour, seen = kept[1] + 1j * kept[2], found[1] + 1j * found[2]
    gain = (weight * colour.conj() * seen).sum() / ((weight * np.abs(colour) ** 2).sum() + 1.0)
    return np.stack([mean + known @ slope, (gain * colour).real, (gain * colour).imag])
