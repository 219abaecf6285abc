"""What a clip shows, half second by half second: the mean picture of each, how much it moves, and how noisy it is.

Both sides of a comparison are made of these: what is kept of a clip (``kept_pictures``) and a suspect (``comparing``).
Frames come one at a time, so a clip may be of any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.opencv import cv2
from safegen.watermark.clip.reading import check_frames

SPAN = 0.5
"""Seconds of which one picture is kept."""

CANVAS = 256
"""Pixels along the short side at most: what is finer is left out."""

COARSE = 64

LEAST_FRAMES = 3
"""A rest of fewer frames at the end of a stretch counts with the half second before."""

_END = 2**62

LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Picture = NDArray[np.float32]
"""[h, w, 3], RGB in 8-bit levels."""

Plane = NDArray[np.float32]
"""[h, w]."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Frames ``first`` to ``last``, shown from ``start`` to ``end`` (seconds): their mean, and the variance of their
    luma over time, in squared levels.

    ``grain`` [h, w] is that of every point, noise and all; ``unrest`` that of small frames, COARSE pixels along the
    short side at most, in which noise is faint and what is drawn is not.
    """

    first: int
    last: int
    start: float
    end: float
    mean: Picture
    grain: Plane
    unrest: Plane

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


def watch(
    frames: Iterable[NDArray[np.uint8]], fps: float, *, stretches: Iterable[tuple[int, int]] | None = None
) -> Iterator[Shown]:
    """Yield the half seconds of frames, uint8 RGB [H, W, 3], at a constant rate.

    ``stretches`` are (first, last) frames in order: what lies between them is left out. A half second never reaches
    over the end of a stretch, or over a change of the pictures' size. WatermarkError for what are no pictures.
    """
    wanted = iter(stretches) if stretches is not None else iter([(0, _END)])
    first, last = next(wanted, (_END, _END))
    held: list[_Gathered] = []  # the one that grows, and the one before it in the same stretch
    for n, frame in enumerate(frames):
        while n > last:
            yield from _shown(held, fps)
            held = []
            first, last = next(wanted, (_END, _END))
        if n < first:
            if first == _END:
                return
            continue
        small = to_canvas(frame)
        if held and held[-1].total.shape != small.shape:
            yield from _shown(held, fps)
            held = []
        if not held or held[-1].full(n, fps):
            if len(held) == 2:
                yield held.pop(0).shown(fps)
            held.append(_Gathered(n))
        held[-1].add(n, small)
    yield from _shown(held, fps)


def _shown(held: list[_Gathered], fps: float) -> Iterator[Shown]:
    """The last ones of a stretch: what is too short goes with the one before."""
    if len(held) == 2 and held[1].frames < LEAST_FRAMES:
        held = [held[0].joined(held[1])]
    for one in held:
        yield one.shown(fps)


def to_canvas(frame: NDArray[np.uint8]) -> Picture:
    """A frame as floats, its short side CANVAS pixels at most."""
    check_frames(frame[None])
    return _at_most(frame, CANVAS).astype(np.float32)


def _at_most(picture: NDArray[Any], short: int) -> NDArray[Any]:
    """A picture with ``short`` pixels along its short side, unless it is smaller."""
    h, w = picture.shape[:2]
    scale = short / min(h, w)
    if scale >= 1:
        return picture
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


class _Gathered:
    """The sums of one half second, from frame ``first`` on."""

    def __init__(self, first: int) -> None:
        self.first = self.last = first
        self.frames = 0
        self.total = np.zeros(0, np.float32)
        self._sums: list[Plane] = []  # of luma and its square, large and small

    def full(self, n: int, fps: float) -> bool:
        """Whether frame ``n`` belongs to another half second."""
        return int(n / fps / SPAN + 1e-6) != int(self.first / fps / SPAN + 1e-6)

    def add(self, n: int, frame: Picture) -> None:
        light = frame @ LUMA
        small = _at_most(light, COARSE)
        sums = [light, light**2, small, small**2]
        if not self.frames:
            self.total, self._sums = frame.copy(), sums
        else:
            self.total += frame
            self._sums = [one + other for one, other in zip(self._sums, sums, strict=True)]
        self.last, self.frames = n, self.frames + 1

    def joined(self, other: _Gathered) -> _Gathered:
        both = _Gathered(self.first)
        both.last, both.frames = other.last, self.frames + other.frames
        both.total = self.total + other.total
        both._sums = [one + more for one, more in zip(self._sums, other._sums, strict=True)]
        return both

    def shown(self, fps: float) -> Shown:
        n = self.frames
        light, power, small, small_power = self._sums
        grain, unrest = (
            np.maximum(p / n - (s / n) ** 2, 0).astype(np.float32) for s, p in ((light, power), (small, small_power))
        )
        return Shown(
            self.first,
            self.last,
            self.first / fps,
            (self.last + 1) / fps,
            np.asarray(self.total / n, np.float32),
            grain,
            unrest,
        )
