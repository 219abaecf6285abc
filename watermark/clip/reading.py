"""From frames to samples: what is left of a clip once its own content is taken away (spec section 4).

``to_canvas`` shrinks frames to a small YUV canvas; the pattern has nothing finer. ``samples`` takes away what does not
change over time, divides by the local strength of what is left, so that a moving object does not drown the rest, and
projects on the pattern's cosines. Nothing here knows a key, so whatever the video is, the key's signs stay independent
of the samples: that is what the false-positive bound rests on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safegen.errors import WatermarkError
from safegen.opencv import cv2
from safegen.watermark import base
from safegen.watermark.clip.pattern import PHASES, cosines, signpost, used

SHORT = 48
"""Canvas pixels along the short side: twice the finest cosine's needs."""

WINDOW = 17
"""Frames over which a pixel's own mean is taken: one period of the pattern."""

MAX_ASPECT = 5
"""The longest picture: the canvas, and with it the time that a search takes, grows with its length."""

MAX_FLOAT_PIXELS = 2**23
"""Pixels of a frame above which it is shrunk in 8 bits first; 4K video stays below, so that nothing is rounded."""

SIGMA = 3.0
CLIP = 2.0
_YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)

Canvas = NDArray[np.float32]
"""[T, 3, h, w]: Y, Cb, Cr in 8-bit levels, at SHORT pixels along the short side of the picture as it was generated."""


def check_frames(frames: NDArray[np.uint8]) -> None:
    """WatermarkError unless ``frames`` are uint8 [T, H, W, 3], not empty and of a sane aspect."""
    base.check_frames(frames)
    short, long = sorted(frames.shape[1:3])
    if long > MAX_ASPECT * short:
        raise WatermarkError(
            f"pictures of {frames.shape[2]}x{frames.shape[1]} pixels are too long and narrow to be read",
            remedy=f"Only pictures up to {MAX_ASPECT} times as long as wide carry marks.",
        )


def to_canvas(frames: NDArray[np.uint8], short: int = SHORT) -> Canvas:
    """Shrink uint8 RGB ``frames [T, H, W, 3]`` to a canvas with ``short`` pixels along the short side."""
    check_frames(frames)
    h, w = frames.shape[1:3]
    size = (max(1, round(w * short / min(h, w))), max(1, round(h * short / min(h, w))))
    how = cv2.INTER_AREA if min(h, w) >= short else cv2.INTER_LINEAR
    out = np.empty((len(frames), 3, size[1], size[0]), np.float32)
    for t, frame in enumerate(frames):
        small = cv2.resize(_bounded(frame).astype(np.float32), size, interpolation=how)
        out[t] = np.moveaxis(small.reshape(size[1], size[0], 3) @ _YUV.T, -1, 0)
    return out


def _bounded(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame of MAX_FLOAT_PIXELS at most: as floats, larger ones would take four times their memory again."""
    h, w = frame.shape[:2]
    scale = (MAX_FLOAT_PIXELS / (h * w)) ** 0.5
    if scale >= 1:
        return frame
    small: NDArray[np.uint8] = cv2.resize(frame, (int(w * scale), int(h * scale)), interpolation=cv2.INTER_AREA)
    return small


def moving(canvas: Canvas) -> Canvas:
    """What changes: every frame minus the mean of the WINDOW frames around it (of the whole clip if it is shorter)."""
    n = len(canvas)
    if n <= WINDOW:  # in double precision: what stands still must come out as nothing at all
        still: Canvas = (canvas - canvas.mean(axis=0, dtype=np.float64)).astype(np.float32)
        return still
    total = np.concatenate([np.zeros_like(canvas[:1], np.float64), np.cumsum(canvas, axis=0, dtype=np.float64)])
    start = np.clip(np.arange(n) - WINDOW // 2, 0, n - WINDOW)
    out: Canvas = (canvas - (total[start + WINDOW] - total[start]) / WINDOW).astype(np.float32)
    return out


def by_phase(change: Canvas, path: NDArray[np.int64]) -> Canvas:
    """Sum the frames of each phase over the square root of their number: [PHASES, 3, h, w]; -1 leaves a frame out."""
    out = np.zeros((PHASES, *change.shape[1:]), np.float32)
    for phase in range(PHASES):
        mine = path == phase
        if mine.any():
            out[phase] = change[mine].sum(axis=0) / np.sqrt(mine.sum())
    return out


def even_out(change: Canvas) -> Canvas:
    """Divide by the local strength, the root mean square over all pictures and SIGMA pixels around, per channel."""
    power = (change**2).mean(axis=0)
    local = np.stack([cv2.GaussianBlur(p, (0, 0), SIGMA, borderType=cv2.BORDER_REFLECT) for p in power])
    out: Canvas = (change / np.sqrt(local + 1e-4)).astype(np.float32)
    return out


def project(change: Canvas, corner: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
    """Inner products with all cosines: [N, 3, h, w] to [N, 3, ORDER, ORDER].

    ``corner`` (row, column) is where the canvas's first pixel lies on the pattern's plane, in pixels.
    """
    h, w = change.shape[2:]
    rows, columns = cosines(h, SHORT, corner[0]), cosines(w, SHORT, corner[1])
    out: NDArray[np.float32] = np.matmul(np.matmul(rows, change), columns.T)
    return out


def whiten(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale samples [N, 3, ORDER, ORDER] by the strength of their neighbours, clip them at CLIP, zero unused slots."""
    mask = used_float()
    power, weight = raw**2 * mask, np.broadcast_to(_blurred_mask(), raw.shape)
    near: NDArray[np.float32] = np.stack([[_blur(p) for p in channels] for channels in power]).astype(np.float32)
    if len(raw) > 1:
        near = (0.5 * near + 0.25 * (np.roll(near, 1, axis=0) + np.roll(near, -1, axis=0))).astype(np.float32)
    scale = np.sqrt(near / np.maximum(weight, 1e-6) + 1e-12)
    out = np.clip(raw / scale, -CLIP, CLIP) * mask
    return np.where(power.sum(axis=(1, 2, 3), keepdims=True) > 0, out, 0.0).astype(np.float32)


def samples(change: Canvas, path: NDArray[np.int64], corner: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
    """Whitened samples [PHASES, 3, ORDER, ORDER] of a clip's changes, given each frame's phase."""
    return whiten(project(even_out(by_phase(change, path)), corner))


def signpost_fit(found: NDArray[np.float32]) -> float:
    """How well samples fit the signpost as a whole: about N(0, 1) where there is none."""
    posts = signpost()
    norm = float(np.sqrt((found[posts != 0] ** 2).sum()))
    return float((found * posts).sum()) / norm if norm > 0 else 0.0


def signpost_scores(change: Canvas, corner: tuple[int, int] = (0, 0)) -> NDArray[np.float64]:
    """How well each frame fits each phase of the signpost: [T, PHASES], about N(0, 1) where there is none."""
    raw = project(even_out(change), corner)
    power = (raw**2).mean(axis=0)
    scale = np.sqrt(np.stack([_blur(p * m) for p, m in zip(power, used(), strict=True)]) / _blurred_mask() + 1e-12)
    flat = np.clip(raw / scale, -CLIP, CLIP).reshape(len(raw), -1)
    posts = signpost().reshape(PHASES, -1)
    scores: NDArray[np.float64] = (flat @ posts.T / np.sqrt((posts**2).sum(axis=1))).astype(np.float64)
    return scores


def _blur(power: NDArray[np.float32]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = cv2.GaussianBlur(
        np.ascontiguousarray(power, np.float32), (0, 0), 1.5, borderType=cv2.BORDER_REFLECT
    ).astype(np.float32, copy=False)
    return out


@lru_cache(maxsize=1)
def used_float() -> NDArray[np.float32]:
    """``pattern.used`` as 0.0 and 1.0."""
    return used().astype(np.float32)


@lru_cache(maxsize=1)
def _blurred_mask() -> NDArray[np.float32]:
    return np.stack([np.maximum(_blur(m.astype(np.float32)), 1e-6) for m in used()])
