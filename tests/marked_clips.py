"""Synthetic clips, and the pattern added straight to their pixels, so that tests of reading need no model.

What a decoder draws is a little less exact than this (the tests of whole pipelines use real ones); what happens to the
pattern afterwards is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from safegen.types import ContentId
from safegen.watermark.clip import pattern, reading, search
from safegen.watermark.clip.latent_residual import pattern_pictures
from safegen.watermark.payload import Payload

Frames = NDArray[np.uint8]
Numbers = NDArray[Any]

KEY = bytes(range(32))
OTHER_KEY = bytes(range(100, 132))
PAYLOAD = Payload(ContentId("0123456789abcdef"))
OTHER_PAYLOAD = Payload(ContentId("fedcba9876543210"))

RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]], np.float32)


def payload_of(number: int) -> Payload:
    """Payload number so-and-so of a long row of unrelated ones."""
    return Payload(ContentId(hashlib.sha256(number.to_bytes(4, "big")).hexdigest()[:16]))


def key_of(number: int) -> bytes:
    """Key number so-and-so of a long row of unrelated ones."""
    return hashlib.sha256(b"key" + number.to_bytes(4, "big")).digest()


def clip(seed: int = 0, frames: int = 25, height: int = 96, width: int = 128, *, noise: float = 1.0) -> Frames:
    """A clip that moves: three discs drift over a smooth background; ``noise`` levels of grain in every frame."""
    random = np.random.default_rng(seed)
    colours = random.uniform(60, 190, (5, 7, 3)).astype(np.float32)
    ground = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)
    places, speeds = random.uniform(0.2, 0.8, (3, 2)), random.uniform(-0.01, 0.01, (3, 2))
    paints = random.uniform(30, 220, (3, 3))
    out = np.empty((frames, height, width, 3), np.float32)
    for t in range(frames):
        out[t] = ground
        for place, speed, paint_ in zip(places, speeds, paints, strict=True):
            x, y = (place + speed * t) * (width, height)
            radius = int(0.12 * min(height, width) * 16)
            cv2.circle(out[t], (int(16 * x), int(16 * y)), radius, paint_.tolist(), -1, cv2.LINE_AA, 4)
    grain = random.normal(0, noise, (frames, height, width, 1)) if noise else 0.0
    return levels(out + grain)


def levels(frames: Numbers) -> Frames:
    """Round to uint8."""
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def spans(frames: int) -> list[tuple[int, int]]:
    """Pixel frames of each latent frame of a model that codes four at a time, the first one alone."""
    return [(0, 1), *((start, min(start + 4, frames)) for start in range(1, frames, 4))]


def drawn(payload: Payload, key: bytes, frames: int, height: int, width: int) -> NDArray[np.float32]:
    """The pattern as it shows in the pixels: RGB [frames, height, width, 3], YUV root mean square 1."""
    pictures = pattern_pictures(payload, key, spans(frames), height, width)
    rgb = np.einsum("rc,tchw->thwr", RGB, pictures).astype(np.float32)
    return np.repeat(rgb, [stop - start for start, stop in spans(frames)], axis=0)


def paint(frames: Frames, payload: Payload, key: bytes, rms: float = 2.0) -> Frames:
    """Add the pattern of ``payload`` under ``key`` to ``frames``, ``rms`` YUV levels strong."""
    return levels(frames + rms * drawn(payload, key, *frames.shape[:3]))


def canvas_samples(frames: Frames) -> NDArray[np.float32]:
    """Whitened samples of an unmoved clip."""
    from safegen.watermark.clip import alignment

    change = reading.moving(reading.to_canvas(frames))
    return reading.samples(change, alignment.untouched(len(frames)))


def keyed_sums(samples: NDArray[np.float32], key: bytes) -> tuple[NDArray[np.float64], float]:
    """Correlation sums of the coded bits under every nonce of ``key``, [NONCES, bits], and the samples' norm."""
    placement = pattern.place(key)
    return placement.sums(samples), placement.norm(samples)


@lru_cache(maxsize=2048)
def slots_of(payload: Payload, key: bytes) -> NDArray[np.float32]:
    """What the payload alone puts into the slots, [PHASES, 3, ORDER, ORDER]: 0 on the signpost."""
    row = pattern.nonce_of(payload.content_id, key)
    return pattern.place(key).coefficients(pattern.codeword(payload, key), row)


def statistics_of(samples: NDArray[np.float32], payloads: Sequence[Payload], key: bytes = KEY) -> NDArray[np.float64]:
    """How well each payload fits the samples: the T of a codeword that is known beforehand."""
    norm, flat = pattern.place(key).norm(samples), samples.ravel().astype(np.float64)
    return np.array([float(flat @ slots_of(p, key).ravel()) / norm for p in payloads])


def unmarked_samples() -> list[NDArray[np.float32]]:
    """Samples of clips without a mark, or with somebody else's."""
    random = np.random.default_rng(5)
    out = [canvas_samples(clip(n, 9 + 4 * n, 48, 64, noise=(0.0, 1.0, 8.0)[n % 3])) for n in range(6)]
    out += [canvas_samples(random.integers(0, 256, (17, 48, 48, 3), np.uint8))]
    flashes = np.repeat(clip(8, 1), 33, axis=0) // 2
    flashes[::4] *= 2
    out += [canvas_samples(flashes)]
    out += [canvas_samples(paint(clip(9, 33, 48, 64), payload_of(1), key_of(1_000_001), 4.0))]
    return out


def corners_at(alignment_: search.Alignment, height: int, width: int) -> NDArray[np.float64]:
    """Where the four corners of a height x width picture lie on the plane, in short sides: [4, 2]."""
    scale = search.FINE / min(height, width)
    fine = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64) * scale
    return np.asarray(cv2.perspectiveTransform(fine, alignment_.matrix)[0] / reading.SHORT)


def resize(frames: Frames, height: int, width: int) -> Frames:
    """Each frame at another size."""
    how = cv2.INTER_AREA if height * width < frames[0, ..., 0].size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, (width, height), interpolation=how) for f in frames])


def rotate(frames: Frames, degrees: float) -> Frames:
    """Turn about the centre, black corners, same size."""
    h, w = frames.shape[1:3]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
    return np.stack([cv2.warpAffine(f, turn, (w, h)) for f in frames])
