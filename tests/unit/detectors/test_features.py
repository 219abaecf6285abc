"""Normalisation and features: deterministic, finite, and measuring what they are named for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safegen.detectors.features import features
from safegen.detectors.normalise import MAX_WINDOWS, WINDOW_FRAMES, window_indices, windows
from safegen.errors import DetectorError


def noise(frames: int, height: int = 64, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(np.zeros((12, 64, 64, 3), np.uint8), id="black"),
        pytest.param(np.full((12, 64, 64, 3), 255, np.uint8), id="white"),
        pytest.param(noise(12), id="noise"),
        pytest.param(noise(1), id="one_frame"),
        pytest.param(noise(3), id="three_frames"),
        pytest.param(noise(12, 1, 1), id="one_pixel"),
        pytest.param(noise(12, 3, 500), id="strip"),
        pytest.param(np.repeat(noise(1), 12, axis=0), id="frozen"),
        pytest.param(
            np.where(np.arange(12)[:, None, None, None] % 2, noise(12) * 0, 255).astype(np.uint8), id="flicker"
        ),
    ],
)
def test_features_are_finite_and_deterministic(frames: NDArray[np.uint8]) -> None:
    (window,) = windows(frames, 8)
    first = features(window)
    assert all(np.isfinite(list(first.values())))
    assert first == features(window.copy())
    assert list(first) == list(features(windows(noise(12), 8)[0]))


def test_fixed_texture_lasts_and_fresh_noise_does_not() -> None:
    frozen = features(windows(np.repeat(noise(1, 224, 224), 12, axis=0), 8)[0])
    fresh = features(windows(noise(12, 224, 224), 8)[0])
    assert frozen["texture_lag1"] > 0.99
    assert abs(fresh["texture_lag1"]) < 0.05


def test_flow_sees_steady_motion() -> None:
    y, x = np.mgrid[0:224, 0:224]
    clip = [np.stack([128 + 60 * np.sin((x + 4 * t) / 15) + 40 * np.cos(y / 11)] * 3, -1) for t in range(12)]
    moving = features(np.clip(clip, 0, 255).astype(np.uint8))
    assert np.exp(moving["flow_speed"]) == pytest.approx(2.0, abs=0.7)  # 4 pixels, at half size
    assert moving["flow_unexplained"] < -1.0  # moving back explains most of the difference


@given(frames=st.integers(1, 400), fps=st.floats(0, 240))
@settings(max_examples=200, deadline=None)
def test_windows_stay_within_the_clip(frames: int, fps: float) -> None:
    chosen = window_indices(frames, fps)
    assert 1 <= len(chosen) <= MAX_WINDOWS
    for window in chosen:
        assert 1 <= len(window) <= WINDOW_FRAMES
        assert window == sorted(set(window))
        assert 0 <= window[0] <= window[-1] < frames


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [(25, 16, [list(range(0, 24, 2))]), (5, 8, [list(range(5))]), (12, 4, [list(range(12))]), (1, 0, [[0]])],
)
def test_window_choice(frames: int, fps: float, expected: list[list[int]]) -> None:
    assert window_indices(frames, fps) == expected


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 4), np.uint8),
        np.zeros((4, 0, 8, 3), np.uint8),
    ],
)
def test_wrong_frames_are_refused(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(DetectorError):
        windows(frames, 8)
