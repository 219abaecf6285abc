"""The kept pictures of a clip: what it showed, small, one for each half second. A few kB a clip, and erasable.

They are kept beside the clip's manifest, and the ledger entry holds their hash. A mark that is laid on other pictures
is told by them (``comparing``). For each half second there are

* the mean picture, SIDE pixels along the short side;
* how much its points move, at half that size: what moves need not lie in the same place again;
* how strong everything finer than the picture is, in cells of CELL pixels. Finer structure cannot be compared point by
  point, but none may appear where there was none.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safegen.errors import WatermarkError
from safegen.opencv import cv2
from safegen.watermark.fingerprint.shown import LUMA, Picture, Plane, Shown

SIDE = 64
CELL = 4
FINE = 3
"""Points of the finer grid to a pixel of a picture, each way."""

MOST_BYTES = 8 << 20
_MAGIC = b"safegen kept pictures 1\n"
_QUALITY = 92
_SHEET = 256  # pictures to one JPEG, which can be 65,535 pixels high
_STEPS = 2.0  # of the coded square roots, to a level


@dataclass(frozen=True)
class Look:
    """One half second on the grid of the kept pictures, [h, w] with SIDE pixels along the short side.

    ``moving``: standard deviation over time, in levels. ``detail``: mean square of what is finer than ``picture``, and
    ``unrest``: the variance over time, both in cells [h / CELL, w / CELL] and squared levels.
    """

    picture: Picture
    moving: Plane
    detail: Plane

    @cached_property
    def luma(self) -> Plane:
        """Of the picture."""
        return np.asarray(self.picture @ LUMA, np.float32)

    @cached_property
    def unrest(self) -> Plane:
        """Of the cells."""
        return cells(self.moving**2)


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the kept pictures of a clip of that size: whole cells, SIDE pixels along the short side."""
    short = min(height, width)
    rows, columns = (CELL * max(1, round(n * SIDE / short / CELL)) for n in (height, width))
    return rows, columns


def look_at(mean: Picture, unrest: Plane) -> Look:
    """The look of a half second whose mean lies on the finer grid already, [FINE * h, FINE * w], and ``unrest`` on the
    grid: [h, w].
    """
    h, w = mean.shape[0] // FINE, mean.shape[1] // FINE
    picture = _shrink(mean, w, h)
    light = np.asarray(mean @ LUMA, np.float32)
    smooth = cv2.resize(np.asarray(picture @ LUMA, np.float32), light.shape[::-1], interpolation=cv2.INTER_CUBIC)
    moving = cv2.resize(_shrink(unrest, w // 2, h // 2), (w, h), interpolation=cv2.INTER_LINEAR)
    detail = _shrink((light - smooth) ** 2, w // CELL, h // CELL)
    return Look(picture, np.sqrt(np.maximum(moving, 0)), detail)


def cells(plane: Plane) -> Plane:
    """Means of CELL x CELL points."""
    return _shrink(plane, plane.shape[1] // CELL, plane.shape[0] // CELL)


def _shrink(plane: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True)
class KeptPictures:
    """The looks of a clip's half seconds, in order. ``height`` and ``width``: pixels of the clip's canvas."""

    height: int
    width: int
    looks: tuple[Look, ...]

    @classmethod
    def of(cls, shown: Iterable[Shown]) -> KeptPictures:
        """What is kept of a clip that showed this. WatermarkError if it showed nothing."""
        looks: list[Look] = []
        height = width = 0
        for one in shown:
            if not looks:
                height, width = one.mean.shape[:2]
                rows, columns = grid_of(height, width)
            looks.append(look_at(_fitted(one.mean, FINE * rows, FINE * columns), _fitted(one.unrest, rows, columns)))
        if not looks:
            raise WatermarkError("A clip without pictures has none to keep.")
        return cls(height, width, tuple(looks))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in short sides."""
        short = min(self.height, self.width)
        return self.width / short, self.height / short

    def to_bytes(self) -> bytes:
        """As they are kept: a line that says what they are, JPEG sheets of the pictures, the rest deflated."""
        rows, columns = grid_of(self.height, self.width)
        sheets = []
        for start in range(0, len(self.looks), _SHEET):
            sheet = np.concatenate([look.picture for look in self.looks[start : start + _SHEET]])
            bgr = np.clip(np.rint(sheet[..., ::-1]), 0, 255).astype(np.uint8)
            options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
            done, data = cv2.imencode(".jpg", bgr, options)
            if not done:
                raise WatermarkError("The kept pictures could not be written.")
            sheets.append(data.tobytes())
        planes = [
            _coded(p)
            for look in self.looks
            for p in (_shrink(look.moving, columns // 2, rows // 2), np.sqrt(look.detail))
        ]
        rest = zlib.compress(b"".join(planes), 9)
        head = {
            "height": self.height, "width": self.width, "pictures": len(self.looks),
            "sheets": [len(sheet) for sheet in sheets],
        }  # fmt: skip
        return _MAGIC + json.dumps(head).encode() + b"\n" + b"".join(sheets) + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> KeptPictures:
        """Read what ``to_bytes`` wrote; WatermarkError for anything else."""
        try:
            if not data.startswith(_MAGIC) or len(data) > MOST_BYTES:
                raise ValueError
            line, _, rest = data[len(_MAGIC) :].partition(b"\n")
            head = json.loads(line)
            height, width, count = (int(head[name]) for name in ("height", "width", "pictures"))
            rows, columns = grid_of(height, width)
            if not 0 < count <= _SHEET * len(head["sheets"]) or rows * columns > 100 * SIDE**2:
                raise ValueError
            pictures: list[Picture] = []
            for length in head["sheets"]:
                sheet = np.asarray(cv2.imdecode(np.frombuffer(rest[:length], np.uint8), cv2.IMREAD_COLOR))
                pictures += list(sheet[..., ::-1].astype(np.float32).reshape(-1, rows, columns, 3))
                rest = rest[length:]
            return cls(height, width, _looks(pictures, rest, count, rows, columns))
        except (ValueError, KeyError, TypeError, IndexError, zlib.error, cv2.error) as error:
            raise WatermarkError(
                "what is kept of the clip's pictures cannot be read", remedy="A newer safegen may have written it."
            ) from error


def sha256(data: bytes) -> str:
    """The hash that the ledger entry holds of kept pictures, in hex."""
    return hashlib.sha256(data).hexdigest()


def _looks(pictures: list[Picture], rest: bytes, count: int, rows: int, columns: int) -> tuple[Look, ...]:
    half, parts = (rows // 2, columns // 2), (rows // CELL, columns // CELL)
    each = [half[0] * half[1], parts[0] * parts[1]]
    inflated = zlib.decompressobj().decompress(rest, count * sum(each))
    planes = np.frombuffer(inflated, np.uint8).astype(np.float32) / np.float32(_STEPS)
    if len(pictures) != count or planes.size != count * sum(each):
        raise ValueError("pictures are missing")
    pairs = planes.reshape(count, sum(each))
    moving, detail = pairs[:, : each[0]].reshape(count, *half), pairs[:, each[0] :].reshape(count, *parts)
    large = [cv2.resize(m, (columns, rows), interpolation=cv2.INTER_LINEAR) for m in moving]
    return tuple(Look(p, _plane(m), _plane(d**2)) for p, m, d in zip(pictures, large, detail, strict=True))


def _coded(levels: Plane) -> bytes:
    return bytes(np.clip(np.rint(levels * _STEPS), 0, 255).astype(np.uint8).tobytes())


def _plane(values: NDArray[np.floating]) -> Plane:
    return np.asarray(values, np.float32)


def _fitted(plane: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    way = cv2.INTER_AREA if plane.shape[0] > rows else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (columns, rows), interpolation=way), np.float32)


def between(one: Look, other: Look) -> Look:
    """Half of the one and half of the other, as a half second looks that begins between them."""
    change = (one.luma - other.luma) ** 2 / 4
    moving = np.sqrt((one.moving**2 + other.moving**2) / 2 + change)
    return Look(_plane((one.picture + other.picture) / 2), _plane(moving), np.maximum(one.detail, other.detail))


def with_neighbours(looks: tuple[Look, ...]) -> tuple[Look, ...]:
    """Every look, allowed to move as it does from and to its neighbours: clips are played slower, and cut elsewhere."""
    out = []
    for n, look in enumerate(looks):
        near = [looks[m] for m in (n - 1, n + 1) if 0 <= m < len(looks)]
        moving = look.moving**2
        if near:
            change = _plane(np.mean([(look.luma - other.luma) ** 2 for other in near], axis=0))
            around = _plane(np.mean([moving, *(other.moving**2 for other in near)], axis=0))
            moving = _plane(np.maximum(moving, around) + change / 9)
        out.append(Look(look.picture, _plane(np.sqrt(moving)), look.detail))
    return tuple(out)
