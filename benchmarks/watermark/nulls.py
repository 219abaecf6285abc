"""Clips that carry no mark: noise, textures, gradients, moving shapes, drawn from a number. uint8 ``[T, H, W, 3]``."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.watermark import edits, pixels, timeline
from benchmarks.watermark.codecs import Frames

SHAPES = ((25, 192, 192), (25, 256, 256), (49, 144, 256), (17, 320, 180), (81, 120, 160))


def noise(shape: tuple[int, int, int], rng: np.random.Generator) -> Frames:
    """Fresh noise in every frame; every other clip's is smoothed, in time too."""
    frames = rng.integers(0, 256, (*shape, 3), np.uint8)
    if rng.random() < 0.5:
        return frames
    smooth = timeline.average(edits.each(frames, pixels.blur, float(rng.uniform(1, 6))), int(rng.integers(2, 6)))
    return edits.each(smooth, pixels.contrast, 6.0)


def texture(shape: tuple[int, int, int], rng: np.random.Generator) -> Frames:
    """A drifting texture."""
    return edits.background(shape, rng)


def gradient(shape: tuple[int, int, int], rng: np.random.Generator) -> Frames:
    """Stripes from very wide to narrow, of a phase that moves on: what temporal filters see best."""
    total, height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    waves = rng.uniform(0, 24, (2, 3)) * np.array([[np.cos(a := rng.uniform(0, 7))], [np.sin(a)]])
    base = 2 * np.pi * (x[..., None] * waves[0] + y[..., None] * waves[1]).astype(np.float32)
    steps = rng.uniform(-1.5, 1.5, 3).astype(np.float32)
    return np.stack([pixels.to_uint8(127.5 + 127.5 * np.sin(base + t * steps)) for t in range(total)])


def shapes(shape: tuple[int, int, int], rng: np.random.Generator) -> Frames:
    """Coloured discs and boxes that move over a plain ground and change their brightness."""
    total, height, width = shape
    count = int(rng.integers(2, 7))
    colours, ground = rng.integers(0, 256, (count, 3)), rng.integers(0, 256, 3)
    start, speed = rng.uniform(0, 1, (count, 2)), rng.uniform(-0.03, 0.03, (count, 2))
    radius, flicker = rng.uniform(0.04, 0.2, count) * min(height, width), rng.uniform(0, 0.3, count)
    out = []
    for t in range(total):
        canvas = np.full((height, width, 3), ground, np.uint8)
        for i in range(count):
            x, y = ((start[i] + t * speed[i]) % 1 * (width, height)).astype(int).tolist()
            colour = tuple(float(c) for c in colours[i] * (1 - flicker[i] * (1 + np.sin(t + i)) / 2))
            r = int(radius[i])
            if i % 2:
                cv2.circle(canvas, (x, y), r, colour, -1, cv2.LINE_AA)
            else:
                cv2.rectangle(canvas, (x - r, y - r), (x + r, y + r), colour, -1)
        out.append(canvas)
    return np.stack(out)


KINDS = {"noise": noise, "texture": texture, "gradient": gradient, "shapes": shapes}


def foreign(number: int) -> tuple[str, Frames]:
    """The kind and the frames of foreign clip ``number``; kinds take turns, sizes and lengths too."""
    kind = list(KINDS)[number % len(KINDS)]
    shape = SHAPES[number // len(KINDS) % len(SHAPES)]
    return kind, KINDS[kind](shape, np.random.default_rng([77, number]))
