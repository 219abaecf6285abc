"""Still images and animations that are small as files and large, or very much work, once they are read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image

SIDE: Final = 8192
"""Pixels along each side of a large picture: the most that safegen reads (``media.images.MAX_FRAME_PIXELS``)."""

_COLOURS: Final = {"grey": (0, 1), "rgb": (2, 3), "palette": (3, 1), "rgba": (6, 4)}  # PNG's colour type, channels


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _rows(width: int, height: int, depth: int) -> bytes:
    """Compressed rows of zeros, ``depth`` bytes a pixel."""
    packer = zlib.compressobj(9)
    row = 1 + width * depth
    block = bytes(max(row, (1 << 20) // row * row))
    whole, rest = divmod(row * height, len(block))
    return b"".join([*(packer.compress(block) for _ in range(whole)), packer.compress(bytes(rest)), packer.flush()])


def zeros(count: int) -> bytes:
    """Compressed zeros: a thousandth of ``count`` bytes."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(count >> 20)), packer.flush()])


def png(
    width: int = SIDE, height: int = SIDE, colour: str = "rgb", bits: int = 8, before: bytes = b"", frames: bytes = b""
) -> bytes:
    """An even PNG; ``before`` are chunks ahead of the pixels, ``frames`` an animation's behind them."""
    kind, channels = _COLOURS[colour]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    palette = _chunk(b"PLTE", bytes(3)) if colour == "palette" else b""
    pixels = _chunk(b"IDAT", _rows(width, height, channels * bits // 8))
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + palette + before + pixels + frames + _chunk(b"IEND", b"")
    )  # fmt: skip


def apng(width: int, height: int, count: int, frame_side: int) -> bytes:
    """A PNG of ``count`` frames, each a square of ``frame_side`` pixels on the whole canvas."""
    body = _rows(frame_side, frame_side, 3)

    def frames() -> Iterator[bytes]:
        yield _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 25, 0, 0))
        for n in range(1, count):
            place = struct.pack(">IIIIIHHBB", 2 * n - 1, frame_side, frame_side, 0, 0, 1, 25, 0, 0)
            yield _chunk(b"fcTL", place) + _chunk(b"fdAT", struct.pack(">I", 2 * n) + body)

    first, *later = frames()
    return png(width, height, before=_chunk(b"acTL", struct.pack(">II", count, 0)) + first, frames=b"".join(later))


def png_of_text(chunk: bytes, size: int, copies: int = 1) -> bytes:
    """A small PNG whose text or profile unpacks to ``size`` bytes, ``copies`` times."""
    packed = zeros(size)
    head = {b"zTXt": b"Comment\0\0", b"iCCP": b"profile\0\0", b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0"}[chunk]
    return png(256, 256, before=_chunk(chunk, head + packed) * copies)


def picture(kind: str, side: int = SIDE, **options: object) -> bytes:
    """An even picture of Pillow's format ``kind``."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 60)).save(out, kind, **options)
    return out.getvalue()


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that repeats one of its last scans: each is a few hundred bytes and a pass over all blocks."""
    whole = picture("JPEG", side, progressive=True, quality=30)
    starts = [at for at in range(len(whole) - 1) if whole[at : at + 2] == b"\xff\xda"]
    last = whole[starts[-1] : -2]
    return whole[:-2] + last * scans + whole[-2:]


def gif(width: int, height: int, count: int, frame_side: int) -> bytes:
    """A GIF of ``count`` frames of ``frame_side`` pixels a side, on a canvas of ``width`` x ``height``."""
    control = b"\x21\xf9\x04\x00\x04\x00\x00\x00"
    place = b"\x2c" + struct.pack("<HHHHB", 0, 0, frame_side, frame_side, 0)
    frame = control + place + _lzw(frame_side * frame_side)
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * count + b"\x3b"
    )  # fmt: skip


def _lzw(pixels: int) -> bytes:
    """GIF's coding of ``pixels`` zeros, each code a run that is one longer than the last."""
    codes, width, free, run, left = [(4, 3)], 3, 6, 1, pixels
    while left:
        if run == 1:
            codes.append((0, width))
            left, run, free = left - 1, 2, 6
            continue
        if left < run or free > 4095:
            codes.append((4, width))
            width, run = 3, 1
            continue
        codes.append((free, width))
        left, run, free = left - run, run + 1, free + 1
        width = min(12, max(width, free.bit_length() if free & (free - 1) == 0 else width))
    codes.append((5, width))
    value, at = 0, 0
    out = bytearray()
    for code, bits in codes:
        value |= code << at
        at += bits
        while at >= 8:
            out.append(value & 255)
            value, at = value >> 8, at - 8
    out.append(value)
    blocks = (bytes(out[n : n + 255]) for n in range(0, len(out), 255))
    return b"\x02" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def webp_animation(side: int, count: int) -> bytes:
    """An animated WebP of ``count`` even frames that differ in one level, so that none is dropped."""
    still = [_vp8l(Image.new("RGB", (side, side), (level, 0, 0))) for level in (10, 20)]
    size = (side - 1).to_bytes(3, "little")
    frames = [
        _riff(b"ANMF", bytes(6) + size + size + (40).to_bytes(3, "little") + b"\0" + still[n % 2]) for n in range(count)
    ]
    body = _riff(b"VP8X", b"\x02\0\0\0" + size + size) + _riff(b"ANIM", bytes(6)) + b"".join(frames)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _vp8l(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True)
    return out.getvalue()[12:]


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def noise(side: int, seed: int = 0) -> bytes:
    """A JPEG with something in it, about three bits a pixel."""
    levels = np.random.default_rng(seed).integers(0, 255, (side // 8, side // 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=45)
    return out.getvalue()
