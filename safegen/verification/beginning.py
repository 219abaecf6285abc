"""The beginning of a file, read into memory only for whom a single pass over its frames does not serve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safegen.media import MediaInfo, read_clip
from safegen.media.clips import DEFAULT_MAX_PIXELS
from safegen.media.decoding import WHOLE_PIXELS
from safegen.settings import MARK_FRAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LARGE_PIXELS: Final = 2**26
"""Pixels that are held of a clip whose frames are larger than 4K: two of 8K. As many more are on their way."""


@dataclass(frozen=True)
class Beginning:
    """A file that can be decoded, and what its packets say of it."""

    path: Path
    info: MediaInfo

    @property
    def fps(self) -> float:
        """Frames a second, 0 for a still."""
        return self.info.fps

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """The first MARK_FRAMES frames, uint8 [T, H, W, 3], or fewer large ones. Raises what ``read_clip`` raises."""
        return read_clip(self.path, max_frames=MARK_FRAMES, max_pixels=self._max_pixels, tolerant=True).frames

    @property
    def is_cut(self) -> bool:
        """Whether frames of the first MARK_FRAMES are not among ``frames``, because they are too large."""
        count, height, width = map(int, self.frames.shape[:3])
        return count < min(self.info.frames, MARK_FRAMES) and (count + 1) * height * width > self._max_pixels

    @property
    def _max_pixels(self) -> int:
        return DEFAULT_MAX_PIXELS if self.info.width * self.info.height <= WHOLE_PIXELS else LARGE_PIXELS
