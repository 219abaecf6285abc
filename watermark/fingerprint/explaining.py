"""How far one picture is another one, recoloured and shaded as edits do it, and where something else is to be seen.

An *explanation* of a suspect by a kept picture is a sum of what filters can make of it: every channel bent by a curve
(negation too), channels mixed, their lightest and darkest taken (hue and saturation), all of it shaded by a quadratic
over the picture (vignettes), a quadratic gradient of colour laid over it, a little more or less sharpness. None of
these can bring in a form that was not there. It is fitted by weighted least squares with a prior on each weight, anew
without the points that it leaves unexplained.

What remains is compared with what may remain: noise, the loss of detail by compression, half a pixel of displacement,
what moves. A *cell* where more remains shows something foreign, or lacks something.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safegen.opencv import cv2
from safegen.watermark.fingerprint.kept_pictures import FINE, Look, cells
from safegen.watermark.fingerprint.shown import LUMA, Picture, Plane

WHITE, BLACK = 250.0, 5.0
"""Levels from which on nobody knows how much lighter, or darker, it would have been."""

NOISE = 4.0
"""Root mean square, in levels, that may remain anywhere."""

SHIFT = 0.7
"""Pixels of a kept picture by which a point may lie elsewhere."""

MOVES = 0.7
"""How far, in standard deviations of a point over the half second, its mean may be off: cut elsewhere, it moved on."""

BLIND = 12.0
"""Levels that a cell's movement may explain above which hardly anything foreign would show there."""

IN_STEP = 0.3
"""The share of MOVES that is needed by half seconds that were cut where the kept ones were."""

LOST = 0.15
"""Share of the power of fine detail that compression may take or bring."""

FINE_NOISE, FINE_GAIN = 2.5, 2.0
"""Levels of what is finer than a kept picture that may be anywhere, and how much stronger (in power) it may get."""

UNREST_NOISE, UNREST_GAIN = 5.0, 4.0
"""The same for what changes over time, in levels, and in power."""

SMOOTH = 8.0
"""Pixels: what remains and is smoother than this is shading, not form."""

_KNOTS = (64.0, 128.0, 192.0)
_SHADES = 5
_ROUGH = 6.0  # levels that may remain while the place is still being looked for
_STRAY = 2.0  # pixels by which the place is expected to be off
_OFFSETS = 1 + _SHADES


@dataclass(frozen=True, slots=True)
class Judged:
    """What an explanation leaves. ``foreign``: cells [h / CELL, w / CELL] where something is unexplained;
    ``seen`` is the share of all cells that are seen.

    ``explained``, ``form`` and ``unexplained`` are levels (root mean square): the kept picture's contrast as it is
    found again, what of it is not mere shading, and what remains beyond the tolerance. ``contrast``: the first as a
    share of the kept picture's own. ``forms``: what the kept picture itself has that is not mere shading, in levels.
    ``blind``: the share of all cells in which hardly anything foreign would show, for what moves there explains nearly
    all; and ``out_of_step`` the share that is unexplained if the half second was cut where the kept one was.
    """

    foreign: NDArray[np.bool_]
    seen: float
    explained: float
    form: float
    unexplained: float
    contrast: float
    forms: float
    blind: float
    out_of_step: float


class Explainer:
    """Explains suspects by one look."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self._terms, self._spread = _terms(look.picture)
        self._pooled = {2: pooled(self._terms, 2)}
        self._tolerance = np.maximum(MOVES * pooled(look.moving, 2), NOISE)

    def fit(self, picture: Picture, weight: Plane, rounds: int) -> NDArray[np.float64]:
        """The weights [terms, 3] of the explanation of ``picture`` [h, w, 3], where ``weight`` [h, w] says 1."""
        terms = self._pooled[2].reshape(-1, self._pooled[2].shape[-1]).astype(np.float64)
        aim = target = pooled(picture, 2).reshape(-1, 3).astype(np.float64)
        seen, tolerance = pooled(weight, 2).reshape(-1), self._tolerance.reshape(-1)
        prior, trust = np.diag(NOISE**2 / self._spread**2), seen
        for n in range(rounds):
            certain = (trust * (NOISE / tolerance) ** 2)[:, None] * terms
            solution = np.linalg.solve(certain.T @ terms + prior, certain.T @ aim)
            if n + 1 < rounds:
                made = terms @ solution
                left = remaining(made, target)
                trust = seen / (1 + (left**2).sum(axis=1) / (6 * tolerance**2))
                aim = made + left
        return solution

    def fit_moved(
        self, light: Plane, moves: NDArray[np.float32], weight: Plane, tolerance: NDArray[np.float32], together: int
    ) -> NDArray[np.float64]:
        """How far along each of ``moves`` [h, w, n] ``light`` [h, w] must be changed to be explained best: [n].

        All are pooled by ``together``.
        """
        if together not in self._pooled:
            self._pooled[together] = pooled(self._terms, together)
        count = moves.shape[-1]
        terms = np.concatenate([self._pooled[together], -moves], axis=-1).reshape(-1, len(self._spread) + count)
        spread = np.concatenate([self._spread, [_STRAY] * 6, [_STRAY / 2] * (count - 6)])
        aim, trust = light.reshape(-1), weight.reshape(-1)
        prior = np.diag(_ROUGH**2 / spread**2)
        terms = terms.astype(np.float64)
        for n in range(2):
            certain = (trust * _ROUGH**2 / tolerance)[:, None] * terms
            solution = np.linalg.solve(certain.T @ terms + prior, certain.T @ aim)
            if n == 0:
                trust = weight.reshape(-1) / (1 + (aim - terms @ solution) ** 2 / (3 * tolerance))
        return solution[-count:]

    def made(self, solution: NDArray[np.float64]) -> Picture:
        """The explanation as a picture [h, w, 3]."""
        return np.asarray(self._terms @ solution, np.float32)

    def cost(self, picture: Picture, weight: Plane) -> float:
        """Roughly how much of ``picture`` remains, in tolerances, each point counting 20 at most."""
        solution = self.fit(picture, weight, 2)
        left = remaining(self._pooled[2] @ solution, pooled(picture, 2).astype(np.float64))
        seen = pooled(weight, 2)
        power = (left**2).sum(axis=-1) / (self._tolerance**2 + NOISE**2)
        return float((seen * np.minimum(power, 20.0)).sum() / max(float(seen.sum()), 1e-6))

    def judge(self, suspect: Look, weight: Plane, grain: Plane, faint: float, frames: int) -> Judged:
        """Compare a suspect of so many frames on the same grid, where ``weight`` [h, w] says 1.

        ``grain``: the variance of its single points over time, in cells, and ``faint`` the share of noise in it that
        small frames keep.
        """
        look = self.look
        solution = self.fit(suspect.picture, weight, 5)
        made = self.made(solution)
        own = np.asarray(self._terms[..., _OFFSETS:] @ solution[_OFFSETS:] @ LUMA, np.float32)
        found, known = (_fine(p, weight) for p in (own, look.luma))
        gain = float(np.sqrt(_mean(found**2, weight) / (_mean(known**2, weight) + 0.5)))
        light = cv2.GaussianBlur(np.asarray(made @ LUMA, np.float32), (0, 0), 0.7)
        slope = (cv2.Sobel(light, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(light, cv2.CV_32F, 0, 1) ** 2) / 64
        rough = cv2.GaussianBlur((found - cv2.GaussianBlur(found, (0, 0), 1.5)) ** 2, (0, 0), 2.0)
        noise = _enlarged(grain, weight.shape) / (frames * FINE**2)
        still = NOISE**2 + SHIFT**2 * slope + LOST * rough + noise
        strayed = (MOVES * gain * look.moving) ** 2
        may = still + strayed
        left = np.asarray(remaining(made, suspect.picture), np.float32)
        trust = weight / (1 + (left @ LUMA) ** 2 / may) ** 2
        left -= np.stack([_smooth(left[..., c], trust) for c in range(3)], axis=-1)
        grey = left @ LUMA
        colour = np.abs(left - grey[..., None]).max(axis=-1)
        excess = np.maximum(grey**2 - may, 0)
        power = max(gain, 0.3) ** 2
        fine = np.maximum(suspect.detail - 1.3 * grain / frames, 0)
        restless = np.maximum(suspect.unrest - 1.5 * faint * grain, 0)
        louder = (fine > FINE_NOISE**2 + FINE_GAIN * power * look.detail) | (
            restless > UNREST_NOISE**2 + UNREST_GAIN * power * look.unrest
        )
        remains = grey**2 + 0.25 * colour**2
        whole = cells(weight) > 0.99
        foreign = (cells(remains / may) > 1) | louder
        in_step = (cells(remains / (still + IN_STEP**2 * strayed)) > 1) | louder
        blind = whole & (cells(strayed) > BLIND**2)
        mean = _mean(own, weight)
        explained = float(np.sqrt(_mean((own - mean) ** 2, weight)))
        had = float(np.sqrt(_mean((look.luma - _mean(look.luma, weight)) ** 2, weight)))
        form, unexplained = (float(np.sqrt(_mean(p, weight))) for p in (found**2, excess))
        forms = float(np.sqrt(_mean(known**2, weight)))
        return Judged(
            foreign & whole,
            float(whole.mean()),
            explained,
            form,
            unexplained,
            explained / (had + 0.5),
            forms,
            float(blind.mean()),
            float((in_step & whole).mean()),
        )


def remaining(made: NDArray[np.floating], picture: NDArray[np.floating]) -> NDArray[np.floating]:
    """What ``made`` leaves of ``picture``: nothing where that is cut off at white or black and should be beyond it."""
    left = picture - made
    left[(picture >= WHITE) & (left < 0)] = 0
    left[(picture <= BLACK) & (left > 0)] = 0
    return left


def _terms(picture: Picture) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What explanations are sums of, [h, w, terms], and how large each weight may be expected to be, [terms]."""
    h, w = picture.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    x, y = (2 * x + 1) / w - 1, (2 * y + 1) / h - 1
    shades = [x, y, x * x, x * y, y * y]
    terms, spread = [np.ones_like(x), *shades], [150.0] * _OFFSETS
    for channel in np.moveaxis(picture, -1, 0):
        terms += [channel, *(np.maximum(channel - knot, 0) for knot in _KNOTS), *(shade * channel for shade in shades)]
        spread += [1.0, *[0.7] * len(_KNOTS), *[0.4] * _SHADES]
    light = np.asarray(picture @ LUMA, np.float32)
    soft, softer = (cv2.GaussianBlur(light, (0, 0), s, borderType=cv2.BORDER_REFLECT) for s in (1.2, 3.0))
    terms += [picture.max(axis=-1), picture.min(axis=-1), light - soft, soft - softer]
    spread += [0.7, 0.7, 0.7, 0.4]
    return np.stack(terms, axis=-1), np.array(spread)


def pooled(plane: NDArray[np.float32], together: int) -> NDArray[np.float32]:
    """Means of ``together`` x ``together`` points."""
    if together == 1:
        return plane
    h, w = plane.shape[0] // together, plane.shape[1] // together
    shape = (h, together, w, together, *plane.shape[2:])
    return np.asarray(plane.reshape(shape).mean(axis=(1, 3)), np.float32)


def _smooth(plane: Plane, weight: Plane) -> Plane:
    """A wide mean of the points that count."""
    total, count = (
        cv2.GaussianBlur(p, (0, 0), SMOOTH, borderType=cv2.BORDER_REFLECT) for p in (plane * weight, weight)
    )
    return np.asarray(total / np.maximum(count, 0.02), np.float32)


def _fine(plane: Plane, weight: Plane) -> Plane:
    """Form without shading, 0 where nothing is seen."""
    return np.asarray((plane - _smooth(plane, weight)) * weight, np.float32)


def _mean(plane: Plane, weight: Plane) -> float:
    return float((plane * weight).sum() / max(float(weight.sum()), 1e-6))


def _enlarged(few: Plane, shape: tuple[int, ...]) -> Plane:
    return np.asarray(cv2.resize(few, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
