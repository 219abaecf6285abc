"""How strong the pattern may be: in which of its slots, and where in the picture.

Slots: the eye is far less sensitive to coarse changes of colour than to those of light, so the chroma's cosines are
drawn stronger. Readers weigh all slots alike and need not know.

Places: a just-noticeable-difference weight. The eye notices a change less where a picture is dark or bright (Chou and
Li, "A perceptually tuned subband image coder based on the measure of just-noticeable-distortion profile", IEEE Trans.
CSVT 5(6), 1995), where it is busy, and where it moves. The weights only move the pattern's energy about: their mean
square is 1 in every frame. Their square root is taken, halfway to what the eye would allow, since the reader finds the
pattern most easily where a picture is calm.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safegen.opencv import cv2
from safegen.watermark.clip.pattern import used

CHROMA = 3.0
"""How much stronger the chroma's slots are drawn than the luma's (docs/watermark.md has the figures)."""

LOWEST, HIGHEST = 0.6, 1.8
"""Bounds of the threshold relative to its root mean square."""

BUSY, MOVING = 0.25, 0.5
"""What a level of local contrast, and of change since the frame before, adds to the threshold."""

Plane = NDArray[np.float32]


@lru_cache(maxsize=1)
def amplitudes() -> NDArray[np.float32]:
    """How strong each slot is drawn, relative to the others: float32 [3, ORDER, ORDER], 0 where there is no slot."""
    share = np.array([1.0, CHROMA, CHROMA], np.float32)[:, None, None]
    return np.asarray(used() * share, np.float32)


def weights(luma: Plane, before: Plane) -> Plane:
    """Weights [h, w] of a small frame, by its ``luma`` [h, w] in 8-bit levels and that of the frame before."""
    around = _mean(luma)
    threshold = np.where(around <= 127, 17 * (1 - np.sqrt(around / 127)) + 3, 3 / 128 * (around - 127) + 3)
    threshold = threshold + BUSY * np.sqrt(np.maximum(_mean(luma**2) - around**2, 0))
    threshold = threshold + MOVING * _mean(np.abs(luma - before))
    bounded = np.clip(_to_unit_power(_mean(threshold)), LOWEST, HIGHEST)
    return _to_unit_power(np.sqrt(bounded))


def _mean(plane: NDArray[np.floating]) -> Plane:
    return np.asarray(cv2.blur(np.asarray(plane, np.float32), (5, 5)), np.float32)


def _to_unit_power(plane: NDArray[np.floating]) -> Plane:
    return np.asarray(plane / max(float(np.sqrt((plane**2).mean())), 1e-6), np.float32)
