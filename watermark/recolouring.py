"""How far one layout of colours can be explained by another one, recoloured as edits and players do.

Recolouring is a gain of light (that may take some colour in, as changes of hue do), and a gain and a turn of colour.
Some cells may show something else altogether: logos, subtitles.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LUMA_LIMIT = 0.25
CHROMA_LIMIT = 0.33
"""Shares of a suspect's contrast (root mean square) that may be unexplained before it is called another clip."""

FOREIGN = 0.35
"""Share of the cells that logos and subtitles may cover: the worst are left out."""

TURN_FREE, TURN_COST = 0.3, 0.8
"""Colours may be turned by so many radians; beyond, everything unexplained counts more, by this factor per radian."""

LEAST_GAIN = 0.25
"""How much of the light's contrast must be left: without a bound, an even picture could show any clip."""

ROUNDS = 4

_FLOOR = (3.0, 4.0)  # levels of luma and chroma that compression may leave in an even picture
_LEEWAY = 0.35  # of the clip's own unrest: a trimmed clip has other medians
_TINT = 0.3  # how reluctantly light is explained by colour (hue changes need it)

Cells = NDArray[np.float64]
"""Y, Cb, Cr in 8-bit levels: [3, CELLS, CELLS], or [3, N] for those cells that are seen."""


def unexplained(
    kept: Cells, found: Cells, weight: NDArray[np.float64], unrest: tuple[float, float]
) -> tuple[float, float]:
    """What ``kept`` [3, N], recoloured, leaves unexplained of ``found`` [3, N]: shares (luma, chroma), 0 to 1.

    ``weight`` [N] says how much of each cell is seen, ``unrest`` how much luma and chroma of the clip move over time,
    in levels. Fit, leave the worst FOREIGN out, and again. The first guess is a fit to all cells, or that nothing
    was recoloured: whichever ends better.
    """
    unchanged = kept.copy()
    unchanged[0] += np.median(found[0] - kept[0])
    guesses = (_recolour(kept, found, weight / weight.sum()), unchanged)
    ends = [_settle(kept, found, weight, unrest, guess) for guess in guesses]
    return min(ends, key=lambda end: max(end[0] / LUMA_LIMIT, end[1] / CHROMA_LIMIT))


def _settle(
    kept: Cells, found: Cells, weight: NDArray[np.float64], unrest: tuple[float, float], guess: Cells
) -> tuple[float, float]:
    for _ in range(ROUNDS):
        off = (guess - found) ** 2
        worst = np.argsort(-off.sum(axis=0))
        counted = weight.copy()
        counted[worst[np.cumsum(weight[worst]) <= FOREIGN * weight.sum()]] = 0.0
        counted /= counted.sum()
        guess = _recolour(kept, found, counted)
    off = (guess - found) ** 2
    strain = 1 + TURN_COST * max(_turn(kept, found, counted) - TURN_FREE, 0.0)
    light = float((counted * (found[0] - (counted * found[0]).sum()) ** 2).sum()) + _FLOOR[0] ** 2
    colour = float((counted * (found[1] ** 2 + found[2] ** 2)).sum()) + _FLOOR[1] ** 2
    left = (
        max(float((counted * off[0]).sum()) - (_LEEWAY * unrest[0]) ** 2, 0.0),
        max(float((counted * (off[1] + off[2])).sum()) - (_LEEWAY * unrest[1]) ** 2, 0.0),
    )
    return min(strain * math.sqrt(left[0] / light), 1.0), min(strain * math.sqrt(left[1] / colour), 1.0)


def _turn(kept: Cells, found: Cells, weight: NDArray[np.float64]) -> float:
    """By what angle the colours are turned, in radians; 0 where either side has next to none."""
    known, seen = kept[1] + 1j * kept[2], found[1] + 1j * found[2]
    if min((weight * np.abs(c) ** 2).sum() for c in (known, seen)) < _FLOOR[1] ** 2:
        return 0.0
    return abs(float(np.angle((weight * known.conj() * seen).sum())))


def _recolour(kept: Cells, found: Cells, weight: NDArray[np.float64]) -> Cells:
    """The kept cells in the suspect's colours: light by a line (never falling), colour by a gain and a turn."""
    mean = (weight * found[0]).sum()
    known = (kept - (weight * kept).sum(axis=1, keepdims=True)).T
    power = (known * weight[:, None]).T @ known
    tied = power + np.diag([0.1, *[_TINT * power[0, 0] + 4.0] * 2])
    aim = (known * weight[:, None]).T @ (found[0] - mean)
    slope = np.linalg.solve(tied, aim)
    if slope[0] < LEAST_GAIN:
        rest = np.linalg.solve(tied[1:, 1:], aim[1:] - LEAST_GAIN * tied[1:, 0])
        slope = np.array([LEAST_GAIN, *rest])
    colour, seen = kept[1] + 1j * kept[2], found[1] + 1j * found[2]
    gain = (weight * colour.conj() * seen).sum() / ((weight * np.abs(colour) ** 2).sum() + 1.0)
    return np.stack([mean + known @ slope, (gain * colour).real, (gain * colour).imag])
