"""PDQ, the perceptual picture hash of Meta's ThreatExchange: 256 bits that survive compression and resizing.

The numbers are those of the reference implementation (hashing.pdf and pdq/cpp in github.com/facebook/ThreatExchange;
a test compares). Its Python package comes as C++ source only, and a compiler is too much to ask of an installation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from safegen.errors import MediaError
from safegen.opencv import cv2

SIDE: Final = 16
BITS: Final = SIDE * SIDE
_SMALL: Final = 64
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def waves(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The low cosines of a picture's luma, [SIDE, SIDE], vertical orders first; ``frame`` is uint8 RGB [H, W, 3].

    Raises MediaError if it is no such picture.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise MediaError(f"a perceptual hash needs uint8 RGB [H, W, 3], not {frame.dtype} {list(frame.shape)}")
    luma = frame.astype(np.float32) @ _LUMA
    height, width = luma.shape
    for _ in range(2):
        luma = _box(luma, -(-width // (2 * _SMALL)), -(-height // (2 * _SMALL)))
    centres = (np.arange(_SMALL) + 0.5) / _SMALL
    small = luma[np.ix_((centres * height).astype(int), (centres * width).astype(int))]
    found: NDArray[np.float32] = _basis() @ small @ _basis().T
    return found


def bits(cosines: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The hash, [BITS], in the order of its hex digits: which cosines [SIDE, SIDE] lie above their median."""
    above: NDArray[np.bool_] = margins(cosines) > 0
    return above


def margins(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each cosine lies from the median, [BITS], in the hash's order: the smaller, the sooner its bit flips."""
    flat = np.asarray(cosines, np.float32).reshape(-1)
    distances: NDArray[np.float32] = (flat - np.partition(flat, BITS // 2 - 1)[BITS // 2 - 1])[::-1]
    return distances


def mirrored(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ``waves`` gives for the picture flipped left to right: cosines of odd horizontal order change their sign."""
    return cosines * np.where(np.arange(1, SIDE + 1) % 2, np.float32(-1), np.float32(1))


def _box(luma: NDArray[np.float32], across: int, down: int) -> NDArray[np.float32]:
    """Means over windows ``across`` wide and ``down`` high, cut at the borders."""
    return _sums(luma, across, down) / _counts(*luma.shape, across, down)


def _sums(luma: NDArray[np.float32], across: int, down: int) -> NDArray[np.float32]:
    place = (across - (across + 2) // 2, down - (down + 2) // 2)
    total: NDArray[np.float32] = cv2.boxFilter(
        luma, -1, (across, down), anchor=place, normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return total


@lru_cache(maxsize=4)
def _counts(height: int, width: int, across: int, down: int) -> NDArray[np.float32]:
    return _sums(np.ones((height, width), np.float32), across, down)


@lru_cache(maxsize=1)
def _basis() -> NDArray[np.float32]:
    order, at = np.arange(1, SIDE + 1)[:, None], np.arange(_SMALL)[None]
    basis: NDArray[np.float64] = np.sqrt(2 / _SMALL) * np.cos(np.pi / 2 / _SMALL * order * (2 * at + 1))
    return basis.astype(np.float32)
