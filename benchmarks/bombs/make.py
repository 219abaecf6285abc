"""Build the bomb collection: files of at most 10 MB that ask for far more work or memory than they are worth.

python -m benchmarks.bombs.make FOLDER [NAME ...]     # all, or those named
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.bombs import clips, stills

LIMIT: Final = 10_000_000
"""Bytes of a file at most."""

_KEY: Final = ("-g", "1", "-pix_fmt", "yuv420p")


def _clip(source: str, *options: str, suffix: str = ".mp4") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"clip{suffix}")
        clips.encoded(path, source, *options)
        return path.read_bytes()


def _loop(source: str, times: int, *options: str, suffix: str = ".mp4", out: str = "") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder, f"clip{suffix}"), Path(folder, f"loop{out or suffix}")
        clips.encoded(path, source, *options)
        clips.looped(whole, path, times)
        return whole.read_bytes()


def _black(size: str, frames: int, rate: int = 25) -> str:
    return f"color=black:s={size}:r={rate}:d={frames / rate}"


def _small() -> bytes:
    return _clip(_black("64x64", 1), "-frames:v", "1", *_KEY)


def _jpeg() -> bytes:
    return _clip(_black("64x64", 1), "-frames:v", "1", "-c:v", "mjpeg", suffix=".mov")


def _moving(size: str, frames: int) -> str:
    return f"testsrc2=s={size}:r=25:d={frames / 25}"


BOMBS: Final[dict[str, Callable[[], bytes]]] = {
    "png-rgb.png": stills.png,
    "png-rgba.png": lambda: stills.png(colour="rgba"),
    "png-palette.png": lambda: stills.png(colour="palette"),
    "png-grey16.png": lambda: stills.png(colour="grey", bits=16),
    "png-rgb16.png": lambda: stills.png(bits=16),
    "png-wide.png": lambda: stills.png(1 << 26, 1),
    "png-tall.png": lambda: stills.png(1, 1 << 26),
    "png-side.png": lambda: stills.png(1 << 20, 64),
    "png-upright.png": lambda: stills.png(64, 1 << 20),
    "png-five-to-one.png": lambda: stills.png(18000, 3700),
    "png-larger.png": lambda: stills.png(20000, 20000, "grey"),
    "png-ztxt.png": lambda: stills.png_of_text(b"zTXt", 1 << 29),
    "png-ztxt-many.png": lambda: stills.png_of_text(b"zTXt", 1 << 20, 8000),
    "png-itxt.png": lambda: stills.png_of_text(b"iTXt", 1 << 29),
    "png-iccp.png": lambda: stills.png_of_text(b"iCCP", 1 << 29),
    "apng-many.png": lambda: stills.apng(64, 64, 60_000, 1),
    "apng-large.png": lambda: stills.apng(4096, 4096, 150, 4096),
    "jpeg-large.jpg": lambda: stills.picture("JPEG"),
    "jpeg-progressive.jpg": lambda: stills.picture("JPEG", progressive=True),
    "jpeg-noise.jpg": lambda: stills.noise(stills.SIDE),
    "jpeg-scans.jpg": lambda: stills.jpeg_of_scans(4096, 20_000),
    "webp-large.webp": lambda: stills.picture("WEBP", lossless=True),
    "webp-lossy.webp": lambda: stills.picture("WEBP", quality=10),
    "webp-48m.webp": lambda: stills.picture("WEBP", 7094, lossless=True),
    "webp-frames.webp": lambda: stills.webp_animation(2048, 20_000),
    "avif-large.avif": lambda: stills.picture("AVIF", speed=10, quality=10),
    "gif-canvas.gif": lambda: stills.gif(8192, 8192, 300_000, 1),
    "gif-large.gif": lambda: stills.gif(8192, 8192, 60, 8192),
    "gif-8k.gif": lambda: stills.gif(7680, 4320, 60, 4320),
    "gif-many.gif": lambda: stills.gif(16, 16, 400_000, 1),
    "gif-middle.gif": lambda: stills.gif(2048, 2048, 1200, 2048),
    "h264-large.mp4": lambda: _loop(_moving("4096x2304", 2), 40, "-preset", "ultrafast", "-crf", "45", *_KEY),
    "h264-black-4k.mp4": lambda: _loop(_black("4096x4096", 50), 80, "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "h264-black-8k.mp4": lambda: _loop(_black("8192x8192", 10), 44, "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "h264-refers-8k.mp4": lambda: _loop(_black("7680x4320", 25), 8, "-preset", "ultrafast", "-refs", "16", "-pix_fmt",
                                        "yuv420p"),
    "h264-few-8k.mp4": lambda: _clip(_moving("7680x4320", 6), "-preset", "ultrafast", "-crf", "40", *_KEY),
    "h264-tiny-many.mp4": lambda: _loop(_black("16x16", 20000), 18, "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "h264-fast.mp4": lambda: _clip(_black("64x64", 200_000, 1000), "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "h264-narrow.mp4": lambda: _loop(_black("16x8192", 100), 50, "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    "mp4-bytes.mp4": lambda: clips.one_byte_samples(_jpeg(), 9_000_000, 9_000_000),
    "mp4-promised.mp4": lambda: clips.one_byte_samples(_jpeg(), 500_000_000, 1000),
    "mp4-table.mp4": lambda: clips.wide_table(_small(), 1_200_000),
    "mp4-table-large.mp4": lambda: clips.wide_table(
        _clip(_black("8192x8192", 1), "-frames:v", "1", "-preset", "ultrafast", *_KEY), 1_000_000
    ),
    "mp4-deep.mp4": lambda: clips.deep(_small(), 1_000_000),
    "mp4-boxes.mp4": lambda: clips.many_boxes(_small(), 1_200_000),
    "mjpeg-large.mkv": lambda: _loop(_black("8192x8192", 2), 6, "-c:v", "mjpeg", "-q:v", "31", suffix=".mkv"),
    "mjpeg-large.avi": lambda: _loop(_black("8192x8192", 2), 6, "-c:v", "mjpeg", "-q:v", "31", suffix=".avi"),
    "ffv1-large.mkv": lambda: _loop(_black("8192x8192", 2), 36, "-c:v", "ffv1", "-g", "2", suffix=".mkv"),
    "png-video.mkv": lambda: _loop(_black("8192x8192", 2), 12, "-c:v", "png", suffix=".mkv"),
    "vp9-black.webm": lambda: _loop(_black("4096x4096", 20), 80, "-c:v", "libvpx-vp9", "-deadline", "realtime",
                                    "-cpu-used", "8", suffix=".webm"),
    "h264-black.mkv": lambda: _loop(_black("4096x4096", 50), 80, "-preset", "ultrafast", "-pix_fmt", "yuv420p",
                                    suffix=".mkv"),
    "tiny-many.mkv": lambda: _loop(_black("16x16", 20000), 18, "-preset", "ultrafast", "-pix_fmt", "yuv420p",
                                   suffix=".mkv"),
    "audio-long.mp4": lambda: _clip("anullsrc=r=8000:cl=mono", "-f", "lavfi", "-i", _black("64x64", 25), "-map", "0:a",
                                    "-map", "1:v", "-c:a", "aac", "-b:a", "8k", "-t", "40000", "-pix_fmt", "yuv420p"),
    "audio-long.mkv": lambda: _clip("anullsrc=r=8000:cl=mono", "-f", "lavfi", "-i", _black("64x64", 25), "-map", "0:a",
                                    "-map", "1:v", "-c:a", "flac", "-t", "40000", "-pix_fmt", "yuv420p", suffix=".mkv"),
    "c2pa-nested.mp4": lambda: clips.credential(_small(), clips.nested_jumbf(100_000)),
    "c2pa-wide.mp4": lambda: clips.credential(_small(), clips.jumbf(clips.jumbf(b"") * 200_000)),
    "c2pa-zeros.mp4": lambda: clips.credential(_small(), clips.jumbf(bytes(9_000_000))),
    "c2pa-many.mp4": lambda: clips.credential(_small(), clips.jumbf(b"", b"urn:c2pa:x") * 150_000),
}  # fmt: skip


def build(folder: Path, names: list[str]) -> list[Path]:
    """Write the named bombs, or all, and return their paths. ValueError for one that has grown too large."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names or list(BOMBS):
        path = folder / name
        data = BOMBS[name]()
        if len(data) > LIMIT:
            raise ValueError(f"{name} has {len(data)} bytes")
        path.write_bytes(data)
        paths.append(path)
        print(f"{name}: {len(data)} bytes", flush=True)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    build(arguments.folder, arguments.names)
