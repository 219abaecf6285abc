"""Visible labels: "AI GENERATED" and its like, drawn onto a clip's frames on an opaque plate.

What each law asks, and why a label stands on every frame, is in docs/labels.md.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from safegen.errors import InputError, MediaError
from safegen.types import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFont import FreeTypeFont

LETTER_SHARE: Final = 0.06
"""Height of the lowest character, as a share of the frame's shorter side. GB 45438-2025 asks for 5 % and does not say
whether of the ink, the capital or the em box: six per cent of the lowest ink holds under each reading."""

MIN_LETTERS: Final = 10
"""Pixels: below this, Chinese characters run together."""

MARGIN_SHARE: Final = 0.03
"""Distance from the frame's edges, as a share of its shorter side."""

_INK: Final = 128  # a pixel of a character counts as ink from half coverage on
_FONT_SIZES: Final = 4096

Corner = Literal["top right", "bottom left"]


@dataclass(frozen=True, slots=True)
class Wording:
    """What one law's label says, and in which corner it stands. ``modified`` is for a changed source clip."""

    generated: str
    modified: str
    corner: Corner


WORDINGS: Final = {
    "eu": Wording("AI GENERATED", "AI MODIFIED", "top right"),
    "cn": Wording("AI生成", "AI生成", "bottom left"),
    "in": Wording("AI-GENERATED", "AI-GENERATED", "bottom left"),
}
"""The labels by the name that policies and ``--label`` use."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label as it is drawn: its law and text, the lowest character's height and the plate's place, in pixels."""

    law: str
    text: str
    letters: int
    top: int
    left: int
    height: int
    width: int

    def to_json(self) -> dict[str, Json]:
        """Return what the ledger keeps of it."""
        box: Json = [self.left, self.top, self.width, self.height]
        return {"law": self.law, "text": self.text, "letters": self.letters, "box": box, "frames": "all"}


class Overlay:
    """The labels of one clip, ready to be drawn onto its frames. Same labels and size: same pixels."""

    def __init__(self, laws: Sequence[str], height: int, width: int, *, modified: bool = False) -> None:
        """Lay the labels out for frames of ``height`` x ``width`` pixels.

        Raises InputError for an unknown law, or where the labels do not fit into the frame; MediaError if the font is
        missing.
        """
        self._size = (height, width)
        letters = max(math.ceil(LETTER_SHARE * min(height, width)), MIN_LETTERS)
        margin = math.ceil(MARGIN_SHARE * min(height, width))
        self._patches: list[tuple[Label, NDArray[np.uint8]]] = []
        taken: dict[Corner, int] = {"top right": margin, "bottom left": margin}
        for law in check_laws(laws):
            wording = WORDINGS[law]
            text = wording.modified if modified else wording.generated
            plate, lowest = _plate(text, letters)
            tall, wide = int(plate.shape[0]), int(plate.shape[1])
            away = taken[wording.corner]
            taken[wording.corner] = away + tall + margin
            if wording.corner == "top right":
                top, left = away, width - margin - wide
            else:
                top, left = height - away - tall, margin
            self._patches.append((Label(law, text, lowest, top, left, tall, wide), plate))
        too_wide = any(label.width + 2 * margin > width for label in self.labels)
        if too_wide or sum(taken.values()) > height:
            raise InputError(
                f"A frame of {width}x{height} pixels is too small for legible labels: {', '.join(laws)}.",
                remedy="Use a larger size, or fewer labels.",
            )

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels in the order they were asked for."""
        return tuple(label for label, _ in self._patches)

    def draw(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of a uint8 RGB frame [H, W, 3] with the labels on it; InputError for another size or dtype."""
        if frame.shape != (*self._size, 3) or frame.dtype != "uint8":
            raise InputError(f"a frame must be uint8 [{self._size[0]}, {self._size[1]}, 3], not {frame.shape}")
        drawn = frame.copy()
        for label, plate in self._patches:
            drawn[label.top : label.top + label.height, label.left : label.left + label.width] = plate
        return drawn


def check_laws(laws: Sequence[str]) -> tuple[str, ...]:
    """Return the laws without repetition, in the order given; InputError for an unknown one."""
    for law in laws:
        if law not in WORDINGS:
            raise InputError(f"There is no label {law!r}.", remedy=f"Labels: {', '.join(WORDINGS)}.")
    return tuple(dict.fromkeys(laws))


def _plate(text: str, letters: int) -> tuple[NDArray[np.uint8], int]:
    """Draw white text on black, its lowest character at least ``letters`` pixels high; the height comes along."""
    size = letters
    while (lowest := min(_ink_height(c, _font(size)) for c in text if c not in " -")) < letters:
        size += 1
    font = _font(size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    padding = max(2, math.ceil(letters / 3))
    image = Image.new("L", (right - left + 2 * padding, bottom - top + 2 * padding))
    ImageDraw.Draw(image).text((padding - left, padding - top), text, fill=255, font=font)
    return np.repeat(np.asarray(image, dtype=np.uint8)[:, :, None], 3, axis=2), lowest


def _ink_height(character: str, font: FreeTypeFont) -> int:
    side = 2 * math.ceil(font.size)
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((2, 2), character, fill=255, font=font)
    rows = np.flatnonzero((np.asarray(image) >= _INK).any(axis=1))
    return int(rows[-1] - rows[0] + 1) if len(rows) else 0


def _font(size: int) -> FreeTypeFont:
    try:
        if size > _FONT_SIZES:
            raise MediaError(f"a font of {size} pixels is larger than any frame")
        data = io.BytesIO(files("safegen.media").joinpath("fonts/labels.otf").read_bytes())
        # The basic layout: the other one needs a library that not every Pillow brings, and places text differently.
        return ImageFont.truetype(data, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise MediaError(f"the labels' font cannot be read: {error}", remedy="Reinstall safegen.") from error
