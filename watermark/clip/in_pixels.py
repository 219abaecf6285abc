"""The mark of a clip drawn into finished frames, where no latents can be reached: any pipeline's, any file's.

Pattern, payload and reader are those of the mark in the latents. No VAE stands between, so all that changes is pattern.
Frames come and go one at a time, so a clip may be of any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from safegen.errors import WatermarkError
from safegen.opencv import cv2
from safegen.watermark.clip import pattern
from safegen.watermark.clip.reading import check_frames
from safegen.watermark.clip.visibility import amplitudes, weights
from safegen.watermark.payload import Payload, check_key

PSNR = 40.0
"""Decibels between a clip marked at strength 1 and the same unmarked."""

SMALL = 72
"""Short side, in pixels, of the picture by which it is judged where the pattern may be stronger."""

Frame = NDArray[np.uint8]


def embed_frames(
    frames: NDArray[np.uint8], payload: Payload, key: bytes, *, strength: float = 1.0
) -> NDArray[np.uint8]:
    """Return a marked copy of uint8 RGB ``frames [T, H, W, 3]``.

    Raises WatermarkError for frames that are none or too few, PayloadError for a malformed payload or key.
    """
    check_frames(frames)
    if len(frames) < pattern.LEAST_FRAMES:
        raise WatermarkError(
            f"a clip of {len(frames)} frames is too short for a pattern that changes over time",
            remedy=f"Give at least {pattern.LEAST_FRAMES} frames.",
        )
    return np.stack(list(embed_stream(frames, payload, key, strength=strength, count=len(frames))))


def embed_stream(
    frames: Iterable[Frame], payload: Payload, key: bytes, *, strength: float = 1.0, count: int = 0
) -> Iterator[Frame]:
    """Yield marked copies of a clip's frames, uint8 RGB [H, W, 3], all of one size.

    ``count``: how many there are, where that is known: of a short clip nothing is spent on what stands still.
    """
    check_key(key)
    pictures: NDArray[np.float32] | None = None
    before: NDArray[np.float32] | None = None
    for n, frame in enumerate(frames):
        check_frames(frame[None])
        if pictures is None:
            height, width = frame.shape[:2]
            pictures = phase_pictures(payload, key, height, width, count) * level(strength)
        if frame.shape[:2] != pictures.shape[1:3]:
            raise WatermarkError("the frames of a clip must be of one size", remedy="Scale them first.")
        small = _small(frame)
        weight = weights(small, small if before is None else before)
        before = small
        where = cv2.resize(weight, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        change = cv2.multiply(pictures[pattern.phase_of(n)], cv2.merge([where] * 3))
        yield np.asarray(cv2.add(frame, change, dtype=cv2.CV_8UC3), np.uint8)


def level(strength: float) -> float:
    """Root mean square of the change, in RGB levels; WatermarkError for a strength that is out of range."""
    if not 0 < strength <= 8:
        raise WatermarkError(f"watermark strength {strength} is out of range", remedy="Use 0.3 to 2; 1 is normal.")
    return float(strength * 255 * 10 ** (-PSNR / 20))


def phase_pictures(payload: Payload, key: bytes, height: int, width: int, count: int = 0) -> NDArray[np.float32]:
    """What each phase adds to a frame, RGB levels of root mean square 1: float32 [PHASES, height, width, 3].

    With ``count``, less what a clip of so many frames shows in the mean.
    """
    slots = pattern.coefficients(payload, key) * amplitudes()
    if count:
        phases = np.bincount([pattern.phase_of(n) for n in range(count)], minlength=pattern.PHASES) / count
        slots = slots - np.tensordot(phases, slots, axes=1)
    rows, columns = (pattern.cosines(n, min(height, width)) for n in (height, width))
    out = np.empty((pattern.PHASES, height, width, 3), np.float32)
    for phase, of_phase in enumerate(slots.astype(np.float32)):
        yuv = np.matmul(np.matmul(rows.T, of_phase), columns)
        rgb = np.moveaxis(yuv, 0, -1) @ pattern.TO_RGB.T
        out[phase] = rgb / max(float(np.sqrt((rgb**2).mean())), 1e-12)
    return out


def _small(frame: Frame) -> NDArray[np.float32]:
    """The luma of a frame, SMALL pixels along its short side: float32 [h, w], 8-bit levels."""
    scale = SMALL / min(frame.shape[:2])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.cvtColor(cv2.resize(frame, size, interpolation=way), cv2.COLOR_RGB2GRAY), np.float32)
