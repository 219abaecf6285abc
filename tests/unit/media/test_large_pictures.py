"""Large pictures of a clip come in strips, and what our bounds of size and memory leave out is never passed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bombs import clips
from safegen import media
from safegen.errors import UnreadableMediaError
from safegen.media.ffmpeg_process import executable


@pytest.mark.parametrize("size", ["160x128", "161x131"])
def test_a_large_picture_comes_in_strips_and_is_the_same(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    made = ("-g", "2", "-c:v", "mpeg4", "-pix_fmt", "yuv420p")
    clips.encoded(path, f"testsrc2=s={size}:r=5:d=0.6", *made)
    whole = list(media.decode(path))
    monkeypatch.setattr("safegen.media.decoding.WHOLE_PIXELS", 1000)
    strips = list(media.decode(path))
    assert len(strips) == len(whole) == 3
    assert np.array_equal(strips, whole)


def test_a_picture_that_grows_beyond_the_first_ones_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large, both = (tmp_path / name for name in ("small.mkv", "large.mkv", "both.mkv"))
    clips.encoded(small, "color=black:s=64x64:r=5:d=0.4", "-c:v", "mjpeg")
    clips.encoded(large, "color=black:s=640x640:r=5:d=0.4", "-c:v", "mjpeg")
    listed = tmp_path / "list.txt"
    listed.write_text(f"file '{small}'\nfile '{large}'\n")
    command = [executable(), "-v", "error", "-f", "concat", "-safe", "0", "-i", str(listed), "-c", "copy", str(both)]
    subprocess.run(command, check=True)
    assert len(list(media.decode(both, tolerant=True))) == 4
    monkeypatch.setattr("safegen.media.decoding.WHOLE_PIXELS", 64 * 64)
    with pytest.raises(UnreadableMediaError, match="not all of it was decoded: a picture is too large"):
        list(media.decode(both, tolerant=True))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process uses")
def test_frames_that_a_decoder_had_no_memory_for_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "refers.mp4"
    made = ("-preset", "ultrafast", "-refs", "16", "-pix_fmt", "yuv420p")
    clips.encoded(path, "color=black:s=2048x2048:r=25:d=2", *made)
    monkeypatch.setattr("safegen.media.decoding.DECODER_MEMORY", 150 << 20)
    with pytest.raises(UnreadableMediaError, match="decoding it takes more than 150 MiB"):
        list(media.decode(path, tolerant=True))
