"""What a clip looks like, for finding it again among many without any mark: PDQ hashes of its half seconds.

    kept = video_hash(frames, fps)              # 32 bytes for each half second of the first ten
    Look.at(suspect, fps).distance(kept)        # bits of 256: about 40 after compression, above 80 for other clips

The cosines that PDQ takes the bits from are averaged over half a second, which halves the bits that compression flips.
A likeness says that two clips look alike; who made either, it does not say. docs/likeness.md has the error rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from safegen.errors import MediaError
from safegen.media.perceptual_hash import BITS, bits, margins, mirrored, waves
from safegen.opencv import cv2
from safegen.types import Json

SIZE: Final = BITS // 8
MAX_WINDOWS: Final = 20
_SECONDS, _STEP_SECONDS = 0.5, 0.25
_FRAMES: Final = 8  # of a window that are looked at
_ENOUGH_LINES: Final = 512  # larger pictures are shrunk first: the hash sees 64 lines
_FLAT: Final = 1.0  # root mean square of the cosines: below, the bits are noise


@dataclass(frozen=True, slots=True)
class VideoHash:
    """PDQ hashes, SIZE bytes each, of a clip's half seconds in their order; MAX_WINDOWS at most, at least one."""

    windows: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """MediaError unless that is so."""
        if not 0 < len(self.windows) <= MAX_WINDOWS or any(len(w) != SIZE for w in self.windows):
            raise MediaError(f"a video hash has 1 to {MAX_WINDOWS} parts of {SIZE} bytes")

    def to_json(self) -> tuple[Json, ...]:
        """Return each hash as hex digits."""
        return tuple(w.hex() for w in self.windows)

    @classmethod
    def from_json(cls, value: Json) -> VideoHash:
        """Read what ``to_json`` wrote. Raises MediaError for anything else."""
        try:
            return cls(tuple(bytes.fromhex(text) for text in value))  # type: ignore[union-attr, arg-type]
        except (TypeError, ValueError) as error:
            raise MediaError("a video hash is a list of hex digits") from error

    @classmethod
    def from_bytes(cls, value: bytes) -> VideoHash:
        """Read hashes that follow each other without a gap. Raises MediaError if these are none."""
        return cls(tuple(value[at : at + SIZE] for at in range(0, len(value), SIZE)))

    def few(self, count: int) -> VideoHash:
        """At most ``count`` of the hashes, spread over the clip."""
        last = len(self.windows) - 1
        chosen = sorted({round(n * last / max(1, count - 1)) for n in range(count)})
        return VideoHash(tuple(self.windows[n] for n in chosen))

    def distance(self, kept: VideoHash) -> int:
        """As ``Look.distance``, for hashes whose clip is not at hand."""
        return _distance(_unpacked(self.windows), kept)


@dataclass(frozen=True, slots=True)
class Look:
    """A clip that is to be found: the cosines of its half seconds, [N, 16, 16], every quarter second."""

    cosines: NDArray[np.float32]

    @classmethod
    def at(cls, frames: NDArray[np.uint8], fps: float) -> Look | None:
        """Look at the first ten seconds of uint8 RGB [T, H, W, 3]; None where there is nothing to see."""
        cosines = _windows(frames, fps, _STEP_SECONDS, 2 * MAX_WINDOWS)
        return cls(cosines) if len(cosines) else None

    def mirrored(self) -> Look:
        """The same clip flipped left to right."""
        return Look(mirrored(self.cosines))

    def margins(self) -> NDArray[np.float32]:
        """``perceptual_hash.margins`` of each half second, [N, 256]."""
        return np.stack([margins(c) for c in self.cosines])

    def distance(self, kept: VideoHash) -> int:
        """Bits of 256 by which a half second differs from the kept one that is nearest to it: the median over all."""
        return _distance(np.stack([bits(c) for c in self.cosines]), kept)


def video_hash(frames: NDArray[np.uint8], fps: float) -> VideoHash | None:
    """Return the hash of uint8 RGB [T, H, W, 3], ``fps`` 0 for stills; None where the pictures are too even for one.

    Raises MediaError if these are no frames.
    """
    cosines = _windows(frames, fps, _SECONDS, MAX_WINDOWS)
    return VideoHash(tuple(np.packbits(bits(c)).tobytes() for c in cosines)) if len(cosines) else None


def _windows(frames: NDArray[np.uint8], fps: float, step_seconds: float, most: int) -> NDArray[np.float32]:
    count = min(len(frames), max(1, round(_SECONDS * fps)) if fps > 0 else len(frames))
    if not count:
        raise MediaError("there are no frames to take a hash of")
    starts = range(0, len(frames) - count + 1, max(1, round(step_seconds * fps)))[:most]
    inside = np.unique(np.rint(np.linspace(0, count - 1, min(count, _FRAMES))).astype(int))
    seen: dict[int, NDArray[np.float32]] = {}
    found = []
    for start in starts:
        for number in start + inside:
            if number not in seen:
                seen[number] = waves(_shrunk(frames[number]))
        found.append(np.mean([seen[number] for number in start + inside], axis=0, dtype=np.float32))
    kept = [c for c in found if float((c**2).mean()) >= _FLAT**2]
    return np.stack(kept) if kept else np.empty((0, 16, 16), np.float32)


def _shrunk(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = min(frame.shape[:2]) / _ENOUGH_LINES if frame.ndim == 3 else 0.0
    if factor <= 1:
        return frame
    size = (round(frame.shape[1] / factor), round(frame.shape[0] / factor))
    small: NDArray[np.uint8] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return small


def _unpacked(hashes: tuple[bytes, ...]) -> NDArray[np.bool_]:
    rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), SIZE)
    return np.unpackbits(rows, axis=1).astype(bool)


def _distance(looked: NDArray[np.bool_], kept: VideoHash) -> int:
    differing = (looked[:, None] != _unpacked(kept.windows)[None]).sum(axis=2)
    return int(np.median(differing.min(axis=1)))
