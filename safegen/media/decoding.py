"""Read frames out of video and image files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from safegen.bounds.process import DECODER_MEMORY
from safegen.bounds.timelimit import check_time
from safegen.errors import UnreadableMediaError
from safegen.media.ffmpeg_process import FfmpegProcess, arguments, open_input
from safegen.media.formats import Source, identify
from safegen.media.images import load_image
from safegen.media.probing import first_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VIDEO_PIXELS = 4096 * 2304
"""Pixels of a frame of video that is decoded: 4K. Decoders hold dozens of frames, so 8K takes them gigabytes."""

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
        UnreadableMediaError: not media, truncated or damaged, or video beyond 4K; raised late where damage lies behind
            good frames.
        MediaError: ffmpeg could not be run.
    """
    source = identify(path)
    if source.kind == "image":
        return iter([load_image(source)])
    return _decode_video(source, tolerant=tolerant)


def _decode_video(source: Source, *, tolerant: bool) -> Iterator[NDArray[np.uint8]]:
    node = open_input(source, tolerant=tolerant, max_pixels=MAX_VIDEO_PIXELS)["V:0"]
    # Portable pixmaps, since each carries its own size: nothing has to be guessed from ffmpeg's messages.
    output = node.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24", fps_mode="passthrough")
    count = 0
    with FfmpegProcess(arguments(output), memory=DECODER_MEMORY) as process:
        while True:
            with process.waiting():
                frame = _read_pixmap(process.stdout)
            if frame is None:
                break
            count += 1
            yield frame
            check_time()
        failed = process.finish() != 0
        if count == 0 and math.prod(first_size(source)) > MAX_VIDEO_PIXELS:
            raise UnreadableMediaError(
                f"{source.path.name}: its pictures are larger than {MAX_VIDEO_PIXELS} pixels, the most for video",
                remedy="Scale it down to 4K.",
            )
        if count == 0 or (failed and not tolerant):
            raise UnreadableMediaError(
                f"{source.path.name}: cannot be decoded, it is damaged or incomplete ({process.last_words()})",
                remedy="Fetch or export the file again.",
            )


def _read_pixmap(pipe: IO[bytes]) -> NDArray[np.uint8] | None:
    """Read one binary PPM as ffmpeg writes it (``P6\\n<w> <h>\\n255\\n``); None at the end or where it breaks off."""
    magic, size, depth = (pipe.readline(_HEADER_LIMIT) for _ in range(3))
    if magic != b"P6\n" or depth != b"255\n":
        return None
    width, height = (int(n) for n in size.split())
    frame = np.empty((height, width, 3), np.uint8)
    whole: bool = pipe.readinto(frame.reshape(-1)) == frame.size  # type: ignore[attr-defined]  # a BufferedReader
    return frame if whole else None
