"""The beginning of a file, read into memory only for whom a single pass over its frames does not serve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.media import MediaInfo, read_clip
from safegen.settings import MARK_FRAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        """The first MARK_FRAMES frames, uint8 [T, H, W, 3]. Raises what ``read_clip`` raises."""
        return read_clip(self.path, max_frames=MARK_FRAMES, tolerant=True).frames
