"""Still images: read, write, and lay out contact sheets."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, features

from safegen.errors import InputError, MediaError, UnreadableMediaError
from safegen.media.encoding import remove_partial
from safegen.media.formats import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Imported where they are used: what not everybody has installed.

MAX_FRAME_PIXELS = 64 * 2**20
"""Pixels of one frame that are read at most (8192 x 8192): a few bytes of file must not claim gigabytes of memory."""

MAX_WEBP_PIXELS = 48 * 2**20
"""The same for WebP, whose decoder holds four copies of the picture."""

MAX_SIDE = 2**20
"""Pixels along one side: Pillow keeps a pointer for every row."""

_ORIENTATION, _TURNED = 0x0112, 5  # from 5 on, width and height change places
_START_OF_SCAN = b"\xff\xda"

_BREAKS = (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, TypeError, KeyError, OverflowError)
"""What Pillow raises on damaged files, by fuzzing."""


HEIC_PACKAGE = "pillow-heif"

MAX_SCANS = 64
"""Scans of a JPEG that are read at most. Encoders write about ten; each is a few bytes, and a pass over all pixels."""

_STRIP_PIXELS = 2**20
_UPRIGHT: Mapping[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""What brings a picture upright, by its orientation (EXIF 2.3, tag 0x0112)."""


def image_size(source: Source) -> tuple[int, int]:
    """Return (width, height) as displayed; decodes the picture, so that damage shows."""
    with _loaded(source) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) >= _TURNED else (width, height)


def load_image(source: Source) -> NDArray[np.uint8]:
    """Read an image file as uint8 RGB [H, W, 3], upright (EXIF) and without its alpha channel.

    Raises:
        UnreadableMediaError: damaged, truncated, larger than ``MAX_FRAME_PIXELS``, or of a format (AVIF, HEIC) that
            needs a decoder which is not installed.
    """
    with _loaded(source) as image:
        upright = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        frame = _to_rgb(image)
    return frame if upright is None else np.ascontiguousarray(upright(frame))


@contextmanager
def _loaded(source: Source) -> Iterator[Image.Image]:
    """The decoded picture. UnreadableMediaError as ``load_image`` says, also for what shows only while it is used."""
    _check_decoder(source)
    try:
        with Image.open(source.path, formats=(source.format,)) as image:
            _check_work(source, image)
            image.load()
            yield image
    except (*_BREAKS, Image.DecompressionBombError) as error:
        raise UnreadableMediaError(
            f"{source.path.name}: cannot be decoded, it is damaged or incomplete ({error})",
            remedy="Fetch or export the file again.",
        ) from error


def hidden_layers(source: Source) -> tuple[str, ...]:
    """What a viewer may show of an image file besides the picture that ``load_image`` reads, a sentence each.

    UnreadableMediaError as ``load_image`` says.
    """
    _check_decoder(source)
    try:
        with Image.open(source.path, formats=_SEQUENCES.get(source.format, (source.format,))) as image:
            _check_work(source, image)
            beyond = []
            pictures = int(getattr(image, "n_frames", 1))
            if pictures > 1:
                beyond.append(f"It holds {pictures} pictures, of which the first was read.")
            elif image.info.get("default_image"):
                beyond.append("It holds a picture that only some programs show.")
            may_be_clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
            if may_be_clear and any(map(_is_clear, _strips(image))):
                beyond.append("Parts of it are transparent: what is behind them is not what was read.")
            return tuple(beyond)
    except (*_BREAKS, Image.DecompressionBombError) as error:
        raise UnreadableMediaError(
            f"{source.path.name}: cannot be decoded, it is damaged or incomplete ({error})",
            remedy="Fetch or export the file again.",
        ) from error


_SEQUENCES = {"JPEG": ("JPEG", "MPO")}
"""Formats that may hide in another's clothes: a JPEG followed by more of them."""


def _check_decoder(source: Source) -> None:
    """UnreadableMediaError, with the remedy, where Pillow has no decoder for a format that not every Pillow reads."""
    if source.format == "AVIF" and not features.check("avif"):
        raise UnreadableMediaError(
            f"{source.path.name}: this Pillow cannot decode AVIF", remedy="Install pillow >= 11.3, or give a PNG."
        )
    if source.format == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise UnreadableMediaError(
                f"{source.path.name}: HEIC pictures need {HEIC_PACKAGE}, which is not installed",
                remedy='pip install "safegen[heic]", or give a PNG or JPEG.',
            ) from error
        register_heif_opener(thumbnails=False)


def _check_work(source: Source, image: Image.Image) -> None:
    """UnreadableMediaError for a picture that asks for more memory or work than any that is meant to be looked at."""
    most = MAX_WEBP_PIXELS if source.format == "WEBP" else MAX_FRAME_PIXELS
    if image.width * image.height > most or max(image.size) > MAX_SIDE:
        raise UnreadableMediaError(
            f"{source.path.name}: {image.width}x{image.height} is more than {most} pixels,"
            f" or than {MAX_SIDE} along one side",
            remedy="Give a smaller version.",
        )
    if source.format == "JPEG" and _scans(source.path) > MAX_SCANS:
        raise UnreadableMediaError(
            f"{source.path.name}: is coded in more than {MAX_SCANS} scans", remedy="Save the picture again."
        )


def _scans(path: Path) -> int:
    """How many scans a JPEG has, those of an embedded preview included: within a scan no such marker can occur."""
    with path.open("rb") as file:
        found, before = 0, b""
        while block := file.read(1 << 20):
            found += (before + block).count(_START_OF_SCAN)
            before = block[-1:]
    return found


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """A loaded picture in strips from above, so that nothing is held twice as a whole."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_clear(strip: Image.Image) -> bool:
    """Whether something can be seen through a part of it."""
    return strip.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    frame = np.empty((image.height, image.width, 3), np.uint8)
    top = 0
    for strip in _strips(image):
        part = frame[top : top + strip.height]
        if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow would clip to white
            part[:] = (np.asarray(strip).astype(np.uint32) // 257).clip(0, 255).astype(np.uint8)[:, :, None]
        else:
            part[:] = np.asarray(strip.convert("RGB"))
        top += strip.height
    return frame


def encode_png(frame: NDArray[np.uint8], path: Path | str) -> None:
    """Write one uint8 RGB frame [H, W, 3] as a PNG without metadata, and fsync it.

    Raises:
        InputError: wrong shape or dtype.
        MediaError: the file could not be written; none is left.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != "uint8" or 0 in frame.shape:
        raise InputError(f"a frame must be a uint8 array [H, W, 3], not {frame.dtype} {frame.shape}")
    path = Path(path)
    try:
        with path.open("wb") as file:
            Image.fromarray(frame).save(file, format="PNG")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remove_partial(path)
        raise MediaError(f"{path}: could not be written: {error}", remedy="Check free disk space.") from error
    except BaseException:
        remove_partial(path)
        raise


def contact_sheet(frames: Iterable[NDArray[np.uint8]], columns: int, *, gap: int = 4) -> NDArray[np.uint8]:
    """Lay frames of one size out in rows of ``columns`` on white, ``gap`` pixels apart; uint8 RGB [H, W, 3]."""
    tiles = list(frames)
    if not tiles or columns < 1 or gap < 0:
        raise InputError("a contact sheet needs at least one frame, one column and a gap of 0 or more")
    height, width = tiles[0].shape[:2]
    if any(tile.shape != (height, width, 3) or tile.dtype != np.uint8 for tile in tiles):
        raise InputError("a contact sheet's frames must be uint8 [H, W, 3] of one size")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def write_contact_sheet(frames: Iterable[NDArray[np.uint8]], columns: int, path: Path | str, *, gap: int = 4) -> None:
    """Write ``contact_sheet`` as a PNG."""
    encode_png(contact_sheet(frames, columns, gap=gap), path)
