"""Which stretches of a clip carry a payload that was read from it: every eight frames are asked by themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safegen.types import ContentId, Json

SEGMENT_FRAMES = 8
SEGMENT_Z, ALONE_Z, TOGETHER_Z = 3.0, 4.5, 4.0
"""One segment in 740 says the first by chance. It must say the second, or the third together with those beside it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of frames, first to last, and how well it fits the payload found."""

    first: int
    last: int
    statistic: float
    content_id: ContentId | None  # None where the payload is not there

    def to_json(self) -> dict[str, Json]:
        """Return what the extraction's evidence says of it."""
        return {
            "first": self.first,
            "last": self.last,
            "statistic": round(self.statistic, 2),
            "marked": self.content_id is not None,
            "content_id": self.content_id,
        }


def segment_map(
    flat: NDArray[np.float32], path: NDArray[np.int64], wanted: NDArray[np.float32], content_id: ContentId
) -> tuple[Segment, ...]:
    """Say for every SEGMENT_FRAMES frames whether the payload is there.

    ``flat [frames, ...]`` are samples in step with the phases that ``path [frames]`` names, ``wanted [phases, ...]``
    the payload's signs, 0 where it has none.
    """
    starts, said = range(0, len(flat), SEGMENT_FRAMES), []
    for start in starts:
        stop = start + SEGMENT_FRAMES
        fit, power = 0.0, 0.0
        # Frames of one phase repeat the same signs, and by chance alone they agree with each other too.
        for phase in set(path[start:stop].tolist()):
            together = flat[start:stop][path[start:stop] == phase].sum(axis=0) * (wanted[phase] != 0)
            fit += float((together * wanted[phase]).sum())
            power += float((together**2).sum())
        said.append(fit / math.sqrt(power) if power > 0 else 0.0)
    return tuple(
        Segment(start, min(start + SEGMENT_FRAMES, len(flat)) - 1, z, content_id if marked else None)
        for start, z, marked in zip(starts, said, _marked(np.array(said)), strict=True)
    )


def _marked(said: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which segments are marked, by their statistics: standard normal without a mark."""
    # A strong one beside a cut must not carry what lies behind the cut.
    capped = np.minimum(said, SEGMENT_Z)
    beside, count = (np.convolve(of, np.ones(3))[1:-1] for of in (capped, np.ones(len(said))))
    together = (beside - capped + said) / np.sqrt(count)
    return np.asarray((said >= SEGMENT_Z) & ((said >= ALONE_Z) | (together >= TOGETHER_Z)), np.bool_)


def unmarked(segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Stretches of consecutive unmarked segments: (first frame, last frame)."""
    for marked, group in itertools.groupby(segments, key=lambda s: s.content_id is not None):
        stretch = list(group)
        if not marked:
            yield stretch[0].first, stretch[-1].last


def moved(segments: Iterable[Segment], by: int) -> list[Segment]:
    """The same, ``by`` frames later."""
    return [replace(s, first=s.first + by, last=s.last + by) for s in segments]


def merge(old: list[Segment], new: list[Segment]) -> list[Segment]:
    """Put ``new`` segments in; where both speak of the same frames, the marked one stays."""
    covered = [s for s in new if s.content_id is not None]
    kept = [s for s in old if not any(c.first <= s.last and s.first <= c.last for c in covered) or s.content_id]
    fresh = [s for s in new if s.content_id or not any(k.first <= s.last and s.first <= k.last for k in kept)]
    return sorted(kept + fresh, key=lambda s: (s.first, s.last))
