"""Small files that ask for much: what is held and what is done stays within our own bounds, not the file's."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.bombs import clips, stills
from safegen.errors import UnreadableMediaError
from safegen.media import images, probe, probing, read_clip
from safegen.media.formats import identify
from safegen.media.images import hidden_layers, image_size, load_image
from safegen.media.presentation import presentation
from safegen.watermark import pixel
from safegen.watermark.clip.reading import MAX_FLOAT_PIXELS, to_canvas


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def one_frame(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "one.mp4"
    clips.encoded(path, "color=black:s=64x64:r=25:d=0.04", "-frames:v", "1", "-pix_fmt", "yuv420p")
    return path.read_bytes()


@pytest.mark.parametrize("colour", ["rgb", "rgba", "palette", "grey"])
def test_a_large_picture_is_held_once(colour: str, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(stills.png(3000, 3000, colour))
    frame_bytes = 3000 * 3000 * 3
    assert _peak(lambda: load_image(identify(path))) < 1.5 * frame_bytes
    assert _peak(lambda: read_clip(path)) < 1.5 * frame_bytes
    assert _peak(lambda: hidden_layers(identify(path))) < frame_bytes


def test_sixteen_bit_grey_is_read_in_strips(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 1500 * 1000).astype(np.uint16).reshape(1500, 1000)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    frame = load_image(identify(tmp_path / "grey.png"))
    assert np.array_equal(frame, np.repeat((levels // 257).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("turned", range(1, 9))
def test_every_orientation_is_brought_upright(turned: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = turned
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    source = identify(tmp_path / "turned.png")
    assert np.array_equal(load_image(source), expected)
    assert image_size(source) == (expected.shape[1], expected.shape[0])


def test_a_jpeg_of_very_many_scans_is_refused_and_a_progressive_one_is_read(tmp_path: Path) -> None:
    few, many = tmp_path / "few.jpg", tmp_path / "many.jpg"
    few.write_bytes(stills.jpeg_of_scans(64, 20))
    many.write_bytes(stills.jpeg_of_scans(64, images.MAX_SCANS + 1))
    assert load_image(identify(few)).shape == (64, 64, 3)
    with pytest.raises(UnreadableMediaError, match="more than 64 scans"):
        load_image(identify(many))
    with pytest.raises(UnreadableMediaError, match="more than 64 scans"):
        hidden_layers(identify(many))


def test_a_list_of_packets_is_counted_and_not_kept(one_frame: bytes, tmp_path: Path) -> None:
    few, many = tmp_path / "few.mp4", tmp_path / "many.mp4"
    few.write_bytes(clips.wide_table(one_frame, 100))
    many.write_bytes(clips.wide_table(one_frame, 20_000))
    assert probe(many, tolerant=True).frames == 20_000
    assert _peak(lambda: probe(many, tolerant=True)) < 2 * _peak(lambda: probe(few, tolerant=True))


def test_more_packets_than_any_clip_has_are_refused(
    one_frame: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "MAX_PACKETS", 1000)
    path = tmp_path / "many.mp4"
    path.write_bytes(clips.wide_table(one_frame, 1001))
    with pytest.raises(UnreadableMediaError, match="more than 1000 frames"):
        probe(path, tolerant=True)


@pytest.mark.slow
def test_times_of_frames_take_eight_bytes_each(one_frame: bytes, tmp_path: Path) -> None:
    path = tmp_path / "many.mp4"
    path.write_bytes(clips.wide_table(one_frame, 20_000))
    assert presentation(path).beyond == ()
    assert _peak(lambda: presentation(path)) < 60 * 20_000


def test_a_large_frame_is_shrunk_before_it_becomes_floats() -> None:
    side = 2 * int(MAX_FLOAT_PIXELS**0.5)
    frame = np.zeros((1, side, side, 3), np.uint8)
    frame[:, :, : side // 2] = 200
    assert _peak(lambda: to_canvas(frame)) < 2 * MAX_FLOAT_PIXELS * 3 * 4
    canvas = to_canvas(frame)
    assert canvas[0, 0, 10, 5] == pytest.approx(200, abs=1)
    assert canvas[0, 0, 10, -5] == pytest.approx(0, abs=1)


def test_the_pixel_mark_of_a_large_frame_is_read_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.random.default_rng(3).integers(60, 200, (1027, 1030, 3), np.uint8)
    whole, much = pixel.largest_values(frame), _peak(lambda: pixel.largest_values(frame))
    monkeypatch.setattr(pixel, "STRIP_BLOCKS", 1000)
    assert np.array_equal(pixel.largest_values(frame), whole)
    assert len(whole) == 128 * 128
    assert _peak(lambda: pixel.largest_values(frame)) < much / 4


def test_rows_without_number_and_a_webp_too_large_for_its_decoder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tall, webp = tmp_path / "tall.png", tmp_path / "large.webp"
    tall.write_bytes(stills.png(1, images.MAX_SIDE + 1))
    with pytest.raises(UnreadableMediaError, match="along one side"):
        image_size(identify(tall))
    webp.write_bytes(stills.picture("WEBP", 64))
    assert image_size(identify(webp)) == (64, 64)
    monkeypatch.setattr(images, "MAX_WEBP_PIXELS", 64 * 64 - 1)
    with pytest.raises(UnreadableMediaError, match="more than 4095 pixels"):
        image_size(identify(webp))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process uses")
def test_a_list_of_packets_that_took_too_much_memory_is_not_taken_for_whole(
    one_frame: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.mp4"
    path.write_bytes(clips.wide_table(one_frame, 100_000))
    monkeypatch.setattr(probing, "DECODER_MEMORY", 1 << 20)
    with pytest.raises(UnreadableMediaError, match="not all of its packets were listed"):
        probe(path, tolerant=True)
    monkeypatch.setattr("safegen.media.presentation.DECODER_MEMORY", 1 << 20)
    assert any("Not all of its packets" in told for told in presentation(path).beyond)
