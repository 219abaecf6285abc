"""PDQ gives the reference implementation's bits; the video hash made of it survives edits and tells clips apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from safegen.errors import MediaError
from safegen.media.perceptual_hash import bits, margins, mirrored, waves
from safegen.media.video_hash import MAX_WINDOWS, SIZE, Look, VideoHash, video_hash
from tests.marked_clips import clip

REFERENCE = {
    (64, 64): "55aabed455aaaad455aaaad455aaaad456aa555452b52a6dab9b4067abcf003a",
    (192, 192): "d52afed4d52afed4552aaad4552aaad4552a555452a56a49ab9b4867ab8f003e",
    (191, 257): "fd4af6b4fd4af6b2d54ad6b4554ad2b0554a92b4554a54952aadab5baaa7000a",
    (480, 272): "fea4ff5afea4ff5afea4fd5aeaa4d55aaaa4d55a0004000a5554aaad55530007",
    (720, 1280): "d6b4fd5ad6b4fd5ad4b4f55a54b4d54a54b4554a54b4552a55944a8dab730007",
}
"""What pdqhash 0.2.8 (the reference implementation) says of ``drawn`` at these heights and widths."""


def drawn(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [np.sin(9 * x + 4 * y * y), np.cos(23 * x * y + 2), np.sin(31 * (x - 0.3) ** 2 - 17 * y)]
    return np.rint(127.5 + 120 * np.stack(planes, axis=-1)).astype(np.uint8)


def hexes(frame: NDArray[np.uint8]) -> str:
    return np.packbits(bits(waves(frame))).tobytes().hex()


def moved(seed: int, frames: int = 24) -> NDArray[np.uint8]:
    return clip(seed, frames, 96, 128)


@pytest.mark.parametrize(("height", "width"), REFERENCE)
def test_the_bits_are_those_of_the_reference_implementation(height: int, width: int) -> None:
    wanted = np.unpackbits(np.frombuffer(bytes.fromhex(REFERENCE[height, width]), np.uint8)).astype(bool)
    cosines = waves(drawn(height, width))
    differing = wanted != bits(cosines)
    # Sums in another order may flip a bit that lies on the median.
    assert not differing.any() or np.abs(margins(cosines)[differing]).max() < 1e-3


@pytest.mark.parametrize("size", [(64, 64), (191, 257)])
def test_the_mirror_image_needs_no_second_look(size: tuple[int, int]) -> None:
    frame = drawn(*size)
    shown = waves(np.ascontiguousarray(frame[:, ::-1]))
    np.testing.assert_allclose(mirrored(waves(frame)), shown, atol=2.0 if size[0] % 64 else 1e-2)


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture(frame: NDArray[np.uint8]) -> None:
    with pytest.raises(MediaError, match="uint8 RGB"):
        waves(frame)


def test_half_of_the_bits_are_set() -> None:
    assert sum(int(digit, 16).bit_count() for digit in hexes(drawn(100, 150))) == 128


def test_a_clip_is_like_itself_and_not_like_others() -> None:
    kept = video_hash(moved(1), 16)
    assert kept is not None
    assert len(kept.windows) == 3
    for frames in (moved(1), moved(1)[5:], moved(1)[:, ::2, ::2], (moved(1) * 0.6).astype(np.uint8)):
        look = Look.at(frames, 16)
        assert look is not None
        assert look.distance(kept) <= 64
    look = Look.at(moved(1)[:, :, ::-1], 16)
    assert look is not None
    assert (look.mirrored().distance(kept) <= 64, look.distance(kept) > 64) == (True, True)
    for seed in range(2, 12):
        other = Look.at(moved(seed), 16)
        assert other is not None
        assert other.distance(kept) > 64


def test_two_hashes_compare_as_a_look_does() -> None:
    one, other = video_hash(moved(1), 16), video_hash(moved(2), 16)
    assert one is not None
    assert other is not None
    assert (one.distance(one), one.distance(other) > 64) == (0, True)


@pytest.mark.parametrize(("frames", "fps", "windows"), [(1, 0.0, 1), (3, 16.0, 1), (161, 16.0, 20), (400, 16.0, 20)])
def test_the_number_of_half_seconds(frames: int, fps: float, windows: int) -> None:
    kept = video_hash(np.repeat(moved(1, 1), frames, axis=0), fps)
    assert kept is not None
    assert len(kept.windows) == windows


def test_even_pictures_have_no_hash() -> None:
    flat = np.full((20, 64, 64, 3), 17, np.uint8)
    assert (video_hash(flat, 16), Look.at(flat, 16)) == (None, None)
    shown = video_hash(np.concatenate([flat[:, :, :], np.repeat(drawn(64, 64)[None], 20, axis=0)]), 16)
    assert shown is not None
    assert len(shown.windows) == 3, "one of the half seconds lies on the cut"
    with pytest.raises(MediaError, match="no frames"):
        video_hash(flat[:0], 16)


@given(st.lists(st.binary(min_size=SIZE, max_size=SIZE), min_size=1, max_size=MAX_WINDOWS))
def test_what_is_written_is_read(windows: list[bytes]) -> None:
    kept = VideoHash(tuple(windows))
    assert VideoHash.from_json(kept.to_json()) == kept == VideoHash.from_bytes(b"".join(windows))


@pytest.mark.parametrize("value", [None, [], "ab", ["zz"], [7], ["00" * 31], ["00" * 32] * 21, {"a": 1}, 3.5])
def test_what_is_no_video_hash(value: object) -> None:
    with pytest.raises(MediaError):
        VideoHash.from_json(value)  # type: ignore[arg-type]
