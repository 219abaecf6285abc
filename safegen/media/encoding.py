"""Write frames as an H.264 MP4."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ffmpeg
import numpy as np

from safegen.errors import InputError, MediaError
from safegen.media.ffmpeg_process import FfmpegProcess, arguments

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_CRF = 18
"""Visually lossless by x264's own documentation; leaves the in-latent mark the most headroom for later re-encoding."""

_INDEX = 2048
_INDEX_PER_FRAME = 40  # size, composition offset, key frame, chunk and its place: at most 36
"""Bytes that the index of a clip of one track takes at most."""

MAX_CRF = 51
MAX_FPS = 240.0
_THREADS = 4  # fixed, since x264's output depends on it: the same frames give the same bytes on every machine


def encode_video(
    frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
    fps: float,
    path: Path | str,
    *,
    crf: int = DEFAULT_CRF,
    room: int = 0,
    count: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Encode ``frames`` to ``path`` as H.264 in MP4 (yuv420p, BT.709, constant ``fps``, index first) and fsync it.

    Streams: an iterator's frames are never held together. An existing file at ``path`` is replaced. Nothing in the
    file names the encoder or the machine, and the same frames give the same bytes.

    Args:
        frames: uint8 RGB, array [T, H, W, 3] or an iterable of [H, W, 3]; height and width must be even.
        fps: frames per second, above 0 and at most 240.
        path: where to write. On any failure or interrupt no file is left there.
        crf: x264's constant rate factor, 0 (lossless) to 51 (worst).
        room: bytes to keep free between index and media, so that a C2PA manifest can be written into the file in place.
            Without it ffmpeg writes the file twice, to put the index first.
        count: how many frames an iterator yields at most; without it an iterator's file gets no room.
        progress: called with the number of frames handed over so far.

    Raises:
        InputError: no frames, more than ``count``, wrong shape or dtype, odd size, fps or crf out of range.
        MediaError: ffmpeg failed or the disk is full; carries ffmpeg's last lines.
    """
    if not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
        raise InputError(f"fps must lie above 0 and be at most {MAX_FPS:.0f}, not {fps}")
    if not 0 <= crf <= MAX_CRF:
        raise InputError(f"crf must lie between 0 and {MAX_CRF}, not {crf}")
    path = Path(path)
    if count is None and isinstance(frames, Sized):
        count = len(frames)
    reserved = _INDEX + _INDEX_PER_FRAME * count + room if room and count is not None else 0
    iterator = iter(frames) if count is None else _at_most(count, frames)
    first = next(iterator, None)
    if first is None:
        raise InputError("there are no frames to encode")
    height, width = _checked_size(first)
    node = _output_node(path, width, height, Fraction(fps).limit_denominator(100_000), crf, reserved)
    try:
        _run(arguments(node), chain([first], iterator), (height, width), progress)
        _fsync(path)
    except BaseException:  # also KeyboardInterrupt: half a clip must never be taken for a whole one
        remove_partial(path)
        raise


def _at_most(count: int, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    for number, frame in enumerate(frames):
        if number >= count:
            raise InputError(f"there are more than the {count} frames that were announced")
        yield frame


def remove_partial(path: Path) -> None:
    """Delete what a failed write left; never touches anything but a regular file."""
    if path.is_file() and not path.is_symlink():
        path.unlink(missing_ok=True)


def _output_node(path: Path, width: int, height: int, rate: Fraction, crf: int, reserved: int) -> Any:
    raw = ffmpeg.input(
        "pipe:",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=(width, height),
        framerate=f"{rate.numerator}/{rate.denominator}",
        protocol_whitelist="file,pipe",
    )
    yuv = (
        raw.filter("scale", out_color_matrix="bt709", out_range="tv", flags="bicubic+accurate_rnd+full_chroma_int")
        .filter("format", "yuv420p")
        # The encoder takes its tags from the frames, and raw RGB frames bring neither primaries nor transfer.
        .filter("setparams", color_primaries="bt709", color_trc="bt709", colorspace="bt709", range="tv")
    )
    options = {
        "format": "mp4",
        "vcodec": "libx264",
        "crf": crf,
        "preset": "medium",
        "threads": _THREADS,
        **({"moov_size": reserved} if reserved else {"movflags": "+faststart"}),
        # No names of encoder, version or settings: bit-exact mode, no copied tags, and x264's SEI message (type 6) cut.
        "fflags": "+bitexact",
        "flags:v": "+bitexact",
        "map_metadata": -1,
        "metadata:s:v:0": "encoder=",
        "bsf:v": "filter_units=remove_types=6",
    }
    return ffmpeg.output(yuv, f"file:{path.absolute()}", **options).overwrite_output()


def _run(
    args: list[str],
    frames: Iterator[NDArray[np.uint8]],
    size: tuple[int, int],
    progress: Callable[[int], None] | None,
) -> None:
    with FfmpegProcess(args) as process:
        for count, frame in enumerate(frames, start=1):
            if _checked_size(frame) != size:
                raise InputError(f"frame {count - 1} is {frame.shape[:2]}, the first one was {size} (height, width)")
            try:
                with process.waiting():
                    process.stdin.write(np.ascontiguousarray(frame).data)
            except OSError:
                break  # ffmpeg has gone; its exit status and last words follow
            if progress is not None:
                progress(count)
        if process.finish() != 0:
            raise MediaError(
                f"encoding failed: {process.last_words()}",
                remedy="Check free disk space and that the folder can be written to.",
            )


def _checked_size(frame: NDArray[np.uint8]) -> tuple[int, int]:
    shape, dtype = getattr(frame, "shape", None), getattr(frame, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or str(dtype) != "uint8":
        raise InputError(f"a frame must be a uint8 array [H, W, 3], not {dtype} {shape}")
    height, width = int(shape[0]), int(shape[1])
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise InputError(
            f"a clip's width and height must be even (4:2:0 chroma), not {width}x{height}",
            remedy=f"Use {max(2, width - width % 2)}x{max(2, height - height % 2)}.",
        )
    return height, width


def _fsync(path: Path) -> None:
    try:
        if path.stat().st_size == 0:
            raise MediaError("encoding failed: ffmpeg left an empty file")
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise MediaError(f"{path}: could not be written to disk: {error}", remedy="Check free disk space.") from error
