"""Decoding: good files of every kind, and files named by their defect."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from safegen import media
from safegen.errors import InputError, SafegenError, UnreadableMediaError
from safegen.media import images
from safegen.media.formats import identify

Frames = NDArray[np.uint8]


@pytest.fixture(scope="module")
def clip() -> Frames:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([np.stack([x * 3, y * 4, x + y + 5 * t], -1) for t in range(10)]).astype(np.uint8)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory, clip: Frames) -> Path:
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    media.encode_video(clip, 16, path)
    return path


@pytest.mark.parametrize(
    "name",
    ["with space.mp4", "ünïcödé 影片.mp4", "-leading-dash.mp4", "a%03d.mp4", "http:x.mp4", "concat:a|b.mp4", "n"],
)
def test_odd_names_work(tmp_path: Path, mp4: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(mp4.read_bytes())
    assert media.read_clip(name).frames.shape == (10, 48, 64, 3)
    assert media.probe(Path(name)).frames == 10


def test_odd_names_can_be_written(tmp_path: Path, clip: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-out 影%d.mp4", "pipe:x.mp4"):
        media.encode_video(clip, 16, name)
        assert media.probe(name).frames == 10


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_images_are_clips_of_one_frame(tmp_path: Path, clip: Frames, name: str, kind: str) -> None:
    path = tmp_path / f"still.{name}"
    Image.fromarray(clip[0]).save(path, format=kind, quality=95)
    back = media.read_clip(path)
    assert back.frames.shape == (1, 48, 64, 3)
    assert back.fps == 0
    assert np.abs(back.frames[0].astype(int) - clip[0]).mean() < 6
    info = media.probe(path)
    assert (info.kind, info.width, info.height, info.frames, info.codec) == ("image", 64, 48, 1, kind.lower())


def test_png_is_lossless(tmp_path: Path, clip: Frames) -> None:
    media.encode_png(clip[3], tmp_path / "a.png")
    assert np.array_equal(media.read_clip(tmp_path / "a.png").frames[0], clip[3])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "1", "LA"])
def test_image_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 0x8080, np.uint16))
    else:
        image = Image.new("L", (8, 8), 128).convert(mode)
    image.save(tmp_path / "a.png")
    frame = media.read_clip(tmp_path / "a.png").frames[0]
    assert frame.shape == (8, 8, 3)
    if mode != "1":
        assert np.abs(frame.astype(int) - 128).max() <= 1


def test_gif_and_avi_and_matroska(tmp_path: Path, clip: Frames) -> None:
    import cv2

    still = [Image.fromarray(f) for f in clip]
    still[0].save(tmp_path / "a.gif", save_all=True, append_images=still[1:], duration=100)
    assert media.read_clip(tmp_path / "a.gif").frames.shape == (10, 48, 64, 3)
    assert media.probe(tmp_path / "a.gif").fps == 10
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12, (64, 48))
    for f in clip:
        writer.write(np.ascontiguousarray(f[..., ::-1]))
    writer.release()
    info = media.probe(tmp_path / "a.avi")
    assert (info.frames, info.fps) == (10, 12)


def test_limits_of_read_clip(mp4: Path) -> None:
    assert len(media.read_clip(mp4, max_frames=3).frames) == 3
    assert len(media.read_clip(mp4, max_pixels=48 * 64 * 4).frames) == 4
    assert len(media.read_clip(mp4, max_pixels=1).frames) == 1


def truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def header_only(data: bytes) -> bytes:
    return data[: data.index(b"mdat") + 4]


def header_cut(data: bytes) -> bytes:
    return data[:200]


def zeroed_samples(data: bytes) -> bytes:
    start = data.index(b"mdat") + 4
    return data[:start] + bytes(len(data) - start)


def noise_after_signature(data: bytes) -> bytes:
    return data[:24] + np.random.default_rng(0).bytes(4000)


@pytest.mark.parametrize("defect", [truncated, header_only, header_cut, zeroed_samples, noise_after_signature])
def test_damaged_clip(tmp_path: Path, mp4: Path, defect) -> None:  # type: ignore[no-untyped-def]
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(defect(mp4.read_bytes()))
    with pytest.raises(UnreadableMediaError, match=r"bad\.mp4"):
        media.read_clip(bad)
    with pytest.raises(UnreadableMediaError):
        media.probe(bad)


def test_tolerant_reading_gives_what_is_left(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    media.encode_video(noise, 16, bad)
    bad.write_bytes(truncated(bad.read_bytes()))
    with pytest.raises(UnreadableMediaError):
        media.read_clip(bad)
    frames = media.read_clip(bad, tolerant=True).frames
    assert 5 <= len(frames) < 20
    assert frames.shape[1:] == (48, 64, 3)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="zero_bytes"),
        pytest.param(b"\n", id="one_byte"),
        pytest.param(b"hello, this is text\n" * 50, id="text"),
        pytest.param(b"%PDF-1.7\n" + bytes(500), id="pdf"),
        pytest.param(bytes(5000), id="zeros"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="png_signature_only"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(100), id="jpeg_signature_only"),
        pytest.param(b"RIFF\x00\x00\x00\x00WEBP" + bytes(50), id="webp_signature_only"),
        pytest.param(b"GIF89a" + bytes(3), id="gif_signature_only"),
        pytest.param(b"\x1a\x45\xdf\xa3" + bytes(50), id="matroska_signature_only"),
        pytest.param(b"\x00\x00\x00\x1cftypavif" + bytes(50), id="avif"),
    ],
)
def test_no_media(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing.mp4"
    path.write_bytes(content)
    for read in (media.read_clip, media.probe):
        with pytest.raises(UnreadableMediaError):
            read(path)


def test_audio_without_video(tmp_path: Path) -> None:
    import subprocess

    from safegen.media.ffmpeg_process import executable

    path = tmp_path / "sound.mp4"
    subprocess.run([executable(), "-v", "error", "-f", "lavfi", "-i", "sine=d=0.2", str(path)], check=True)
    with pytest.raises(UnreadableMediaError):
        media.probe(path)
    with pytest.raises(UnreadableMediaError):
        media.read_clip(path)


@pytest.mark.parametrize(
    "script",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
    ],
    ids=["hls_playlist", "ffconcat_script", "sdp"],
)
def test_files_that_point_elsewhere_are_refused(tmp_path: Path, mp4: Path, script: str) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(script.format(target=mp4))
    with pytest.raises(UnreadableMediaError):
        media.read_clip(path)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "pipe:0", "-", "data:,x"])
def test_addresses_are_only_ever_file_names(address: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        media.read_clip(address)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMediaError, match="folder"):
        media.probe(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        media.probe(tmp_path / "absent.mp4")
    with pytest.raises(InputError):
        media.probe("nul\0byte.mp4")
    with pytest.raises(UnreadableMediaError, match="device"):
        media.probe("/dev/null")


def test_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))))
    with pytest.raises(UnreadableMediaError):
        media.read_clip(path)


def test_oversized_clip_is_refused(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = media.probe(mp4)
    monkeypatch.setattr("safegen.media.decoding.MAX_VIDEO_PIXELS", 1000)
    with pytest.raises(UnreadableMediaError, match="larger than 1000 pixels"):
        media.read_clip(mp4)
    assert media.probe(mp4) == size


def test_truncated_image(tmp_path: Path, clip: Frames) -> None:
    media.encode_png(clip[0], tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableMediaError):
        media.read_clip(tmp_path / "a.png")


@pytest.mark.slow
def test_decoding_holds_one_frame_at_a_time(tmp_path: Path) -> None:
    frame = np.zeros((512, 512, 3), np.uint8)
    media.encode_video((frame for _ in range(120)), 16, tmp_path / "long.mp4")
    tracemalloc.start()
    count = sum(1 for _ in media.decode(tmp_path / "long.mp4"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 120
    assert peak < 12 * frame.nbytes  # the clip is 120 frames


def test_half_read_stream_can_be_dropped(mp4: Path) -> None:
    stream = media.decode(mp4)
    next(stream)
    stream.close()  # type: ignore[attr-defined]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_never_escape_our_errors(tmp_path: Path, mp4: Path, clip: Frames, data: st.DataObject) -> None:
    if data.draw(st.booleans(), label="image"):
        good = tmp_path / "good.png"
        media.encode_png(clip[0], good)
    else:
        good = mp4
    raw = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 8), label="flips")):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    bad = tmp_path / "flipped.bin"
    bad.write_bytes(raw)
    for tolerant in (False, True):
        try:
            frames = media.read_clip(bad, max_frames=20, tolerant=tolerant).frames
        except SafegenError:
            continue
        assert frames.dtype == np.uint8
        assert frames.ndim == 4


def test_contact_sheet_places_frames(tmp_path: Path, clip: Frames) -> None:
    sheet = media.contact_sheet(clip[:5], 3, gap=2)
    assert sheet.shape == (48 * 2 + 2, 64 * 3 + 4, 3)
    assert np.array_equal(sheet[:48, :64], clip[0])
    assert np.array_equal(sheet[50:98, 66:130], clip[4])
    assert (sheet[50:, 132:] == 255).all()
    media.write_contact_sheet(clip[:5], 3, tmp_path / "sheet.png", gap=2)
    assert np.array_equal(media.read_clip(tmp_path / "sheet.png").frames[0], sheet)
    for frames, columns in (([], 3), (clip, 0), ([clip[0], clip[0][:10]], 2)):
        with pytest.raises(InputError):
            media.contact_sheet(frames, columns)


def test_formats_are_told_by_content(tmp_path: Path, mp4: Path) -> None:
    (tmp_path / "a.png").write_bytes(mp4.read_bytes())
    assert identify(tmp_path / "a.png").format == "mov"
    assert images.MAX_FRAME_PIXELS >= 8192 * 8192


def test_codec_reads_shared_clips(shared_data: Path) -> None:
    for path in sorted((shared_data / "detector" / "video").glob("*.mp4"))[:3]:
        info = media.probe(path)
        frames = media.read_clip(path, max_frames=4).frames
        assert frames.shape == (min(4, info.frames), info.height, info.width, 3)
