"""Whatever is handed to the extractor, it answers or says what is wrong; it never finds a mark that is not there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safegen.errors import SafegenError, WatermarkError
from safegen.watermark.base import MarkStatus
from safegen.watermark.clip.extraction import extract_frames
from safegen.watermark.clip.reading import MAX_ASPECT
from tests.marked_clips import key_of

KINDS = ("noise", "constant", "still", "flash", "stripes", "black and white")


@st.composite
def clips(draw: st.DrawFn, frames: int, side: int, aspect: float) -> NDArray[np.uint8]:
    """Small clips of every shape and of contents that are unkind to statistics."""
    height = draw(st.integers(1, side))
    width = draw(st.integers(max(1, int(height / aspect)), min(side, int(height * aspect))))
    shape = (draw(st.integers(1, frames)), height, width, 3)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(KINDS))
    if kind == "constant":
        return np.full(shape, draw(st.integers(0, 255)), np.uint8)
    if kind == "still":
        return np.repeat(random.integers(0, 256, (1, *shape[1:]), np.uint8), shape[0], axis=0)
    if kind == "flash":
        out = np.zeros(shape, np.uint8)
        out[:: draw(st.integers(1, 9))] = 255
        return out
    if kind == "stripes":
        t, y, x = np.indices(shape[:3])
        return np.repeat((((t // 4 + x + y) % 3) * 120).astype(np.uint8)[..., None], 3, axis=3)
    noise = random.integers(0, 256, shape, np.uint8)
    return np.where(noise > 127, 255, 0).astype(np.uint8) if kind == "black and white" else noise


def check(frames: NDArray[np.uint8], key: bytes, *, look: bool) -> None:
    found = extract_frames(frames, key, look=look)
    assert found.status is not MarkStatus.VERIFIED
    assert found.payload is None
    assert np.isfinite(found.statistic)
    assert 0 <= found.p_value <= 1
    assert found.hypotheses >= 1
    if len(frames) < 5:
        assert found.status is MarkStatus.NONE
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(clips(frames=40, side=80, aspect=3), st.integers(0, 2**31))
def test_any_clip_is_answered_and_none_verifies(frames: NDArray[np.uint8], number: int) -> None:
    check(frames, key_of(number), look=False)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(clips(frames=8, side=80, aspect=40), st.integers(0, 2**31))
@example(np.zeros((5, 4, 20, 3), np.uint8), 0)
@example(np.zeros((5, 4, 21, 3), np.uint8), 0)
def test_pictures_are_refused_only_where_they_are_too_long_and_narrow(frames: NDArray[np.uint8], number: int) -> None:
    short, long = sorted(frames.shape[1:3])
    if long <= MAX_ASPECT * short:
        check(frames, key_of(number), look=False)
    else:
        with pytest.raises(WatermarkError, match="too long and narrow"):
            extract_frames(frames, key_of(number), look=False)


@pytest.mark.slow
@settings(deadline=None, max_examples=6)
@given(clips(frames=9, side=40, aspect=1.5), st.integers(0, 2**31))
def test_any_clip_is_answered_when_moved_pictures_are_searched_too(frames: NDArray[np.uint8], number: int) -> None:
    check(frames, key_of(number), look=True)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=0, max_size=6),
    st.sampled_from([np.uint8, np.int8, np.uint16, np.float16, np.float64, np.bool_, np.complex64, np.object_]),
    st.binary(max_size=40),
)
def test_what_is_no_clip_or_no_key_is_refused_by_our_own_errors(shape: list[int], dtype: type[Any], key: bytes) -> None:
    if len(shape) == 4 and shape[3] == 3 and 0 not in shape and dtype is np.uint8 and len(key) == 32:
        return
    with pytest.raises(SafegenError):
        extract_frames(np.zeros(shape, dtype), key, look=False)
