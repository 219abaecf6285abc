"""Pixel watermark for frames that no pipeline of ours made: invisible-watermark's dwtDctSvd, keyed, coded and MAC'd.

The library quantises the largest singular value of each 4x4 DCT block of the U plane's Haar approximation (8x8 pixels
of the frame). It carries hard, unkeyed bits; here every block carries one keyed coded bit of payload v1, the same in
every frame, so that any subset of frames reads, and the blocks' soft values are summed over frames before decoding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.errors import WatermarkError
from safegen.opencv import cv2
from safegen.types import Json
from safegen.watermark import ecc
from safegen.watermark.base import LIST_SIZE, Extraction, check_frames, conclude, decide
from safegen.watermark.payload import PAYLOAD_BITS, Payload, check_key, pack, stream, to_bits

# Imported where they are used: imwatermark.

SCHEME = "pixel"
CODED_BITS = ecc.coded_length(PAYLOAD_BITS)
SCALE = 36
"""The library's own quantisation step: about 4.5 levels of U in a block's mean."""
MAX_READ_FRAMES = 32
"""Longer clips are read at this many evenly spaced frames."""

STRIP_BLOCKS = 2**15
"""Blocks that are reckoned with at once: all of 1920x1080."""


class PixelScheme:
    """Embedder and extractor of the pixel scheme."""

    scheme = SCHEME

    def embed_frames(self, frames: NDArray[np.uint8], payload: Payload, key: bytes) -> NDArray[np.uint8]:
        """Return a marked copy of uint8 RGB ``frames [T, H, W, 3]``; WatermarkError if they are too small."""
        signs, index = _place(key, _check(frames))
        word = ecc.encode(to_bits(pack(payload, key)))
        bits = (word[index] * signs < 0).astype(np.int64).tolist()
        coder = _coder(bits)
        return np.stack([_rgb(coder.encode(_bgr(frame))) for frame in frames])

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 RGB ``frames [T, H, W, 3]`` blindly; frames too small to carry a mark read as NONE."""
        check_key(key)
        check_frames(frames)
        sums = PixelSums()
        for frame in frames[:: frame_step(len(frames))]:
            sums.add(frame)
        return sums.extraction(key)


def frame_step(frames: int) -> int:
    """Of how many frames one is read, in a clip of so many."""
    return max(1, math.ceil(frames / MAX_READ_FRAMES))


class PixelSums:
    """What the frames of a clip say so far, block by block, whatever the key: for clips that are read only once."""

    def __init__(self) -> None:
        self._soft: NDArray[np.float64] = np.zeros(0)
        self._frames = 0

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Take one more frame, uint8 RGB [H, W, 3]. One of another size than the first is passed over."""
        soft = np.sin(2 * math.pi * largest_values(frame) / SCALE)
        if not self._frames:
            self._soft = np.zeros(len(soft))
        if len(soft) == len(self._soft):
            self._soft += soft
            self._frames += 1

    def extraction(self, key: bytes) -> Extraction:
        """What the frames say under ``key``; NONE where they are too small to carry a mark."""
        check_key(key)
        blocks = len(self._soft)
        if blocks < CODED_BITS:
            return conclude(SCHEME, 0.0, None, 1, {"reason": "frames too small"})
        norm = float(np.linalg.norm(self._soft))
        if norm <= 0:
            return conclude(SCHEME, 0.0, None, 1, {"reason": "no chroma at all"})
        signs, index = _place(key, blocks)
        sums = np.bincount(index, self._soft * signs, CODED_BITS).astype(np.float64)
        statistic, payload, agreement = decide(sums, norm, key, LIST_SIZE)
        evidence: dict[str, Json] = {"blocks": blocks, "frames": self._frames, "bit_agreement": round(agreement, 4)}
        return conclude(SCHEME, statistic, payload, 1, evidence)


def largest_values(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Largest singular value of every block of a frame, uint8 RGB [H, W, 3], in raster order: [blocks].

    A large frame is read strip by strip, for what is reckoned with takes fifty times the memory of its pixels. The
    library takes each block's cosine transform first, which changes no singular value.
    """
    if min(frame.shape[:2]) < 8:
        return np.zeros(0)
    high = 8 * max(1, STRIP_BLOCKS // max(1, frame.shape[1] // 8))
    strips = range(0, frame.shape[0] // 8 * 8, high)
    return np.concatenate([_largest_values(frame[top : top + high]) for top in strips])


def _largest_values(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    rows, columns = frame.shape[0] // 8, frame.shape[1] // 8
    u = cv2.cvtColor(frame[: 8 * rows, : 8 * columns], cv2.COLOR_RGB2YUV)[:, :, 1].astype(np.float64)
    haar = (u[0::2, 0::2] + u[0::2, 1::2] + u[1::2, 0::2] + u[1::2, 1::2]) / 2
    blocks = haar.reshape(rows, 4, columns, 4).transpose(0, 2, 1, 3).reshape(-1, 4, 4)
    gram = blocks @ blocks.transpose(0, 2, 1)
    power = gram / np.maximum(np.trace(gram, axis1=1, axis2=2), 1e-9)[:, None, None]
    for _ in range(5):  # the 32nd power: of a block that is nearly one colour nothing but its largest value is left
        power = power @ power
        power /= np.maximum(np.trace(power, axis1=1, axis2=2), 1e-30)[:, None, None]
    # What is left beside the largest would show as a trace of the square below 1.
    found = np.sqrt(np.maximum((gram * power).sum(axis=(1, 2)), 0))
    unsure = (power * power).sum(axis=(1, 2)) < 1 - 1e-9
    if unsure.any():
        found[unsure] = np.linalg.svd(blocks[unsure], compute_uv=False)[:, 0]
    return found  # type: ignore[no-any-return]


def _check(frames: NDArray[np.uint8]) -> int:
    """How many blocks each frame has; WatermarkError unless the frames are frames and have enough of them."""
    check_frames(frames)
    blocks = int(frames.shape[1] // 8) * int(frames.shape[2] // 8)
    if blocks < CODED_BITS:
        raise WatermarkError(
            f"frames of {frames.shape[1]}x{frames.shape[2]} are too small for the pixel watermark",
            remedy=f"{CODED_BITS} blocks of 8x8 pixels are needed, for instance 160x160.",
        )
    return blocks


def _place(key: bytes, blocks: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Signs (±1) and coded-bit index of every block in raster order."""
    words = np.frombuffer(stream(key, SCHEME, blocks, length=8 * blocks), ">u8")
    index = np.empty(blocks, np.int64)
    index[np.argsort(words >> np.uint64(1), kind="stable")] = np.arange(blocks) % CODED_BITS
    return (1.0 - 2.0 * (words & np.uint64(1))).astype(np.float64), index


def _coder(bits: list[int]) -> Any:
    try:
        from imwatermark.dwtDctSvd import EmbedDwtDctSvd
    except ImportError as exc:
        raise WatermarkError("invisible-watermark cannot be loaded", remedy="pip install invisible-watermark") from exc
    return EmbedDwtDctSvd(bits, wmLen=len(bits), scales=[0, SCALE, 0])


def _bgr(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame[:, :, ::-1])


def _rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame[:, :, ::-1])
