"""How far one layout of colours can be explained by another one, recoloured as edits and players do.

Recolouring is a gain of light (that may take some colour in, as changes of hue do), and a gain and a turn of colour.
Some cells may show something else altogether: logos, subtitles.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LUMA_LIMIT = 0.28
CHROMA_LIMIT = 0.36
"""Shares of a suspect's contrast (root mean square) that may be unexplained before it is called another clip."""

FOREIGN = 0.35
"""Share of the cells that logos and subtitles may cover: the worst are left out."""

TURN_FREE, TURN_COST = 0.3, 0.8
"""Colours may be turned by so many radians; beyond, everything unexplained counts more, by this factor per radian."""

LEAST_GAIN = 0.25
"""How much of the light's contrast must be left: without a bound, an even picture could show any clip."""

ROUNDS = 4

_FLOOR = (3.0, 4.0)  # levels of luma and chroma that compression may leave in an even picture
_TINT = 0.3  # how reluctantly light is explained by colour (hue changes need it)

Cells = NDArray[np.float64]
"""Y, Cb, Cr in 8-bit levels: [3, CELLS, CELLS], or [3, N] for those cells that are seen."""


def unexplained(
    kept: Cells, found: Cells, weight: NDArray[np.float64], leeway: tuple[float, float]
) -> tuple[float, float]:
    """What ``kept`` [3, N], recoloured, leaves unexplained of ``found`` [3, N]: shares (luma, chroma), 0 to 1.

    ``weight`` [N] says how much of each cell is seen, ``leeway`` how far luma and chroma may be off, in levels of
    ``kept``. Fit, leave the worst FOREIGN out, and again. The first guess is a fit to all cells, or that nothing
    was recoloured: whichever ends better.
    """
    unchanged = kept.copy()
    unchanged[0] += np.median(found[0] - kept[0])
    guesses = (_recolour(kept, found, weight / weight.sum()), unchanged)
    ends = [_settle(kept, found, weight, leeway, guess) for guess in guesses]
    return min(ends, key=lambda end: max(end[0] / LUMA_LIMIT, end[1] / CHROMA_LIMIT))


def _settle(
    kept: Cells, found: Cells, weight: NDArray[np.float64], leeway: tuple[float, float], guess: Cells
) -> tuple[float, float]:
    for _ in range(ROUNDS):
        off = (guess - found) ** 2
        # By what is remarkable, not by what the code is coarse in.
        odd = off[0] / (leeway[0] ** 2 + _FLOOR[0] ** 2) + off[1:].sum(axis=0) / (leeway[1] ** 2 + _FLOOR[1] ** 2)
        worst = np.argsort(-odd)
        counted = weight.copy()
        counted[worst[np.cumsum(weight[worst]) <= FOREIGN * weight.sum()]] = 0.0
        counted /= counted.sum()
        guess = _recolour(kept, found, counted)
    strain = 1 + TURN_COST * max(_turn(kept, found, counted) - TURN_FREE, 0.0)
    light, kept_light = (_power(counted, cells[:1] - (counted * cells[0]).sum()) for cells in (found, kept))
    colour, kept_colour = (_power(counted, cells[1:]) for cells in (found, kept))
    # What the kept cells are off by is recoloured as they are.
    gains = (_power(counted, guess[:1] - (counted * guess[0]).sum()) / (kept_light + 1.0),
             _power(counted, guess[1:]) / (kept_colour + 1.0))  # fmt: skip
    left = [
        max(_power(counted, (guess - found)[channels]) - gain * off**2, 0.0)
        for channels, gain, off in zip((slice(0, 1), slice(1, 3)), gains, leeway, strict=True)
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
