"""What a player shows besides the frames that are read: further tracks and pictures, layers, times."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen import media
from safegen.errors import InputError, UnreadableMediaError
from safegen.media.ffmpeg_process import executable
from safegen.media.presentation import presentation

FRAMES = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), np.uint8)
PICTURE = Image.fromarray(FRAMES[0])


def ffmpeg(*args: object) -> None:
    subprocess.run([executable(), "-loglevel", "error", "-y", *map(str, args)], check=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    media.encode_video(FRAMES, 12, path)
    return path


def test_a_plain_clip_shows_nothing_else(clip: Path) -> None:
    found = presentation(clip)
    assert (found.beyond, found.audio) == ((), False)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_second_video_track(clip: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"two.{ending}"
    ffmpeg("-i", clip, "-i", clip, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:1", "default", target)
    assert "2 video tracks" in presentation(target).beyond[0]


def hide_borders(path: Path) -> None:
    """Ask players to show the left half of the 64 x 48 picture: a clean aperture box (ISO 14496-12, 12.1.4)."""
    data = bytearray(path.read_bytes())
    moov = data.index(b"moov")
    assert data.index(b"mdat") < moov, "else the offsets of the frames would have to be moved"
    box = struct.pack(">I4s8I", 40, b"clap", 32, 1, 48, 1, 2**32 - 16, 1, 0, 1)
    parents = [data.index(name, moov) - 4 for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")]
    end = parents[-1] + struct.unpack_from(">I", data, parents[-1])[0]
    for at in parents:
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(box))
    path.write_bytes(data[:end] + box + data[end:])


def test_borders_that_the_container_hides_may_be_shown(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "hidden.mp4"
    ffmpeg("-i", clip, "-c", "copy", target)
    assert presentation(target).beyond == ()
    hide_borders(target)
    assert next(iter(media.decode(target))).shape == (48, 32, 3)
    assert "hides the borders" in presentation(target).beyond[0]
    ffmpeg("-i", target, "-c", "copy", tmp_path / "hidden.mkv")
    assert "hides the borders" in presentation(tmp_path / "hidden.mkv").beyond[0]


def test_sound(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", clip, "-f", "lavfi", "-i", "sine=duration=2", "-c:v", "copy", "-c:a", "aac", tmp_path / "sound.mp4")
    found = presentation(tmp_path / "sound.mp4")
    assert (found.beyond, found.audio) == ((), True)


def test_frames_that_flash_by_before_one_that_stays(clip: Path, tmp_path: Path) -> None:
    """25 frames in 25 milliseconds, and something else for the rest of the time."""
    target = tmp_path / "uneven.mkv"
    ffmpeg(
        "-i",
        clip,
        "-vf",
        "setpts='if(lt(N,20),N*0.001,(N-19)*1)/TB'",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "1:1000",
        target,
    )
    assert "far longer" in presentation(target).beyond[0]


def test_honest_uneven_times_pass(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "dropped.mkv"
    ffmpeg("-i", clip, "-vf", r"select='not(between(mod(n\,6)\,1\,3))'", "-fps_mode", "vfr", target)
    assert presentation(target).beyond == ()


def test_animations_and_further_pictures(tmp_path: Path) -> None:
    others = [Image.fromarray(frame) for frame in FRAMES[1:4]]
    for name, options in (
        ("clip.webp", {}),
        ("clip.png", {}),
        ("hidden.png", {"default_image": True}),
        ("clip.mpo", {}),
    ):
        PICTURE.save(tmp_path / name, save_all=True, append_images=others, **options)
        path = tmp_path / name
        if name.endswith("mpo"):
            path = path.rename(tmp_path / "clip.jpg")
        assert "pictures" in presentation(path).beyond[0], name


def test_what_is_transparent_is_not_what_was_read(tmp_path: Path) -> None:
    clear, solid = PICTURE.copy(), PICTURE.copy()
    clear.putalpha(0)
    solid.putalpha(255)
    clear.save(tmp_path / "clear.png")
    solid.save(tmp_path / "solid.png")
    PICTURE.save(tmp_path / "plain.jpg")
    assert "transparent" in presentation(tmp_path / "clear.png").beyond[0]
    assert presentation(tmp_path / "solid.png").beyond == ()
    assert presentation(tmp_path / "plain.jpg").beyond == ()


def test_what_is_no_media(tmp_path: Path) -> None:
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(UnreadableMediaError):
        presentation(tmp_path / "words.mp4")
    with pytest.raises(InputError):
        presentation(tmp_path / "absent.mp4")
