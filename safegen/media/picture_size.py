"""How large a video's pictures are, as its first frame says."""

from __future__ import annotations

from safegen.bounds.process import DECODER_MEMORY
from safegen.media.ffmpeg_process import FfmpegProcess, arguments, open_input
from safegen.media.formats import Source
from safegen.media.images import MAX_FRAME_PIXELS

_DIMENSIONS = "#dimensions 0: "


def displayed_size(source: Source, cropping: str = "codec") -> tuple[int, int] | None:
    """(width, height) of the first frame that can be decoded, upright; None where there is none.

    ``cropping``: ``codec``, as all players must, or ``all``, also as the container asks (``clap``, ``PixelCrop``).
    """
    node = open_input(source, tolerant=True, max_pixels=MAX_FRAME_PIXELS, apply_cropping=cropping)["V:0"]
    # A wrapped frame is a reference to it: no pixel is converted or copied.
    output = node.output("pipe:", format="framecrc", vcodec="wrapped_avframe", vframes=1)
    size = None
    with FfmpegProcess(arguments(output), memory=DECODER_MEMORY) as process:
        for line in process.lines():
            if line.startswith(_DIMENSIONS):
                width, _, height = line.removeprefix(_DIMENSIONS).partition("x")
                size = int(width), int(height)
        process.finish()
    return size
