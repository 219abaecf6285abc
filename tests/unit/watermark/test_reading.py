"""From frames to samples: what is left of a clip once its own content is taken away."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from safegen.errors import WatermarkError
from safegen.watermark.clip import alignment, pattern, reading
from safegen.watermark.clip.latent_residual import pattern_pictures
from tests.marked_clips import KEY, PAYLOAD, Frames, canvas_samples, clip, paint, spans


@pytest.mark.parametrize(
    ("height", "width", "canvas"),
    [
        (48, 48, (48, 48)),
        (96, 160, (48, 80)),
        (160, 96, (80, 48)),
        (7, 13, (48, 89)),
        (101, 67, (72, 48)),
        (1, 1, (48, 48)),
    ],
)
def test_canvas_keeps_the_shape_at_a_fixed_short_side(height: int, width: int, canvas: tuple[int, int]) -> None:
    made = reading.to_canvas(np.full((2, height, width, 3), 100, np.uint8))
    assert made.shape == (2, 3, *canvas)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[:, 0], 100, atol=1e-3)
    np.testing.assert_allclose(made[:, 1:], 0, atol=1e-3)


def test_canvas_is_y_cb_cr_of_full_range() -> None:
    red = np.zeros((1, 20, 30, 3), np.uint8)
    red[..., 0] = 255
    y, cb, cr = reading.to_canvas(red)[0].mean(axis=(1, 2))
    assert (y, cb, cr) == pytest.approx((76.2, -43.0, 127.5), abs=0.1)


@pytest.mark.parametrize("short", [16, 48, 96])
def test_canvas_takes_any_short_side(short: int) -> None:
    assert reading.to_canvas(clip(frames=2), short).shape == (2, 3, short, round(128 * short / 96))


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 8, 8, 3), np.float32),
        np.zeros((5, 8, 8, 3), np.int16),
        np.zeros((5, 8, 8, 4), np.uint8),
        np.zeros((5, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((5, 0, 8, 3), np.uint8),
        np.zeros((5, 8, 0, 3), np.uint8),
    ],
)
def test_what_is_no_clip_is_refused_by_name(frames: Frames) -> None:
    with pytest.raises(WatermarkError, match="uint8"):
        reading.to_canvas(frames)


@pytest.mark.parametrize("frames", [[], [[[[0, 0, 0]]]] * 9, [np.zeros((8, 8, 3), np.uint8)] * 9, None, "clip", 7])
def test_what_is_no_array_is_refused_by_name(frames: Any) -> None:
    for check in (reading.check_frames, reading.to_canvas):
        with pytest.raises(WatermarkError, match="uint8 array"):
            check(frames)


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (2, 2000), (16, 81), (51, 10)])
def test_pictures_too_long_and_narrow_are_refused(size: tuple[int, int]) -> None:
    """Their canvas, and the search's time with it, would grow with their length."""
    with pytest.raises(WatermarkError, match=f"{size[1]}x{size[0]} pixels"):
        reading.to_canvas(np.zeros((9, *size, 3), np.uint8))


@pytest.mark.parametrize("size", [(16, 80), (80, 16), (1, 5)])
def test_pictures_five_times_as_long_as_wide_are_taken(size: tuple[int, int]) -> None:
    assert sorted(reading.to_canvas(np.zeros((1, *size, 3), np.uint8)).shape[2:]) == [48, 240]


@pytest.mark.parametrize("frames", [5, 9, 16, 17, 18, 25, 40])
def test_what_stands_still_cancels_exactly(frames: int) -> None:
    """What rounding errors leave, 1e-5 levels, would be whitened to full samples, decoded and searched."""
    still = np.repeat(clip(frames=1), frames, axis=0)
    assert not reading.moving(reading.to_canvas(still)).any()
    assert not canvas_samples(still).any()


@pytest.mark.parametrize("frames", [12, 40])
def test_what_stands_still_leaves_no_trace_in_what_moves(frames: int) -> None:
    moves = reading.to_canvas(clip(1, frames))
    still = reading.to_canvas(clip(2, 1, noise=0))
    path = alignment.untouched(frames)
    with_ = reading.samples(reading.moving(moves + still), path)
    np.testing.assert_allclose(with_, reading.samples(reading.moving(moves), path), atol=0.02)


def test_longer_clips_lose_the_mean_of_the_frames_around_each() -> None:
    canvas = np.random.default_rng(0).normal(size=(30, 3, 4, 5)).astype(np.float32)
    change = reading.moving(canvas)
    for t in (0, 8, 15, 22, 29):
        start = min(max(t - reading.WINDOW // 2, 0), 30 - reading.WINDOW)
        np.testing.assert_allclose(change[t], canvas[t] - canvas[start : start + reading.WINDOW].mean(0), atol=1e-5)


def test_phases_are_summed_at_equal_noise_and_minus_one_leaves_a_frame_out() -> None:
    change = np.arange(6, dtype=np.float32)[:, None, None, None] * np.ones((6, 3, 2, 2), np.float32)
    out = reading.by_phase(change, np.array([0, 0, 3, -1, 3, 3]))
    assert out[0].max() == pytest.approx((0 + 1) / np.sqrt(2))
    assert out[3].max() == pytest.approx((2 + 4 + 5) / np.sqrt(3))
    assert not out[[1, 2, 4, 5, 6, 7]].any()


def test_a_moving_object_does_not_drown_the_rest() -> None:
    random = np.random.default_rng(0)
    change = random.normal(size=(8, 3, 48, 48)).astype(np.float32)
    change[:, :, 10:22, 20:32] *= 60  # a sixteenth of the picture, 99.5 % of the energy
    evened = reading.even_out(change)
    share = (evened[:, :, 10:22, 20:32] ** 2).sum() / (evened**2).sum()
    assert (change[:, :, 10:22, 20:32] ** 2).sum() / (change**2).sum() > 0.99
    assert share < 0.2


def test_whitened_samples_are_of_even_strength_bounded_and_zero_where_no_slot_is() -> None:
    random = np.random.default_rng(0)
    steep = 1 / (1 + pattern.radii()) ** 2  # as steep as pictures are
    raw = (random.normal(size=(8, 3, 24, 24)) * steep * 1000).astype(np.float32)
    out = reading.whiten(raw)
    assert not out[:, ~pattern.used()].any()
    assert np.abs(out).max() <= reading.CLIP
    for low, high in ((4, 8), (8, 14), (14, 22)):
        ring = (pattern.radii() >= low) & (pattern.radii() < high) & pattern.used()[0]
        assert 0.7 < out[:, 0, ring].std() < 1.1


def test_whitening_leaves_an_empty_phase_empty_and_others_alone() -> None:
    raw = np.random.default_rng(0).normal(size=(8, 3, 24, 24)).astype(np.float32)
    raw[3] = 0
    out = reading.whiten(raw)
    assert not out[3].any()
    assert all(out[k].any() for k in range(8) if k != 3)
    assert np.isfinite(out).all()
    assert np.isfinite(reading.whiten(raw[:1])).all()


@pytest.mark.parametrize("gain", [0.3, 3.0, 30.0])
def test_samples_do_not_depend_on_the_video_s_gain(gain: float) -> None:
    change = reading.moving(reading.to_canvas(clip()))
    path = alignment.untouched(25)
    plain, scaled = reading.samples(change, path), reading.samples(change * np.float32(gain), path)
    assert np.corrcoef(plain.ravel(), scaled.ravel())[0, 1] > 0.999


def test_samples_of_a_marked_clip_show_the_pattern() -> None:
    frames = paint(clip(), PAYLOAD, KEY)
    wanted = pattern.coefficients(PAYLOAD, KEY)
    shown = np.unique(alignment.untouched(25))
    found = canvas_samples(frames)
    assert float((np.sign(found) == wanted)[shown][:, pattern.used()].mean()) > 0.75
    assert reading.signpost_fit(found) > 15
    assert abs(reading.signpost_fit(canvas_samples(clip()))) < 4


def test_signpost_fit_of_unmarked_clips_is_about_standard_normal() -> None:
    fits = np.array([reading.signpost_fit(canvas_samples(clip(n, 17, 40, 40, noise=3.0))) for n in range(40)])
    assert abs(float(fits.mean())) < 0.8
    assert 0.5 < float(fits.std()) < 1.6


def test_signpost_scores_say_which_phase_a_frame_shows() -> None:
    frames = paint(clip(), PAYLOAD, KEY)
    scores = reading.signpost_scores(reading.moving(reading.to_canvas(frames)))
    assert scores.shape == (25, pattern.PHASES)
    assert float((scores.argmax(axis=1) == alignment.untouched(25)).mean()) > 0.9
    # Grain alone, without objects: nothing tells the phases apart.
    nothing = reading.signpost_scores(np.random.default_rng(0).normal(size=(40, 3, 48, 48)).astype(np.float32))
    assert 0.7 < float(nothing.std()) < 1.3


def test_projection_with_a_corner_is_that_of_the_window_on_the_plane() -> None:
    """A crop, read where it was cut, correlates with the pattern; read at the wrong place, it hardly does."""
    lengths = [stop - start for start, stop in spans(25)]
    plane = np.repeat(pattern_pictures(PAYLOAD, KEY, spans(25), 48, 48), lengths, axis=0)
    path = alignment.untouched(25)
    cut = np.ascontiguousarray(plane[:, :, 8:, 5:])
    assert reading.signpost_fit(reading.samples(cut, path, (8, 5))) > 8
    assert reading.signpost_fit(reading.samples(cut, path)) < 4


@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("frames", [5, 17, 25])
def test_a_constant_clip_gives_zeros_without_a_warning(level: int, frames: int) -> None:
    flat = np.full((frames, 30, 40, 3), level, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = canvas_samples(flat)
        fit = reading.signpost_fit(found)
        scores = reading.signpost_scores(reading.moving(reading.to_canvas(flat)))
    assert not found.any()
    assert fit == 0
    assert np.isfinite(scores).all()
