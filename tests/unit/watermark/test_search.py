"""Finding where a picture lies on the pattern's plane, from the signpost alone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.bounds.timelimit import time_limit
from safegen.errors import TimeLimitError
from safegen.watermark.clip import alignment, reading, search
from tests.marked_clips import KEY, PAYLOAD, Frames, clip, levels, paint

H, W, T = 64, 80, 13
COARSE = 0.02
"""How far off, in short sides, the search may be where it tries the true place; half a step of its grid is 0.016."""

REFINED = 0.035
"""How far off the refined place may be: 1.7 pixels of the 48-pixel plane, where the finest cosine has a period of 4."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    coarse: search.Alignment
    refined: search.Alignment
    coarse_error: float
    refined_error: float


@pytest.fixture(scope="module")
def marked() -> Frames:
    return paint(clip(1, T, H, W), PAYLOAD, KEY)


def folded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the plane with the same pattern: mirrored at every whole short side."""
    return np.abs((x + 1) % 2 - 1)


def find(frames: Frames, truth: Matrix) -> Found:
    """Search ``frames``; ``truth`` takes their pixels to those of the picture as it was marked."""
    h, w = frames.shape[1:3]
    change = reading.moving(reading.to_canvas(frames, search.FINE))
    coarse = search.coarse(change)[0]
    laid, corner = search.warp(change, coarse.matrix)
    path = alignment.follow(reading.signpost_scores(laid, corner))[0]
    refined = search.refine(change, path, coarse)
    x, y = np.meshgrid(np.linspace(0.15, 0.85, 7) * w, np.linspace(0.15, 0.85, 7) * h)
    points = np.stack([x, y], -1).reshape(1, -1, 2)
    wanted = folded(cv2.perspectiveTransform(points, truth)[0] / min(H, W))

    def error(place: search.Alignment) -> float:
        at = cv2.perspectiveTransform(points * search.FINE / min(h, w), place.matrix)[0] / reading.SHORT
        return float(np.abs(folded(at) - wanted).max())

    return Found(coarse, refined, error(coarse), error(refined))


def laid(frames: Frames, forwards: Matrix) -> Frames:
    h, w = frames.shape[1:3]
    return np.stack([cv2.warpPerspective(f, forwards, (w, h), flags=cv2.INTER_AREA) for f in frames])


@pytest.mark.slow
def test_mirrored_and_cropped(marked: Frames) -> None:
    found = find(marked[:, 6:60, :70][:, :, ::-1], np.array([[-1.0, 0, 70], [0, 1, 6], [0, 0, 1]]))
    assert found.coarse_error < COARSE
    assert found.refined_error < REFINED
    assert found.refined.score > 8


@pytest.mark.slow
def test_a_quarter_turn(marked: Frames) -> None:
    found = find(np.ascontiguousarray(np.rot90(marked, 1, (1, 2))), np.array([[0.0, -1, W], [1, 0, 0], [0, 0, 1]]))
    assert found.coarse_error < COARSE
    assert found.refined_error < REFINED
    assert found.refined.score > 8


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.6, 1.4])
def test_made_smaller_with_borders_or_zoomed_into(marked: Frames, scale: float) -> None:
    zoom = np.array([[scale, 0, W * (1 - scale) / 2], [0, scale, H * (1 - scale) / 2], [0, 0, 1]])
    found = find(laid(marked, zoom), np.linalg.inv(zoom))
    assert found.refined_error < REFINED
    assert found.refined.score > 7


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [9.0, -4.0])
def test_turned_by_a_few_degrees(marked: Frames, degrees: float) -> None:
    turn = np.vstack([cv2.getRotationMatrix2D((W / 2, H / 2), degrees, 1.0), [0, 0, 1]])
    found = find(laid(marked, turn), np.linalg.inv(turn))
    assert found.refined_error < REFINED
    assert found.refined.score > 8


@pytest.mark.slow
def test_mirrored_and_running_backwards(marked: Frames) -> None:
    frames = np.ascontiguousarray(marked[::-1, :, ::-1])
    found = find(frames, np.array([[-1.0, 0, W], [0, 1, 0], [0, 0, 1]]))
    assert found.coarse_error < COARSE
    assert found.refined_error < REFINED
    assert found.refined.score > 8


@pytest.mark.slow
def test_coarse_movement_much_stronger_than_the_mark_does_not_drown_it() -> None:
    """Clouds that pass, 28 dB above the mark: without whitening their few frequencies decide where it is sought."""
    random = np.random.default_rng(1)
    clouds = cv2.resize(
        random.normal(128, 50, (4, 16, 3)).astype(np.float32), (4 * W, H), interpolation=cv2.INTER_CUBIC
    )
    frames = paint(levels(np.stack([clouds[:, 3 * t : 3 * t + W] for t in range(T)])), PAYLOAD, KEY)
    found = find(frames[:, 6:60, :70], np.array([[1.0, 0, 0], [0, 1, 6], [0, 0, 1]]))
    assert found.coarse_error < COARSE
    assert found.refined_error < REFINED
    assert found.coarse.score > 8


@pytest.mark.slow
def test_mild_perspective_is_found_by_moving_the_corners(marked: Frames) -> None:
    corners = np.array([[0, 0], [W, 0], [W, H], [0, H]], np.float32)
    tilted = np.array([[0.04 * W, 0.04 * H], [W, 0], [0.96 * W, H], [0, 0.96 * H]], np.float32)
    tilt = cv2.getPerspectiveTransform(corners, tilted)
    found = find(laid(marked, tilt), np.linalg.inv(tilt))
    assert found.refined_error < REFINED
    assert found.refined.score > found.coarse.score


@pytest.mark.slow
def test_unmarked_clips_score_low_everywhere(marked: Frames) -> None:
    plain = search.coarse(reading.moving(reading.to_canvas(clip(3, T, H, W), search.FINE)))
    shown = search.coarse(reading.moving(reading.to_canvas(marked, search.FINE)))
    assert [a.score for a in plain] == sorted((a.score for a in plain), reverse=True)
    assert plain[0].score < 8 < shown[0].score  # the best of 120 places, 4096 shifts and 128 walks, by chance


def test_the_identity_lays_a_canvas_down_at_half_size() -> None:
    pictures = np.random.default_rng(0).normal(size=(2, 3, search.FINE, search.FINE)).astype(np.float32)
    pictures = np.stack([cv2.GaussianBlur(p, (0, 0), 2) for p in pictures.reshape(-1, search.FINE, search.FINE)])
    pictures = pictures.reshape(2, 3, search.FINE, search.FINE)
    half, corner = search.warp(pictures, search.identity().matrix)
    assert half.shape == (2, 3, reading.SHORT, reading.SHORT)
    assert corner == (0, 0)
    by_area = np.stack([cv2.resize(p, (48, 48), interpolation=cv2.INTER_AREA) for p in pictures.reshape(-1, 96, 96)])
    # The outermost pixels blend with the black beyond the edge.
    np.testing.assert_allclose(half[:, :, 1:-1, 1:-1], by_area.reshape(half.shape)[:, :, 1:-1, 1:-1], atol=0.05)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1e6, 1e6, 1.0]),
        np.array([[1.0, 0, 1e7], [0, 1, 0], [0, 0, 1]]),
        np.array([[1.0, 0, 0], [0, 1, 0], [-1 / 96, 0, 1]]),  # a vanishing line through the corners
        np.diag([1e-9, 1e-9, 1.0]),
    ],
)
def test_absurd_places_give_an_empty_or_tiny_canvas_not_an_error(matrix: Matrix) -> None:
    pictures = np.ones((1, 3, search.FINE, search.FINE), np.float32)
    out, _ = search.warp(pictures, matrix)
    assert np.isfinite(out).all()
    assert out.size <= 3 * (80 * reading.SHORT) ** 2


def test_the_search_for_moved_pictures_ends_with_the_time() -> None:
    canvas = np.random.default_rng(5).normal(size=(8, 3, 96, 96)).astype(np.float32)
    with time_limit(1e-6), pytest.raises(TimeLimitError):
        search.coarse(canvas)
