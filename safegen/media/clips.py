"""Read a clip into memory: its frames and their rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safegen.errors import UnreadableMediaError
from safegen.media.decoding import decode
from safegen.media.formats import identify
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
    still = identify(path).kind == "image"
    held: NDArray[np.uint8] | None = None
    count = 0
    stream = decode(path, tolerant=tolerant)
    for frame in stream:
        if held is None:  # once, for all: what is never written to takes no memory
            most = 1 if still else max(1, min(max_frames, max_pixels // (frame.shape[0] * frame.shape[1])))
            held = frame[None] if most == 1 else np.empty((most, *frame.shape), np.uint8)
        if frame.shape != held.shape[1:]:
            raise UnreadableMediaError(f"{Path(path).name}: the picture size changes within the clip")
        if len(held) > 1:
            held[count] = frame
        count += 1
        if count == len(held):
            break
    close = getattr(stream, "close", None)
    if close is not None:
        close()  # ends ffmpeg now rather than when the generator is collected
    assert held is not None  # noqa: S101 - decode yields a frame or raises
    return Clip(held[:count], 0.0 if still else probe(path, tolerant=tolerant).fps)
