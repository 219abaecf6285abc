"""Read frames out of video and image files."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from safegen.bounds.process import DECODER_MEMORY
from safegen.bounds.timelimit import check_time
from safegen.errors import UnreadableMediaError
from safegen.media.ffmpeg_process import FfmpegProcess, arguments, open_input
from safegen.media.formats import Source, identify
from safegen.media.images import MAX_FRAME_PIXELS, load_image
from safegen.media.picture_size import displayed_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE_PIXELS = 2**23
"""Pixels of a frame up to which ffmpeg hands it over as a whole: 4K. It holds up to seven copies as RGB on their way,
and so larger frames come in STRIPS, of which it holds as many."""

LARGE_MEMORY = 760 << 20
"""Memory that one such frame and the ffmpeg that decodes it may use, in bytes: of 8K, the five frames that H.264 lets
it refer to, and those on their way."""

STRIPS = 16
_ROWS, _COLUMNS = 4, 8  # chroma of every pixel format divides by these
_HEADER_LIMIT = 32


def decode(path: Path | str, *, tolerant: bool = False) -> Iterator[NDArray[np.uint8]]:
    """Yield a file's frames in display order as uint8 RGB [H, W, 3]; a still image yields one.

    Holds one frame at a time. Every coded frame comes exactly once, whatever its time stamp; rotation is applied.

    Args:
        path: an MP4/MOV, MKV/WebM, AVI, GIF, PNG, JPEG, WebP, AVIF or HEIC file.
        tolerant: go on past damage where ffmpeg can conceal it, instead of refusing the file (for looking at
            tampered files).

    Raises:
        InputError: no such file.
        TimeLimitError: a time limit (``safegen.bounds.timelimit``) is over.
        UnreadableMediaError: not media, truncated or damaged; raised late where damage lies behind good frames. Also,
            ``tolerant`` or not, where a frame was not decoded because of our own bounds of size and memory.
        MediaError: ffmpeg could not be run.
    """
    source = identify(path)
    if source.kind == "image":
        return iter([load_image(source)])
    return _decode_video(source, tolerant=tolerant)


def _decode_video(source: Source, *, tolerant: bool) -> Iterator[NDArray[np.uint8]]:
    larger = yield from _frames(source, None, tolerant=tolerant)
    if larger:
        yield from _frames(source, larger, tolerant=tolerant)


def _frames(
    source: Source, size: tuple[int, int] | None, *, tolerant: bool
) -> Generator[NDArray[np.uint8], None, tuple[int, int] | None]:
    """Frames of up to WHOLE_PIXELS, or larger ones that all have ``size`` (width, height).

    Returns the size to ask for, where without one no frame came because the first is larger.
    """
    node = open_input(source, tolerant=tolerant, max_pixels=MAX_FRAME_PIXELS if size else WHOLE_PIXELS)["V:0"]
    # Portable pixmaps, since each carries its own size: nothing has to be guessed from ffmpeg's messages.
    output = node.output(
        "pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24", fps_mode="passthrough", thread_queue_size=1,
        **({"vf": _in_strips(*size)} if size else {}),
    )  # fmt: skip
    count = 0
    memory = LARGE_MEMORY - 3 * size[0] * size[1] if size else DECODER_MEMORY
    with FfmpegProcess(arguments(output), memory=memory) as process:
        while True:
            with process.waiting():
                frame = _read_strips(process.stdout, size) if size else _read_pixmap(process.stdout)
            if frame is None:
                break
            count += 1
            yield frame
            del frame  # before the next one is read: it may be 200 MB
            check_time()
        failed = process.finish() != 0
        if not count and not size:
            first = displayed_size(source)
            if first and first[0] * first[1] > WHOLE_PIXELS:
                return first
        if why := process.refusal():
            raise UnreadableMediaError(
                f"{source.path.name}: not all of it was decoded: {why}", remedy="Give a version with smaller pictures."
            )
        if count == 0 or (failed and not tolerant):
            raise UnreadableMediaError(
                f"{source.path.name}: cannot be decoded, it is damaged or incomplete ({process.last_words()})",
                remedy="Fetch or export the file again.",
            )
    return None


def _padded(width: int, height: int) -> tuple[int, int]:
    """The next size that divides into strips whose chroma lies on whole pixels."""
    high = STRIPS * _ROWS
    return -(-width // _COLUMNS) * _COLUMNS, -(-height // high) * high


def _in_strips(width: int, height: int) -> str:
    """The filter that cuts frames of this size into STRIPS, from above. They are parts of the frame and no copies."""
    padded = _padded(width, height)
    pad = "" if padded == (width, height) else f"pad={padded[0]}:{padded[1]},"  # a copy of each frame
    return f"{pad}untile=1x{STRIPS}"


def _read_pixmap(pipe: IO[bytes]) -> NDArray[np.uint8] | None:
    """Read one binary PPM; None at the end or where it breaks off."""
    size = _read_header(pipe)
    if size is None:
        return None
    frame = np.empty((size[1], size[0], 3), np.uint8)
    return frame if _fill(frame, pipe) else None


def _read_strips(pipe: IO[bytes], size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Read one frame of ``size`` (width, height) in strips; None at the end or where it breaks off."""
    width, height = _padded(*size)
    frame = np.empty((height, width, 3), np.uint8)
    for strip in np.split(frame, STRIPS):
        found = _read_header(pipe)
        if found is not None and found != (width, len(strip)):
            raise UnreadableMediaError("the picture size changes within the clip")
        if found is None or not _fill(strip, pipe):
            return None
    return np.ascontiguousarray(frame[: size[1], : size[0]])


def _read_header(pipe: IO[bytes]) -> tuple[int, int] | None:
    """Read a binary PPM's header as ffmpeg writes it (``P6\\n<w> <h>\\n255\\n``): (width, height)."""
    magic, size, depth = (pipe.readline(_HEADER_LIMIT) for _ in range(3))
    if magic != b"P6\n" or depth != b"255\n":
        return None
    width, height = size.split()
    return int(width), int(height)


def _fill(pixels: NDArray[np.uint8], pipe: IO[bytes]) -> bool:
    """Read ``pixels``, which lie together in memory; whether all of them came."""
    whole: bool = pipe.readinto(pixels.reshape(-1)) == pixels.size  # type: ignore[attr-defined]  # a BufferedReader
    return whole
