"""Say what a media file holds, without ffprobe."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

from safegen.bounds.process import DECODER_MEMORY
from safegen.errors import UnreadableMediaError
from safegen.media.ffmpeg_process import FfmpegProcess, arguments, open_input
from safegen.media.formats import Kind, Source, identify
from safegen.media.images import MAX_FRAME_PIXELS, image_size
from safegen.media.picture_size import displayed_size

MAX_PACKETS: Final = 2_000_000
"""Packets that are listed at most: a day at 24 frames a second, none of which need be more than a byte of the file."""


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
    packets = _packets(source, tolerant=tolerant)
    size = displayed_size(source)
    if size is None:
        raise UnreadableMediaError(
            f"{source.path.name}: cannot be decoded, it is damaged or incomplete", remedy="Fetch or export it again."
        )
    interval = packets.interval()
    return MediaInfo(
        kind="video",
        width=size[0],
        height=size[1],
        frames=packets.count,
        fps=float(1 / interval) if interval > 0 else 0.0,
        duration_s=float(interval * packets.count),
        codec=packets.facts.get("codec_id", "unknown"),
    )


@dataclass(slots=True)
class _Packets:
    """What a list of packets says, without the list: it may be far longer than the file that it comes from.

    ``facts`` of the track, how many packets there are, the first and last presentation times and the first one's
    duration, in ticks.
    """

    facts: dict[str, str] = field(default_factory=dict)
    count: int = 0
    first: int = 0
    last: int = 0
    duration: int = 0

    def note(self, line: str) -> None:
        """Take in one line of the framecrc muxer."""
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            self.facts[name.removesuffix(" 0")] = value.strip()
            return
        fields = line.split(",")
        if len(fields) < 5:  # stream, dts, pts, duration, size, checksum, ...
            return
        start = int(fields[2])
        if not self.count:
            self.first, self.last, self.duration = start, start, int(fields[3])
        self.first, self.last, self.count = min(self.first, start), max(self.last, start), self.count + 1

    def interval(self) -> Fraction:
        """Seconds between two packets. The mean is exact at a constant rate; a lone frame's is its own duration."""
        ticks = Fraction(self.last - self.first, self.count - 1) if self.count > 1 else Fraction(self.duration)
        return ticks * Fraction(self.facts["tb"])


def _packets(source: Source, *, tolerant: bool) -> _Packets:
    """Look at each video packet of a file, without decoding. UnreadableMediaError for more than ``MAX_PACKETS``."""
    node = open_input(source, tolerant=tolerant, max_pixels=MAX_FRAME_PIXELS)["V:0"]
    found = _Packets()
    # The framecrc muxer lists packets in a fixed, documented text form, unlike ffmpeg's messages to people.
    with FfmpegProcess(
        arguments(node.output("pipe:", format="framecrc", vcodec="copy")), memory=DECODER_MEMORY
    ) as process:
        for line in process.lines():
            found.note(line)
            if found.count > MAX_PACKETS:
                raise UnreadableMediaError(
                    f"{source.path.name}: has more than {MAX_PACKETS} frames", remedy="Give a shorter part of it."
                )
        failed = process.finish() != 0
        if why := process.refusal():
            raise UnreadableMediaError(
                f"{source.path.name}: not all of its packets were listed: {why}", remedy="Give a shorter part of it."
            )
        if not found.count or (failed and not tolerant):
            raise UnreadableMediaError(
                f"{source.path.name}: cannot be read, it is damaged, incomplete or has no video "
                f"({process.last_words()})",
                remedy="Fetch or export the file again.",
            )
    return found
