"""Real encoders: frames through ffmpeg and back. One thread each, so that the same frames give the same bytes."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safegen.media.ffmpeg_process import executable

Frames = NDArray[np.uint8]

SECONDS = 300  # for one run of ffmpeg; a clip of a few seconds takes well under one
_QUIET = ("-nostdin", "-hide_banner", "-loglevel", "error")
_ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": ("-c:v", "libx264", "-threads", "1"),
    "h264rgb": ("-c:v", "libx264rgb", "-threads", "1"),
    "h265": ("-c:v", "libx265", "-x265-params", "log-level=error:pools=none:frame-threads=1"),
    "vp9": ("-c:v", "libvpx-vp9", "-threads", "1"),
    "av1": ("-c:v", "libsvtav1", "-svtav1-params", "lp=1"),
}
# Explicitly BT.709 both ways: ffmpeg would otherwise guess the matrix from the size of the picture.
_TO_YUV = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
_TO_RGB = "scale=in_color_matrix=bt709:in_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24"


def run_ffmpeg(arguments: list[str], data: bytes = b"") -> bytes:
    """Run ffmpeg with ``data`` as its input and return its output; RuntimeError with its words if it fails."""
    done = subprocess.run(
        [executable(), *_QUIET, "-y", *arguments], input=data, capture_output=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ffmpeg: {done.stderr.decode('utf-8', 'replace').strip()[-800:]}")
    return done.stdout


def raw_input(frames: Frames, fps: float, source: str = "pipe:0") -> list[str]:
    """ffmpeg's arguments for raw RGB frames."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", source]


def transcode(frames: Frames, fps: float, codec: str, crf: int | None) -> Frames:
    """Encode with ``codec`` at ``crf`` (None: the encoder's default, for VP9 32) and decode again: as many frames.

    Odd edges are padded by repetition, as players and encoders do, and cut off again.
    """
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    options = list(_ENCODERS[codec]) + ([] if crf is None else ["-crf", str(crf)])
    rgb = codec == "h264rgb"
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clip.mkv")
        there = ["-vf", "format=rgb24" if rgb else _TO_YUV, *options, "-an", path]
        run_ffmpeg([*raw_input(even, fps), *there], even.tobytes())
        back = ["-vf", "format=rgb24" if rgb else _TO_RGB, "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]
        data = run_ffmpeg(["-i", path, *back])
    decoded = np.frombuffer(data, np.uint8)
    if decoded.size != even.size:
        raise RuntimeError(f"{codec} gave {decoded.size / even[0].size:.1f} frames for {len(even)}")
    return np.ascontiguousarray(decoded.reshape(even.shape)[:, :height, :width])
