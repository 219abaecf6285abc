"""The drawn answer of ``safegen watermark read``: the time map as text, and where the outline lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.cli.watermark import BAR, time_map
from safegen.verification.mark_picture import outline

IDS = ("0123456789abcdef", "fedcba9876543210")


def segment(first: int, last: int, content_id: str | None) -> dict[str, object]:
    return {"first": first, "last": last, "statistic": 9.0, "marked": content_id is not None, "content_id": content_id}


def test_short_clips_have_a_letter_per_frame() -> None:
    segments = [segment(0, 7, IDS[0]), segment(8, 15, None), segment(16, 19, IDS[1])]
    bar, names = time_map(segments, 20)
    assert bar == "A" * 8 + "." * 8 + "B" * 4
    assert names == {"A": IDS[0], "B": IDS[1]}


@given(st.integers(1, 100_000), st.integers(0, 99), st.integers(1, 100))
def test_long_clips_keep_their_proportions(frames: int, start: int, length: int) -> None:
    first = frames * start // 100
    last = min(frames - 1, first + frames * length // 100)
    bar, _ = time_map([segment(first, last, IDS[0])], frames)
    assert len(bar) == min(frames, BAR)
    assert bar.count("A") == pytest.approx(len(bar) * (last - first + 1) / frames, abs=1.01)
    assert bar.strip(".") == "A" * bar.count("A")


def test_an_untouched_picture_is_its_own_outline() -> None:
    at = outline([[0, 0], [16 / 9, 0], [16 / 9, 1], [0, 1]], (720, 1280), 360, 640)
    assert at is not None
    assert np.allclose(at, [[0, 0], [640, 0], [640, 360], [0, 360]], atol=0.1)


def test_a_cropped_picture_lies_inside_its_outline() -> None:
    at = outline([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]], (192, 192), 100, 100)
    assert at is not None
    assert np.allclose(at, [[-50, -50], [150, -50], [150, 150], [-50, 150]], atol=0.1)


@pytest.mark.parametrize("turn", [0, 2, -4])
def test_the_repetition_that_the_picture_covers_is_drawn(turn: int) -> None:
    """A clip in the middle of a picture twice its size; the plane repeats every two short sides."""
    corners = np.array([[-0.5, -0.5], [1.5, -0.5], [1.5, 1.5], [-0.5, 1.5]]) + turn
    at = outline(corners.tolist(), (192, 192), 384, 384)
    assert at is not None
    assert np.allclose(at, [[96, 96], [288, 96], [288, 288], [96, 288]], atol=0.1)


@pytest.mark.parametrize(
    "corners",
    [
        [[0, 0], [1, 1], [1, 0], [0, 1]],
        [[0, 0], [0, 0], [0, 0], [0, 0]],
        [[0, 0], [1, 0], [2, 0], [3, 0]],
    ],
    ids=["crossed", "a_point", "a_line"],
)
def test_corners_of_no_picture_have_no_outline(corners: list[list[float]]) -> None:
    assert outline(corners, (192, 192), 100, 100) is None
