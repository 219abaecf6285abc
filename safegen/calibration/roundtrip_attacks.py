"""The attacks that the round trip of a VAE is measured under: frames to frames of the same shape."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safegen.media import encode_video, read_clip
from safegen.opencv import cv2

Frames = NDArray[np.uint8]

FPS = 16.0


@dataclass(frozen=True, slots=True)
class Attack:
    """``change`` takes uint8 frames [T, H, W, 3] to others of the same shape; ``moves`` says that it moves pixels."""

    name: str
    change: Callable[[Frames], Frames]
    moves: bool = False


def attacks() -> tuple[Attack, ...]:
    """The attacks of the table, the first one none."""
    return (
        Attack("clean", lambda frames: frames),
        *(Attack(f"H.264 {crf}", partial(h264, crf=crf)) for crf in (23, 30, 40)),
        Attack("resize 0.5", lambda frames: _each(frames, _half)),
        Attack("noise 0.05", _noisy),
        Attack("crop 0.9", lambda frames: _each(frames, _zoomed), moves=True),
    )


def h264(frames: Frames, crf: int) -> Frames:
    """Encode with our own H.264 encoder at ``crf`` and decode again; MediaError where ffmpeg cannot run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode_video(frames, FPS, path, crf=crf)
        return read_clip(path, max_frames=len(frames)).frames


def _each(frames: Frames, change: Callable[[Frames], Frames]) -> Frames:
    return np.stack([change(f) for f in frames])


def _half(frame: Frames) -> Frames:
    h, w = frame.shape[:2]
    small = cv2.resize(frame, (max(1, w // 2), max(1, h // 2)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)


def _zoomed(frame: Frames) -> Frames:
    h, w = frame.shape[:2]
    top, left = round(0.05 * h), round(0.05 * w)
    part = np.ascontiguousarray(frame[top : h - top, left : w - left])
    return np.asarray(cv2.resize(part, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)


def _noisy(frames: Frames) -> Frames:
    noise = np.random.default_rng(0).normal(scale=0.05 * 255, size=frames.shape)
    return np.rint(frames + noise).clip(0, 255).astype(np.uint8)
