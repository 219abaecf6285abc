"""Clips that are small as files and large, or very much work, once they are read."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from safegen.media.ffmpeg_process import executable


def encoded(path: Path, source: str, *options: str) -> None:
    """Have ffmpeg write what its test source ``source`` (lavfi) shows."""
    command = [executable(), "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, str(path)]
    subprocess.run(command, check=True)


def looped(path: Path, clip: Path, times: int, *options: str) -> None:
    """The packets of ``clip`` again and again."""
    command = [executable(), "-v", "error", "-y", "-stream_loop", str(times), "-i", str(clip), "-c", "copy"]
    subprocess.run([*command, *options, str(path)], check=True)


def box(kind: bytes, *parts: bytes) -> bytes:
    """An ISO base media box."""
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def one_byte_samples(clip: bytes, count: int, there: int) -> bytes:
    """An MP4 whose sample table names ``count`` frames of a byte each in a few bytes; ``there`` of them are there.

    ``clip``: a QuickTime or MP4 file of one frame, of a codec that needs no parser (MJPEG).
    """
    first, entry, track = _parts(clip)
    sample = first + bytes(max(0, there - len(first)))
    head = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomavc1")
    data = box(b"mdat", sample)
    offset = len(head) + 8
    stbl = box(
        b"stbl",
        entry,
        box(b"stts", bytes(4), struct.pack(">III", 1, count, 1)),
        box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, count, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 1, count)),
        box(b"stco", bytes(4), struct.pack(">II", 1, offset)),
    )
    minf = box(b"minf", box(b"vmhd", struct.pack(">IHHHH", 1, 0, 0, 0, 0)), _dinf(), stbl)
    mdhd = box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 25, count, 0x55C4, 0))
    hdlr = box(b"hdlr", bytes(8), b"vide", bytes(13))
    mvhd = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 25, count), bytes(76), struct.pack(">I", 2))
    return head + data + box(b"moov", mvhd, box(b"trak", track, box(b"mdia", mdhd, hdlr, minf)))


def wide_table(clip: bytes, count: int) -> bytes:
    """The same, with a size and a place for every sample: eight bytes each."""
    sample, entry, track = _parts(clip)
    head = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomavc1")
    offset = len(head) + 8
    sizes = struct.pack(">I", len(sample)) * count
    places = struct.pack(">I", offset) * count
    stbl = box(
        b"stbl",
        entry,
        box(b"stts", bytes(4), struct.pack(">III", 1, count, 1)),
        box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, 1, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 0, count), sizes),
        box(b"stco", bytes(4), struct.pack(">I", count), places),
    )
    minf = box(b"minf", box(b"vmhd", struct.pack(">IHHHH", 1, 0, 0, 0, 0)), _dinf(), stbl)
    mdhd = box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 25, count, 0x55C4, 0))
    hdlr = box(b"hdlr", bytes(8), b"vide", bytes(13))
    mvhd = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 25, count), bytes(76), struct.pack(">I", 2))
    return head + box(b"mdat", sample) + box(b"moov", mvhd, box(b"trak", track, box(b"mdia", mdhd, hdlr, minf)))


def deep(clip: bytes, depth: int) -> bytes:
    """``clip`` with boxes nested ``depth`` deep at its end."""
    size = 8 * depth
    return clip + b"".join(struct.pack(">I", size - 8 * n) + b"moov" for n in range(depth))


def many_boxes(clip: bytes, count: int) -> bytes:
    """``clip`` with ``count`` empty boxes at its end."""
    return clip + (struct.pack(">I", 8) + b"free") * count


def credential(clip: bytes, store: bytes) -> bytes:
    """``clip`` with ``store`` in a C2PA box (C2PA 2.2, appendix A.5) behind its ``ftyp``."""
    first = struct.unpack(">I", clip[:4])[0]
    purpose = b"manifest\0" + struct.pack(">Q", 0)
    uuid = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    added = box(b"uuid", uuid, bytes(4), purpose, store)
    at = clip.index(b"stco") + 12  # of its only entry: where the frames lie, which now is further behind
    moved = struct.pack(">I", struct.unpack(">I", clip[at : at + 4])[0] + len(added))
    return clip[:first] + added + clip[first:at] + moved + clip[at + 4 :]


def jumbf(children: bytes, label: bytes = b"c2pa") -> bytes:
    """A JUMBF superbox (ISO/IEC 19566-5) with ``label`` and ``children``."""
    kind = b"c2pa" + bytes.fromhex("00110010800000aa00389b71")
    return box(b"jumb", box(b"jumd", kind, b"\x03", label, b"\0"), children)


def nested_jumbf(depth: int) -> bytes:
    """Superboxes in one another."""
    store = b""
    for _ in range(depth):
        store = jumbf(store)
    return store


def _dinf() -> bytes:
    return box(b"dinf", box(b"dref", bytes(4), struct.pack(">I", 1), box(b"url ", struct.pack(">I", 1))))


def _parts(clip: bytes) -> tuple[bytes, bytes, bytes]:
    """The first coded frame of an MP4 with one frame, its sample description and its track header."""
    at = clip.index(b"mdat") - 4
    sample = clip[at + 8 : at + struct.unpack(">I", clip[at : at + 4])[0]]
    return sample, _named(clip, b"stsd"), _named(clip, b"tkhd")


def _named(clip: bytes, kind: bytes) -> bytes:
    at = clip.index(kind) - 4
    return clip[at : at + struct.unpack(">I", clip[at : at + 4])[0]]
