"""A fingerprint of what a clip shows, kept in the ledger beside its mark: a mark pasted elsewhere betrays itself.

The fingerprint is the clip's lasting layout, the median over time of Y, Cb and Cr in 8x8 cells stretched over the whole
picture, coded in 64 bytes. The mark itself averages to nothing over time, so it cannot carry a layout along. A suspect
is laid on the place where its mark was found, so only what is still visible is compared, and as well as any plausible
change of colour allows: a gain of light, a gain and a turn of colour. Where the suspect is overexposed it need not fit.
What is left unexplained is the distance. docs/fingerprint.md has the measured error rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from safegen.errors import WatermarkError
from safegen.opencv import cv2
from safegen.watermark.clip import reading
from safegen.watermark.clip.reading import SHORT, Canvas
from safegen.watermark.clip.search import FINE, Matrix
from safegen.watermark.fingerprint.recolouring import CHROMA_LIMIT, LUMA_LIMIT, Cells, unexplained

VERSION = 1
SIZE = 64
"""Bytes of a fingerprint; twice as many hex digits."""

OVEREXPOSED = 0.15
"""A cell with a larger share of white points need not fit: what was there cannot be seen."""

ENOUGH = 16
"""Cells (of 64) that must be seen to say anything."""

MAX_FRAMES = 33
CELLS = 8
POINTS = 32
"""Points per side that a suspect is laid on; a cell is the mean of those that are visible."""

_LUMA_BITS = (0, 8, 7, 7, 6, 6, 5, 5, 4, 4, 4, 3, 3, 3, 3)
_CHROMA_BITS = (7, 7, 6, 5, 4)
"""Bits of a cosine by the sum of its two orders. The mean light is not kept: no comparison could use it."""

_HEAD = 5
_STEPS_PER_OCTAVE = 64  # of the aspect
_SCALE = 8  # steps per octave of the quantiser's step
_ERRORS = (0.0, 1.5, 2.6, 4.6, 8.0, 14.0, 24.6, 43.0)  # levels
_TRIMMED = 0.25  # of its unrest, how far a trimmed clip's medians may lie from those of the whole
_WHITE, _BLACK = 247.0, 4.0


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """SIZE bytes: version, aspect, unrest, two quantiser steps, then the coefficients and the code's own errors."""

    code: bytes

    def __post_init__(self) -> None:
        """WatermarkError unless the code is a well-formed fingerprint of this version."""
        if len(self.code) != SIZE or self.code[0] != VERSION:
            raise WatermarkError(
                f"this is no content fingerprint of version {VERSION}",
                remedy="The ledger entry may have been made by a newer safegen.",
            )

    def hex(self) -> str:
        """As text: 2 * SIZE hex digits."""
        return self.code.hex()

    @classmethod
    def from_hex(cls, text: str) -> Fingerprint:
        """Read what ``hex`` wrote. Raises WatermarkError for anything else."""
        try:
            return cls(bytes.fromhex(text))
        except (ValueError, TypeError) as error:
            raise WatermarkError("a content fingerprint must be hex digits") from error

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the clip in short sides."""
        aspect = 2.0 ** ((self.code[1] - 128) / _STEPS_PER_OCTAVE)
        return max(aspect, 1.0), max(1 / aspect, 1.0)

    @property
    def unrest(self) -> tuple[float, float]:
        """How much luma and chroma cells leave their medians over time, root mean square in levels."""
        return _from_log(self.code[2] >> 4), _from_log(self.code[2] & 15)

    @property
    def error(self) -> tuple[float, float]:
        """How much the code itself is off in luma and chroma, root mean square in levels: what is too fine for it."""
        return _ERRORS[self.code[-1] >> 3 & 7], _ERRORS[self.code[-1] & 7]

    @property
    def leeway(self) -> tuple[float, float]:
        """How far luma and chroma of the clip itself may lie from the code: its errors, and a trimmed one's medians."""
        moved, off = self.unrest, self.error
        return math.hypot(_TRIMMED * moved[0], off[0]), math.hypot(_TRIMMED * moved[1], off[1])


@dataclass(frozen=True, slots=True)
class Match:
    """How a suspect compares. ``luma`` and ``chroma``: unexplained shares of its contrast, 0 (all explained) to 1.

    ``seen`` is the share of the cells that could be compared. ``same`` is None where too few could.
    """

    luma: float
    chroma: float
    seen: float

    @property
    def distance(self) -> float:
        """The worse of both, in units of its limit."""
        return max(self.luma / LUMA_LIMIT, self.chroma / CHROMA_LIMIT)

    @property
    def same(self) -> bool | None:
        """Whether this may be the clip of the fingerprint."""
        return None if self.seen * CELLS**2 < ENOUGH else self.distance <= 1.0


def fingerprint(frames: NDArray[np.uint8]) -> Fingerprint:
    """Take the fingerprint of a whole clip, uint8 RGB ``[T, H, W, 3]``. Raises WatermarkError if it is no clip."""
    canvas = reading.to_canvas(_some(frames), FINE)
    small = np.stack([[_shrink(channel) for channel in picture] for picture in canvas]).astype(np.float64)
    layout = _shrink_all(np.median(canvas, axis=0))
    off = ((small - layout) ** 2).mean(axis=(0, 2, 3))
    unrest = _to_log(math.sqrt(off[0])) << 4 | _to_log(math.sqrt(off[1] + off[2]))
    aspect = round(_STEPS_PER_OCTAVE * math.log2(frames.shape[2] / frames.shape[1]))
    waves = np.einsum("vy,cyx,ux->cvu", _basis(), layout, _basis()) / CELLS
    head, bits = bytearray([VERSION, min(max(aspect, -128), 127) + 128, unrest]), ""
    for channels, lengths in _zones():
        values = np.stack([waves[c][lengths > 0] for c in channels])
        widths = lengths[lengths > 0]
        scale = math.ceil(_SCALE * math.log2(max((np.abs(values) / (2.0 ** (widths - 1) - 1)).max(), 2.0**-6)))
        head.append(scale + 128)
        levels = np.rint(values / 2 ** (scale / _SCALE)).astype(int) + 2 ** (widths - 1)
        bits += "".join(f"{level:0{width}b}" for row in levels for level, width in zip(row, widths, strict=True))
    return Fingerprint(bytes(head) + _packed(bits, layout, bytes(head)))


def compare(
    kept: Fingerprint,
    frames: NDArray[np.uint8],
    *,
    matrix: Matrix | None = None,
    visible: NDArray[np.bool_] | None = None,
) -> Match:
    """Could ``frames``, uint8 RGB [T, H, W, 3], show the clip that ``kept`` was taken from?

    ``matrix`` [3, 3] says where the mark was found (search.Alignment: pixels of the FINE canvas to the plane); None
    means an unmoved picture, of any size. ``visible`` [H, W] leaves out what is known to be foreign. Raises
    WatermarkError if the frames are no clip or ``visible`` has another size.
    """
    canvas = np.median(reading.to_canvas(_some(frames), FINE), axis=0)
    shown = np.ones(canvas.shape[1:], np.float32)
    if visible is not None:
        if visible.shape != frames.shape[1:3]:
            raise WatermarkError(f"visible must be {list(frames.shape[1:3])}, not {list(visible.shape)}")
        size = (canvas.shape[2], canvas.shape[1])
        shown = cv2.resize(visible.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return compare_layout(kept, canvas.astype(np.float32), shown, matrix)


def compare_layout(
    kept: Fingerprint, canvas: Canvas, shown: NDArray[np.float32], matrix: Matrix | None = None
) -> Match:
    """``compare`` for the median over time of a FINE canvas, [3, h, w], of which ``shown`` [h, w] is to be used."""
    if matrix is not None:
        shown = shown * _lit(canvas[0])
    known, matches = _decode(kept), []
    for place in _places(kept.size, canvas.shape[1:], matrix):
        laid, mask = _lay(canvas, shown, place)
        cells, share = _pool(laid, mask)
        theirs, _ = _pool(known, mask)
        white, _ = _pool((_rgb(laid).max(axis=0) >= _WHITE)[None], mask)
        seen, clear = share >= 0.25, white[0] <= OVEREXPOSED
        found = [_match(kept, theirs, cells, share, used) for used in (seen, seen & clear)]
        # What does not fit may be overexposed only as long as enough is left that is not.
        if found[1].same is None and not found[0].same:
            found = found[1:]
        matches.append(min(found, key=_order))
    return min(matches, key=_order, default=Match(0.0, 0.0, 0.0))


def _order(match: Match) -> tuple[bool, float]:
    return match.same is None, match.distance


def _match(
    kept: Fingerprint, theirs: Cells, cells: Cells, share: NDArray[np.float64], used: NDArray[np.bool_]
) -> Match:
    seen = float(used.mean())
    if used.sum() < ENOUGH:
        return Match(0.0, 0.0, seen)
    return Match(*unexplained(theirs[:, used], cells[:, used], share[used], kept.leeway), seen)


def matrix_of(corners: list[list[float]], height: int, width: int) -> Matrix:
    """The matrix of an extraction whose evidence names ``corners``, for frames of that size."""
    short = min(height, width)
    w, h = max(1, round(width * FINE / short)), max(1, round(height * FINE / short))
    there = np.array(corners, np.float32) * SHORT
    matrix: Matrix = cv2.getPerspectiveTransform(np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32), there)
    return matrix


# -- coding --------------------------------------------------------------------------------------------------------


def _some(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    reading.check_frames(frames)
    at = np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES))
    some: NDArray[np.uint8] = frames[np.rint(at).astype(int)]
    return some


def _packed(bits: str, layout: Cells, head: bytes) -> bytes:
    """The coefficients' bits, and behind them by how much luma and chroma are off once they are decoded."""

    def whole(tail: str) -> bytes:
        return int((bits + tail).ljust(8 * (SIZE - _HEAD), "0"), 2).to_bytes(SIZE - _HEAD, "big")

    known = _decode(Fingerprint(head + whole("")))
    known = known.reshape(3, CELLS, POINTS // CELLS, CELLS, -1).mean(axis=(2, 4))
    off = (known - layout) ** 2
    luma = math.sqrt(max(float(off[0].mean() - (known - layout)[0].mean() ** 2), 0.0))
    chroma = math.sqrt(float(off[1:].sum(axis=0).mean()))
    steps = [next((i for i, level in enumerate(_ERRORS) if e <= max(level, 1.0)), 7) for e in (luma, chroma)]
    return whole("".join(f"{step:03b}" for step in steps))


def _shrink(picture: NDArray[np.floating]) -> NDArray[np.float32]:
    small: NDArray[np.float32] = cv2.resize(picture.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return small


def _shrink_all(pictures: NDArray[np.floating]) -> Cells:
    return np.stack([_shrink(p) for p in pictures]).astype(np.float64)


def _to_log(level: float) -> int:
    return min(15, max(0, math.ceil(2 * math.log2(max(level, 1e-9)) + 2)))


def _from_log(code: int) -> float:
    return float(2.0 ** ((code - 2) / 2)) if code else 0.0


@lru_cache(maxsize=1)
def _basis() -> NDArray[np.float64]:
    """Orthonormal DCT-II, [CELLS, CELLS]."""
    k, x = np.arange(CELLS)[:, None], (np.arange(CELLS) + 0.5) / CELLS
    return np.cos(np.pi * k * x) * np.sqrt(np.where(k == 0, 1, 2) / CELLS)


@lru_cache(maxsize=1)
def _fine_basis() -> NDArray[np.float64]:
    """The same cosines at POINTS points, [CELLS, POINTS], so that the means over the cells come out as coded."""
    k, x = np.arange(CELLS)[:, None], (np.arange(POINTS) + 0.5) / POINTS
    waves = np.cos(np.pi * k * x)
    means = waves.reshape(CELLS, CELLS, -1).mean(axis=2)
    cells = np.cos(np.pi * k * (np.arange(CELLS) + 0.5) / CELLS)
    gain = (means * cells).sum(axis=1) / (cells**2).sum(axis=1)
    basis: NDArray[np.float64] = waves * np.where(k == 0, 1, math.sqrt(2)) / gain[:, None]
    return basis


def _zones() -> tuple[tuple[tuple[int, ...], NDArray[np.int64]], ...]:
    """Channels and the bits of each cosine, [CELLS, CELLS]: first luma, then chroma."""
    order = np.add.outer(np.arange(CELLS), np.arange(CELLS))
    luma, chroma = (np.array([*b, *[0] * (2 * CELLS)], np.int64)[order] for b in (_LUMA_BITS, _CHROMA_BITS))
    return ((0,), luma), ((1, 2), chroma)


def _decode(kept: Fingerprint) -> NDArray[np.float64]:
    """The layout at POINTS x POINTS points, [3, POINTS, POINTS]; luma without its mean."""
    bits = f"{int.from_bytes(kept.code[_HEAD:], 'big'):0{8 * (SIZE - _HEAD)}b}"
    waves, at = np.zeros((3, CELLS, CELLS)), 0
    for (channels, lengths), scale in zip(_zones(), kept.code[3:_HEAD], strict=True):
        for c in channels:
            for v, u in zip(*np.nonzero(lengths), strict=True):
                width = int(lengths[v, u])
                waves[c, v, u] = (int(bits[at : at + width], 2) - 2 ** (width - 1)) * 2 ** ((scale - 128) / _SCALE)
                at += width
    layout: NDArray[np.float64] = np.einsum("vy,cvu,ux->cyx", _fine_basis(), waves, _fine_basis())
    return layout


# -- places --------------------------------------------------------------------------------------------------------


def _places(size: tuple[float, float], shape: tuple[int, ...], matrix: Matrix | None) -> list[Matrix]:
    """Where a canvas [h, w] may lie on the kept picture: matrices to POINTS x POINTS.

    The pattern repeats, mirrored, at every short side, so a place found by it is one of several: those count that cover
    about as much of the picture as the best does.
    """
    h, w = shape
    if matrix is None:
        return [np.diag([POINTS / w, POINTS / h, 1.0])]
    corners = np.array([[[0, 0], [w, 0], [w, h], [0, h]]], np.float64)
    at = cv2.perspectiveTransform(corners, matrix)[0] / SHORT
    if not np.isfinite(at).all() or np.abs(at).max() > 40:
        return []
    ways = [_mirrorings(at[:, axis].min(), at[:, axis].max(), size[axis]) for axis in (0, 1)]
    places = []
    for (turn_x, move_x), (turn_y, move_y) in product(*ways):
        fold = np.array([[turn_x / SHORT, 0, move_x], [0, turn_y / SHORT, move_y], [0, 0, 1]])
        places.append(np.diag([POINTS / size[0], POINTS / size[1], 1.0]) @ fold @ matrix)
    return places


def _mirrorings(low: float, high: float, length: float) -> list[tuple[int, int]]:
    """The (sign, shift) that bring most of [low, high] onto [0, length]; the plane's period is 2."""
    found = []
    for sign, (start, stop) in ((1, (low, high)), (-1, (-high, -low))):
        for shift in range(-42, 43, 2):
            found.append((min(stop + shift, length) - max(start + shift, 0.0), sign, shift))
    most = max(found)[0]
    return [(sign, shift) for overlap, sign, shift in found if overlap > 0 and overlap >= 0.8 * most]


def _lit(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 within the picture, 0 in black borders and a little around them: where a picture was moved, they lie about."""
    black = (luma < _BLACK).astype(np.uint8)
    _, parts = cv2.connectedComponents(np.pad(black, 1, constant_values=1), connectivity=4)
    border = (parts == parts[0, 0])[1:-1, 1:-1].astype(np.uint8)
    wide: NDArray[np.float32] = cv2.dilate(border, np.ones((7, 7), np.uint8)).astype(np.float32)
    return np.float32(1) - wide


def _lay(canvas: Canvas, shown: NDArray[np.float32], place: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The canvas on the kept picture, [3, POINTS, POINTS], and its visible points, [POINTS, POINTS] of 0 and 1."""
    half, back = np.eye(3), np.eye(3)
    half[:2, 2], back[:2, 2] = 0.5, -0.5  # cv2 counts from pixel centres
    there = back @ place @ half
    shrink = 1 / math.sqrt(max(abs(float(np.linalg.det(place[:2, :2]))), 1e-3))
    if shrink > 1.2:
        # Normalised, so that what is not shown does not bleed into what is.
        weight = cv2.GaussianBlur(shown, (0, 0), 0.35 * shrink, borderType=cv2.BORDER_REPLICATE)
        canvas = np.stack(
            [cv2.GaussianBlur(p * shown, (0, 0), 0.35 * shrink, borderType=cv2.BORDER_REPLICATE) for p in canvas]
        ) / np.maximum(weight, 1e-3)
    size = (POINTS, POINTS)
    laid = [cv2.warpPerspective(p, there, size, borderMode=cv2.BORDER_REPLICATE) for p in canvas.astype(np.float32)]
    inside = cv2.warpPerspective(np.pad(shown, 1, mode="edge"), there @ _unpad(), size)
    return np.stack(laid).astype(np.float64), (inside > 0.99).astype(np.float64)


def _unpad() -> Matrix:
    return np.array([[1.0, 0, -1], [0, 1, -1], [0, 0, 1]])


def _pool(
    pictures: NDArray[np.float64] | NDArray[np.bool_], mask: NDArray[np.float64]
) -> tuple[Cells, NDArray[np.float64]]:
    """Means over the visible points of each cell, [N, CELLS, CELLS], and the share of them, [CELLS, CELLS]."""
    side = POINTS // CELLS
    count = mask.reshape(CELLS, side, CELLS, side).sum(axis=(1, 3))
    total = (pictures * mask).reshape(len(pictures), CELLS, side, CELLS, side).sum(axis=(2, 4))
    return total / np.maximum(count, 1), count / side**2


def _rgb(yuv: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.tensordot(np.linalg.inv(reading._YUV.astype(np.float64)), yuv, 1)
