"""The content fingerprint: what it says of a clip, of its edits and of other clips."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import WatermarkError
from safegen.watermark.fingerprint.fingerprint import SIZE, VERSION, Fingerprint, Match, compare, fingerprint, matrix_of
from tests.marked_clips import Frames, clip, levels, resize, rotate

SHAPE = (25, 96, 128)
WHOLE = [[0.0, 0.0], [128 / 96, 0.0], [128 / 96, 1.0], [0.0, 1.0]]


@pytest.fixture(scope="module")
def plain() -> Frames:
    return clip(1, *SHAPE)


@pytest.fixture(scope="module")
def kept(plain: Frames) -> Fingerprint:
    return fingerprint(plain)


def ramps() -> Frames:
    """Whole numbers alone, so that it is the same on every machine."""
    y, x = np.mgrid[0:96, 0:96]
    picture = np.stack([2 * x + 20, 2 * y + 30, x + y + 10], axis=-1)
    return np.repeat(picture[None].astype(np.uint8), 9, axis=0)


def test_the_code_of_a_known_clip_stays_the_same() -> None:
    """Golden: codes in ledgers must stay comparable."""
    code = fingerprint(ramps()).code
    assert (len(code), code[0], code[1], code[2]) == (SIZE, VERSION, 128, 0)
    assert hashlib.sha256(code).hexdigest() == "e79c088eee4bb4040a03fbdd13501dc6deb2df76f2e244b0bac2d4942a368cdc"


def test_text_and_back(kept: Fingerprint) -> None:
    assert Fingerprint.from_hex(kept.hex()) == kept
    assert len(kept.hex()) == 2 * SIZE
    assert kept.size == pytest.approx((128 / 96, 1.0), rel=0.01)


@pytest.mark.parametrize(
    "text", ["", "zz", "01" * 63, "01" * 65, "00" * 64, "02" + "00" * 63, "0" * 127, None, 7, ["01" * 64]]
)
def test_malformed_codes_are_refused(text: object) -> None:
    with pytest.raises(WatermarkError):
        Fingerprint.from_hex(text)  # type: ignore[arg-type]


def test_what_is_no_clip_is_refused(kept: Fingerprint) -> None:
    for frames in (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8, 3))):
        with pytest.raises(WatermarkError):
            fingerprint(frames)
        with pytest.raises(WatermarkError):
            compare(kept, frames)
    with pytest.raises(WatermarkError, match="visible"):
        compare(kept, clip(1, 5, 8, 8), visible=np.ones((9, 9), bool))


def test_a_clip_is_itself(plain: Frames, kept: Fingerprint) -> None:
    found = compare(kept, plain)
    assert found.same is True
    assert found.distance < 0.3
    assert compare(kept, plain, matrix=matrix_of(WHOLE, 96, 128)).same is True


EDITS = {
    "noise": lambda f: levels(f + np.random.default_rng(0).normal(0, 20, f.shape)),
    "blurred": lambda f: np.stack([cv2.GaussianBlur(p, (0, 0), 3) for p in f]),
    "darker": lambda f: levels(f * 0.5),
    "low contrast": lambda f: levels(128 + 0.5 * (f.astype(float) - 128)),
    "grey": lambda f: np.repeat(f.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3),
    "half the frames": lambda f: f[::2],
    "trimmed": lambda f: f[8:20],
    "backwards": lambda f: f[::-1],
    "smaller": lambda f: resize(f, 48, 64),
    "squeezed": lambda f: resize(f, 96, 96),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_clip_is_still_the_same(name: str, plain: Frames, kept: Fingerprint) -> None:
    assert compare(kept, EDITS[name](plain)).same is True


def test_a_clip_under_a_subtitle_and_a_logo_is_still_the_same(plain: Frames, kept: Fingerprint) -> None:
    over = plain.copy()
    over[:, 82:94] = 20
    over[:, 84:90, 20:100:3] = 240
    over[:, 4:20, 106:122] = (250, 30, 30)
    assert compare(kept, over).same is True


MOVES = {
    "cropped": (lambda f: f[:, 16:80, 24:104], [[24, 16], [104, 16], [104, 80], [24, 80]]),
    "mirrored": (lambda f: f[:, :, ::-1], [[128, 0], [0, 0], [0, 96], [128, 96]]),
    "upside down": (lambda f: f[:, ::-1], [[0, 96], [128, 96], [128, 0], [0, 0]]),
    "letterboxed": (
        lambda f: np.pad(f, ((0, 0), (16, 16), (0, 0), (0, 0))),
        [[0, -16], [128, -16], [128, 112], [0, 112]],
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_moved_picture_is_the_same_where_it_lies(name: str, plain: Frames, kept: Fingerprint) -> None:
    change, corners = MOVES[name]
    moved = np.ascontiguousarray(change(plain))
    matrix = matrix_of((np.array(corners) / 96).tolist(), *moved.shape[1:3])
    assert compare(kept, moved, matrix=matrix).same is True


def test_a_turned_picture_is_the_same_where_it_lies(plain: Frames, kept: Fingerprint) -> None:
    back = cv2.invertAffineTransform(cv2.getRotationMatrix2D((64, 48), 7, 1.0))
    corners = cv2.transform(np.array([[[0, 0], [128, 0], [128, 96], [0, 96]]], np.float64), back)[0] / 96
    assert compare(kept, rotate(plain, 7), matrix=matrix_of(corners.tolist(), 96, 128)).same is True


def test_another_clip_is_another_clip() -> None:
    clips = [clip(n, 9, 48, 64) for n in range(12)]
    codes = [fingerprint(frames) for frames in clips]
    pairs = [(n, m) for n in range(12) for m in range(12) if n != m]
    taken = sum(compare(codes[n], clips[m]).same is not False for n, m in pairs)
    assert taken <= 3, f"{taken} of {len(pairs)}"


def test_an_even_picture_is_not_taken_for_a_clip_of_contrast(kept: Fingerprint) -> None:
    assert compare(kept, np.full((5, 96, 128, 3), 90, np.uint8)).same is False


def test_too_little_to_see_is_no_answer(plain: Frames, kept: Fingerprint) -> None:
    nothing = compare(kept, plain, visible=np.zeros((96, 128), bool))
    assert nothing.same is None
    assert compare(kept, np.full_like(plain, 255)).same is None
    far = matrix_of([[900.0, 0], [901, 0], [901, 1], [900, 1]], 96, 128)
    assert compare(kept, plain, matrix=far).same is None


def test_what_is_known_to_be_foreign_is_left_out(plain: Frames, kept: Fingerprint) -> None:
    most = plain.copy()
    most[:, :, :84] = clip(9, *SHAPE)[:, :, :84]
    visible = np.ones((96, 128), bool)
    visible[:, :84] = False
    assert compare(kept, most).same is False
    assert compare(kept, most, visible=visible).same is True


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=SIZE - 1, max_size=SIZE - 1), st.integers(0, 3))
def test_any_code_compares_with_any_clip(rest: bytes, seed: int) -> None:
    found = compare(Fingerprint(bytes([VERSION]) + rest), clip(seed, 3, 24, 32))
    assert isinstance(found, Match)
    assert 0 <= found.luma <= 1
    assert 0 <= found.chroma <= 1
    assert 0 <= found.seen <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(20, 70), st.integers(20, 70), st.integers(0, 2**32 - 1))
def test_a_clip_of_any_size_is_itself(count: int, height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 230, (1, height, width, 3), np.uint8)
    frames = np.repeat(picture, count, axis=0)
    kept = fingerprint(frames)
    assert len(kept.code) == SIZE
    assert compare(kept, frames).same is not False
