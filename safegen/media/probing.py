"""Say what a media file holds, without ffprobe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from safegen.errors import UnreadableMediaError
from safegen.media.decoding import decode
from safegen.media.ffmpeg_process import FfmpegProcess, arguments, open_input
from safegen.media.formats import Kind, Source, identify
from safegen.media.images import MAX_FRAME_PIXELS, image_size


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file holds. Sizes in pixels as displayed; a still has one frame, fps 0 and no duration."""

    kind: Kind
    width: int
    height: int
    frames: int
    fps: float
    duration_s: float
    codec: str


def probe(path: Path | str, *, tolerant: bool = False) -> MediaInfo:
    """Read a file's facts: every packet's time stamp, and the first frame, which is really decoded.

    ``fps`` is the mean rate over the clip, exact where the rate is constant.

    Raises:
        InputError: no such file.
        UnreadableMediaError: not media, truncated, or damaged (``tolerant``: only if nothing can be decoded).
        MediaError: ffmpeg could not be run.
    """
    source = identify(path)
    if source.kind == "image":
        width, height = image_size(source)
        return MediaInfo("image", width, height, 1, 0.0, 0.0, source.format.lower())
    codec, time_base, stamps = _packets(source, tolerant=tolerant)
    first = next(decode(path, tolerant=True))
    starts = [pts for pts, _ in stamps]
    # The mean interval is exact at a constant rate; a lone frame has none, so its own duration stands for it.
    ticks = Fraction(max(starts) - min(starts), len(stamps) - 1) if len(stamps) > 1 else Fraction(stamps[0][1])
    interval = ticks * time_base
    return MediaInfo(
        kind="video",
        width=int(first.shape[1]),
        height=int(first.shape[0]),
        frames=len(stamps),
        fps=float(1 / interval) if interval > 0 else 0.0,
        duration_s=float(interval * len(stamps)),
        codec=codec,
    )


def _packets(source: Source, *, tolerant: bool) -> tuple[str, Fraction, list[tuple[int, int]]]:
    """Return codec, time base and (presentation time, duration) of each video packet, without decoding."""
    node = open_input(source, tolerant=tolerant, max_pixels=MAX_FRAME_PIXELS)["V:0"]
    # The framecrc muxer lists packets in a fixed, documented text form, unlike ffmpeg's messages to people.
    with FfmpegProcess(arguments(node.output("pipe:", format="framecrc", vcodec="copy"))) as process:
        with process.waiting():
            text = process.stdout.read()
        failed = process.finish() != 0
        facts, stamps = _parse_framecrc(text.decode("ascii", "replace").splitlines())
        if not stamps or (failed and not tolerant):
            raise UnreadableMediaError(
                f"{source.path.name}: cannot be read, it is damaged, incomplete or has no video "
                f"({process.last_words()})",
                remedy="Fetch or export the file again.",
            )
    return facts.get("codec_id", "unknown"), Fraction(facts["tb"]), stamps


def _parse_framecrc(lines: Iterable[str]) -> tuple[dict[str, str], list[tuple[int, int]]]:
    facts: dict[str, str] = {}
    stamps: list[tuple[int, int]] = []
    for line in lines:
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            facts[name.removesuffix(" 0")] = value.strip()
        else:
            fields = line.split(",")
            if len(fields) >= 5:  # stream, dts, pts, duration, size, checksum, ...
                stamps.append((int(fields[2]), int(fields[3])))
    return facts, stamps
