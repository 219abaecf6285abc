"""What else a player may show of a file than the frames that are read from it, one after the other.

Marks and pictures are judged on the frames of the first video track, each counted once. That is what a person sees
only where there is no second track, picture or layer, and where every frame is shown for about as long as the others.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ffmpeg
import numpy as np

from safegen.bounds.process import DECODER_MEMORY
from safegen.media.ffmpeg_process import FfmpegProcess, arguments, open_input
from safegen.media.formats import Source, identify
from safegen.media.images import MAX_FRAME_PIXELS, hidden_layers
from safegen.media.picture_size import displayed_size
from safegen.media.probing import MAX_PACKETS

LONG: Final = 8.0
"""How much longer than the median a frame may be shown: screen recorders and dropped duplicates stay far below."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """``beyond``: what a player may show besides the frames read, a sentence each. ``audio``: whether it has sound."""

    beyond: tuple[str, ...] = ()
    audio: bool = False


def presentation(path: Path | str) -> Presentation:
    """Look at a file's tracks, layers and times, without decoding its video.

    Raises as ``media.probe`` does for a file that is no media; damage that ffmpeg can conceal is passed over.
    """
    source = identify(path)
    if source.kind == "image":
        return Presentation(hidden_layers(source))
    return _tracks(source)


def _tracks(source: Source) -> Presentation:
    node = open_input(source, tolerant=True, max_pixels=MAX_FRAME_PIXELS)
    beyond = []
    if displayed_size(source, "all") != displayed_size(source):
        beyond.append(
            "Its container hides the borders of the pictures, and a player may show them: they were not read."
        )
    # A matching stream specifier with "?" is optional; sound is listed with a single packet's worth of work.
    videos: dict[int, array[int]] = {}
    kinds: dict[int, str] = {}
    listed = 0
    output = ffmpeg.output(node["V?"], node["a?"], "pipe:", format="framecrc", codec="copy")
    with FfmpegProcess(arguments(output), memory=DECODER_MEMORY) as process:
        for line in process.lines():
            if line.startswith("#media_type "):
                track, _, kind = line.removeprefix("#media_type ").partition(":")
                kinds[int(track)] = kind.strip()
            elif not line.startswith("#"):
                fields = line.split(",")
                if len(fields) < 5:
                    continue
                listed += 1
                if listed > MAX_PACKETS:
                    beyond.append(f"It has more than {MAX_PACKETS} packets, not all of which were listed.")
                    return Presentation(tuple(beyond))
                if kinds.get(number := int(fields[0])) == "video":
                    videos.setdefault(number, array("q")).append(int(fields[2]))
        process.finish()
        if why := process.refusal():
            beyond.append(f"Not all of its packets were listed: {why}.")
    count = sum(kind == "video" for kind in kinds.values())
    if count > 1:
        beyond.append(f"It has {count} video tracks, of which the first was read: a player may show another.")
    if videos and _is_uneven(next(iter(videos.values()))):
        beyond.append("Some frames are shown far longer than others, but all were read as if they were not.")
    return Presentation(tuple(beyond), "audio" in kinds.values())


def _is_uneven(stamps: array[int]) -> bool:
    """Whether a frame is shown LONG times as long as most are."""
    steps = np.diff(np.sort(np.frombuffer(stamps, np.int64)))
    return bool(len(steps)) and float(steps.max()) > LONG * max(float(np.median(steps)), 1.0)
