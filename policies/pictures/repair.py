"""Taking out of a clip what a pack lets be taken out: spans of frames are pixelated, or dropped. Never blackened.

A span that reaches between two looks at the clip is taken out whole, and the whole picture with it: a box around what
a detector saw in one frame says little about the next.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from safegen.types import Decision, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

REMEDIES = ("pixelate", "drop")

_CELLS = 12
"""Mosaic cells along a frame's shorter side: a figure is a few patches of colour, nothing that a detector finds."""

_MOST_DROPPED = 0.5
"""A clip of which more than this share of frames would have to go is refused: what is left is another clip."""


def repairable(decision: Decision) -> bool:
    """Whether all that stops these frames are spans that the policy wants pixelated or dropped."""
    stopping = {(r.category, r.source) for r in decision.reasons if r.action.stops}
    mended = {(s.category, s.source) for s in decision.spans if s.remedy}
    failed = any(s.action.stops and not s.remedy for s in decision.spans)
    return bool(stopping) and stopping <= mended and not failed


def repair(frames: NDArray[np.uint8], fps: float, spans: tuple[Span, ...]) -> NDArray[np.uint8] | None:
    """Return the frames, uint8 [T, H, W, 3], without what the spans hold; None where too little would be left."""
    dropped = np.zeros(len(frames), bool)
    out = frames.copy()
    for span in spans:
        at = slice(max(math.floor(span.start_s * fps + 0.01), 0), min(math.ceil(span.end_s * fps - 0.01), len(frames)))
        if span.remedy == "drop":
            dropped[at] = True
        elif span.remedy == "pixelate":
            out[at] = _mosaic(frames[at])
    if dropped.mean() > _MOST_DROPPED:
        return None
    return out[~dropped]


def _mosaic(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames in which every cell has one colour, its mean."""
    height, width = frames.shape[1:3]
    side = max(math.ceil(min(height, width) / _CELLS), 2)
    out = np.empty_like(frames)
    for top in range(0, height, side):
        for left in range(0, width, side):
            cell = (slice(None), slice(top, top + side), slice(left, left + side))
            out[cell] = np.rint(frames[cell].mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    return out
