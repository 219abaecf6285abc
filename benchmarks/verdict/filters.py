"""Filters that photographers' tools and telephones put on a clip. uint8 RGB ``[T, H, W, 3]``, the same shape back.

None of them brings in anything to be seen: they shade, recolour, and bend tones. Drawn from common recipes, not from
any maker's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Levels = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)


@dataclass(frozen=True)
class Filter:
    """Tones by a curve per channel, a mix of the channels, saturation, a vignette, a coloured gradient over it all."""

    mix: tuple[tuple[float, ...], ...] | None = None
    saturation: float = 1.0
    curves: tuple[tuple[tuple[float, float], ...], ...] = ()  # points (from, to) in 0..255: one curve, or one a channel
    vignette: float = 0.0  # how much of the light the corners lose
    overlay: float = 0.0  # share of the gradient from ``colours[0]`` to ``colours[1]``
    colours: tuple[tuple[float, float, float], tuple[float, float, float]] = ((255, 120, 40), (60, 40, 160))
    angle: float = 90.0  # of the gradient, in degrees: 0 from left to right
    clarity: float = 0.0  # local contrast: away from a wide blur

    def __call__(self, frames: Frames) -> Frames:
        """Return the filtered frames."""
        return np.stack([self._one(frame.astype(np.float32)) for frame in frames])

    def _one(self, frame: Levels) -> Frames:
        if self.mix is not None:
            frame = frame @ np.array(self.mix, np.float32).T
        if self.saturation != 1:
            grey = (frame @ _LUMA)[..., None]
            frame = grey + self.saturation * (frame - grey)
        if self.clarity:
            wide = cv2.GaussianBlur(frame, (0, 0), min(frame.shape[:2]) / 20)
            frame = frame + self.clarity * (frame - wide)
        frame = frame.clip(0, 255)
        for channel in range(3 if self.curves else 0):
            points = self.curves[channel % len(self.curves)]
            frame[..., channel] = _curve(frame[..., channel], points)
        if self.vignette or self.overlay:
            frame = self._shade(frame)
        return np.rint(frame.clip(0, 255)).astype(np.uint8)

    def _shade(self, frame: Levels) -> Levels:
        height, width = frame.shape[:2]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        x, y = (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5
        frame = frame * (1 - self.vignette * 2 * (x * x + y * y))[..., None]
        a = np.deg2rad(self.angle)
        along = (0.5 + (x * np.cos(a) + y * np.sin(a)) / (abs(np.cos(a)) + abs(np.sin(a))))[..., None]
        first, last = (np.array(c, np.float32) for c in self.colours)
        return np.asarray((1 - self.overlay) * frame + self.overlay * (first + along * (last - first)), np.float32)


def _curve(values: Levels, points: Sequence[tuple[float, float]]) -> Levels:
    """A smooth monotone curve through the points: piecewise linear, then rounded off."""
    at, to = np.array(points, np.float64).T
    table = np.interp(np.arange(256), at, to)
    smooth = cv2.GaussianBlur(np.pad(table, 24, mode="reflect", reflect_type="odd")[None], (0, 0), 8)[0, 24:-24]
    return np.interp(values, np.arange(256), smooth).astype(np.float32)


_S_CURVE = (((0, 0), (64, 44), (192, 212), (255, 255)),)
_FADED = (((0, 38), (128, 134), (255, 226)),)

FILTERS: dict[str, Callable[[Frames], Frames]] = {
    "vignette_0.5": Filter(vignette=0.5),
    "vignette_0.8": Filter(vignette=0.8),
    "gradient_overlay_0.3": Filter(overlay=0.3),
    "gradient_overlay_0.3_diagonal": Filter(overlay=0.3, angle=35, colours=((30, 200, 220), (230, 60, 200))),
    "sepia": Filter(mix=tuple(map(tuple, _SEPIA.tolist()))),
    "vintage": Filter(
        saturation=0.7, vignette=0.35,
        curves=(((0, 30), (128, 150), (255, 245)), ((0, 12), (128, 130), (255, 235)),
                ((0, 48), (128, 118), (255, 200))),
    ),
    "cross_process": Filter(
        curves=(((0, 0), (64, 40), (192, 220), (255, 255)), ((0, 0), (64, 56), (192, 214), (255, 255)),
                ((0, 44), (255, 206))),
    ),
    "negation": Filter(curves=(((0, 255), (255, 0)),)),
    "noir": Filter(saturation=0.0, curves=_S_CURVE, vignette=0.4),
    "faded": Filter(saturation=0.75, curves=_FADED),
    "vivid": Filter(saturation=1.6, curves=_S_CURVE),
    "warm": Filter(mix=((1.12, 0, 0), (0, 1.02, 0), (0, 0, 0.82)), saturation=1.1),
    "cool": Filter(mix=((0.86, 0, 0), (0, 1.0, 0), (0, 0, 1.15)), saturation=0.9),
    "dusk": Filter(saturation=1.2, curves=_FADED, overlay=0.15, angle=60, vignette=0.25),
    "duotone": Filter(mix=((0.25, 0.5, 0.1), (0.1, 0.25, 0.05), (0.1, 0.25, 0.1)),
                      curves=(((0, 30), (255, 255)), ((0, 10), (255, 235)), ((0, 80), (255, 170)))),
    "clarity": Filter(clarity=0.5, saturation=1.1),
    "matte_portrait": Filter(saturation=0.9, curves=(((0, 24), (96, 92), (255, 240)),), vignette=0.2, clarity=0.15),
}  # fmt: skip
"""By name."""
