"""Read a clip into memory: its frames and their rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safegen.errors import UnreadableMediaError
from safegen.media.decoding import decode
from safegen.media.probing import probe
from safegen.types import Clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_MAX_FRAMES = 512
DEFAULT_MAX_PIXELS = 2**28
"""Pixels of a whole clip that ``read_clip`` holds at most: 805 MB as RGB (129 frames of 1920x1080)."""


def read_clip(
    path: Path | str,
    *,
    max_frames: int = DEFAULT_MAX_FRAMES,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tolerant: bool = False,
) -> Clip:
    """Read a clip's frames into memory: its beginning, as far as ``max_frames`` and ``max_pixels`` (T*H*W) reach.

    At least one frame is read. Raises what ``decode`` and ``probe`` raise.
    """
    frames: list[NDArray[np.uint8]] = []
    stream = decode(path, tolerant=tolerant)
    for frame in stream:
        if frames and frame.shape != frames[0].shape:
            raise UnreadableMediaError(f"{Path(path).name}: the picture size changes within the clip")
        frames.append(frame)
        if len(frames) >= max_frames or (len(frames) + 1) * frame.shape[0] * frame.shape[1] > max_pixels:
            break
    close = getattr(stream, "close", None)
    if close is not None:
        close()  # ends ffmpeg now rather than when the generator is collected
    return Clip(np.stack(frames), probe(path, tolerant=tolerant).fps)
