"""What people and platforms do to a clip: frames in borders, inserts, overlays, filming a screen, splicing, averaging.

Each takes frames, uint8 ``[T, H, W, 3]``. Nothing here needs a font file or footage: backgrounds are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark import pixels, timeline

Frames = NDArray[np.uint8]


def each(frames: Frames, change: object, *arguments: object) -> Frames:
    """``change`` (one of pixels.py) applied to every frame."""
    assert callable(change)
    return np.stack([change(frame, *arguments) for frame in frames])


def fit(frames: Frames, height: int, width: int) -> Frames:
    """Every frame resized."""
    return each(frames, pixels.resize, height, width)


def crop(frames: Frames, rng: np.random.Generator, ratio: float) -> Frames:
    """Keep ``ratio`` of both edges (rounded down), at one random place for the whole clip, as VideoSeal does."""
    height, width = (int(ratio * n) for n in frames.shape[1:3])
    top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(frames.shape[1:3], (height, width), strict=True))
    return each(frames, pixels.window, top, left, height, width)


def crop_centre(frames: Frames, area: float) -> Frames:
    """Keep ``area`` of the picture around its centre, as VidSig does."""
    height, width = (int(n * area**0.5) for n in frames.shape[1:3])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return each(frames, pixels.window, top, left, height, width)


def crop_and_resize(frames: Frames, rng: np.random.Generator, ratio: float) -> Frames:
    """Crop, then back to the old size."""
    return fit(crop(frames, rng, ratio), *frames.shape[1:3])


def perspective(frames: Frames, rng: np.random.Generator, distortion: float) -> Frames:
    """torchvision's random perspective, one for the whole clip."""
    return each(frames, pixels.warp, pixels.corners(frames.shape[1], frames.shape[2], distortion, rng))


def bars(frames: Frames, rows: float, columns: float) -> Frames:
    """Black bars above and below, and at the sides: each that share of the edge. The picture keeps its size."""
    up, aside = round(rows * frames.shape[1]), round(columns * frames.shape[2])
    return np.pad(frames, ((0, 0), (up, up), (aside, aside), (0, 0)))


def background(shape: tuple[int, ...], rng: np.random.Generator) -> Frames:
    """Foreign footage, ``[T, H, W, 3]``: a smooth texture that drifts by a pixel or two in each frame."""
    total, height, width = shape[:3]
    reach = 2 * total
    coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
    whole = cv2.resize(coarse, (width + reach, height + reach), interpolation=cv2.INTER_CUBIC)
    way = rng.integers(1, 3, 2)
    return np.stack([pixels.window(whole, int(t * way[0]), int(t * way[1]), height, width) for t in range(total)])


def picture_in_picture(frames: Frames, rng: np.random.Generator, ratio: float) -> Frames:
    """The clip at ``ratio`` of its size in the lower right corner of foreign footage."""
    canvas = background(frames.shape, rng)
    small = each(frames, pixels.scale, ratio)
    height, width = small.shape[1:3]
    margin = max(1, frames.shape[1] // 24)
    canvas[:, -height - margin : -margin, -width - margin : -margin] = small
    return canvas


def overlay(frames: Frames) -> Frames:
    """A half-transparent logo in the upper right corner and a subtitle on a dark band, the same in every frame."""
    height, width = frames.shape[1:3]
    layer, alpha = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 1), np.float32)
    middle, radius = (round(width * 0.87), round(height * 0.13)), max(2, round(height * 0.09))
    cv2.circle(layer, middle, radius, (250.0, 200.0, 30.0), -1)
    cv2.circle(alpha, middle, radius, (0.7,), -1)
    top = round(height * 0.82)
    alpha[top : round(height * 0.95)] = 0.6
    ink = np.zeros((height, width), np.uint8)
    size = height / 400
    cv2.putText(ink, "And then it rolled away.", (width // 20, round(height * 0.91)), 0, size, (255,), 1, cv2.LINE_AA)
    cover = ink[..., None] / np.float32(255)
    inked, opaque = layer * (1 - cover) + 255 * cover, np.maximum(alpha, cover)
    return pixels.to_uint8(frames * (1 - opaque) + inked * opaque)


def filmed(frames: Frames, rng: np.random.Generator) -> Frames:
    """A screen filmed by a telephone: enlarged, pixel grid against sensor grid (moire), tilt, gamma, noise, soft lens.

    The tilt is torchvision's perspective at 0.05; gamma 1.15; the moire swings by 4 % with a period of about 7 pixels;
    noise of 1.5 % of full scale; at last back to the clip's size.
    """
    height, width = frames.shape[1:3]
    tall, wide = round(1.3 * height), round(1.3 * width)
    y, x = np.mgrid[0:tall, 0:wide].astype(np.float32)
    angle, place = rng.uniform(0, np.pi), pixels.corners(tall, wide, 0.05, rng)
    out = []
    for t, frame in enumerate(frames):
        shown = pixels.gamma(pixels.resize(frame, tall, wide), 1.15)
        phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 7 + 0.9 * t
        moire = 1 + 0.04 * np.sin(phase + np.array([0, 2.1, 4.2], np.float32)[:, None, None]).transpose(1, 2, 0)
        seen = pixels.blur(pixels.warp(pixels.to_uint8(shown * moire), place), 0.8)
        out.append(pixels.resize(pixels.noise(seen, rng, 0.015), height, width))
    return np.stack(out)


def splice(first: Frames, second: Frames) -> Frames:
    """One clip after the other; the second takes the first's size."""
    return np.concatenate([first, fit(second, *first.shape[1:3])])


def halves(first: Frames, second: Frames) -> Frames:
    """The first half of the one, then the second half of the other."""
    return splice(first[: (len(first) + 1) // 2], second[len(second) // 2 :])


def amid(frames: Frames, around: Frames) -> Frames:
    """The clip between the two halves of unmarked footage."""
    return splice(splice(around[: len(around) // 2], frames), around[len(around) // 2 :]) if len(around) > 1 else frames


def split_screen(frames: Frames, other: Frames) -> Frames:
    """Both clips side by side, as long as the shorter one."""
    count = min(len(frames), len(other))
    return np.concatenate([frames[:count], fit(other[:count], *frames.shape[1:3])], axis=2)


def mean_residue(pairs: Sequence[tuple[Frames, Frames]], count: int) -> NDArray[np.float32]:
    """What ``count`` clips of one key have in common beyond their unmarked twins: float ``[T, H, W, 3]``.

    This attacker has the twins too, the strongest that averaging can have. A mark that depends on nothing but the key
    is all here; one that changes with every payload cancels.
    """
    length = min(len(marked) for marked, _ in pairs[:count])
    total = np.zeros((length, *pairs[0][0].shape[1:]), np.float32)
    for marked, twin in pairs[:count]:
        total += marked[:length].astype(np.float32) - twin[:length]
    return np.asarray(total / count, np.float32)


def subtract(frames: Frames, residue: NDArray[np.float32]) -> Frames:
    """Take an averaged mark away from a clip (or, negated, put it onto one), as far as it reaches."""
    out = frames.copy()
    count = min(len(frames), len(residue))
    out[:count] = pixels.to_uint8(frames[:count] - residue[:count])
    return out


def frame_rate_and_crop(frames: Frames, rng: np.random.Generator, ratio: float, share: float) -> Frames:
    """Crop, then drop a share of the frames."""
    return timeline.drop_share(crop(frames, rng, ratio), rng, share)
