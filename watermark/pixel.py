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
        try:
            blocks = _check(frames)
        except WatermarkError:
            return conclude(SCHEME, 0.0, None, 1, {"reason": "frames too small"})
        signs, index = _place(key, blocks)
        step = max(1, math.ceil(len(frames) / MAX_READ_FRAMES))
        coder = _coder([0] * blocks)
        soft = np.zeros(blocks)
        for frame in frames[::step]:
            soft += _soft(coder, _bgr(frame), blocks)
        norm = float(np.linalg.norm(soft))
        if norm <= 0:
            return conclude(SCHEME, 0.0, None, 1, {"reason": "no chroma at all"})
        sums = np.bincount(index, soft * signs, CODED_BITS).astype(np.float64)
        statistic, payload, agreement = decide(sums, norm, key, LIST_SIZE)
        evidence = {"blocks": blocks, "frames": len(frames[::step]), "bit_agreement": round(agreement, 4)}
        return conclude(SCHEME, statistic, payload, 1, evidence)


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


def _soft(coder: Any, bgr: NDArray[np.uint8], blocks: int) -> NDArray[np.float64]:
    """Soft value of every block: +1 at the centre of the library's cell for 0, -1 at the centre of that for 1."""
    values: list[float] = []

    def infer(block: NDArray[np.float64], scale: float) -> int:
        largest = np.linalg.svd(cv2.dct(block), compute_uv=False)[0]
        values.append(math.sin(2 * math.pi * float(largest) / scale))
        return 0

    coder.infer_dct_svd = infer
    coder.decode(bgr)
    return np.array(values[:blocks])


def _bgr(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame[:, :, ::-1])


def _rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame[:, :, ::-1])
