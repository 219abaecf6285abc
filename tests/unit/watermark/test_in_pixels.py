"""The clip mark drawn into finished frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from safegen.errors import WatermarkError
from safegen.watermark.base import MarkStatus
from safegen.watermark.clip.extraction import extract_frames, extract_stream
from safegen.watermark.clip.in_pixels import PSNR, embed_frames, embed_stream, phase_pictures
from safegen.watermark.clip.pattern import LEAST_FRAMES
from safegen.watermark.clip.visibility import CHROMA, amplitudes, weights
from tests.marked_clips import KEY, OTHER_KEY, PAYLOAD, Frames, clip


def decibels(one: Frames, other: Frames) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("shape", [(25, 96, 96), (25, 97, 131), (33, 150, 84), (LEAST_FRAMES, 192, 192)])
def test_the_mark_reads_and_costs_what_is_said(shape: tuple[int, int, int]) -> None:
    frames = clip(3, *shape)
    marked = embed_frames(frames, PAYLOAD, KEY)
    assert (marked.shape, marked.dtype) == (frames.shape, np.uint8)
    found = extract_frames(marked, KEY, look=False)
    assert (found.payload, found.scheme) == (PAYLOAD, "latent-residual")
    assert extract_frames(marked, OTHER_KEY, look=False).status is MarkStatus.NONE
    assert decibels(marked, frames) == pytest.approx(PSNR, abs=0.7)


def test_the_statistic_grows_with_the_strength() -> None:
    frames = clip(4, 25, 96, 96)
    read = [extract_frames(embed_frames(frames, PAYLOAD, KEY, strength=s), KEY, look=False) for s in (0.3, 0.6, 1.2)]
    assert [r.statistic for r in read] == sorted(r.statistic for r in read)
    for strength in (0.5, 2.0):
        marked = embed_frames(frames, PAYLOAD, KEY, strength=strength)
        assert decibels(marked, frames) == pytest.approx(PSNR - 20 * np.log10(strength), abs=0.9)


def test_a_stream_of_unknown_length_reads_from_any_part_of_it() -> None:
    frames = clip(5, 96, 96, 96)
    marked = list(embed_stream(iter(frames), PAYLOAD, KEY))
    assert extract_stream(iter(marked), [KEY]).payload == PAYLOAD
    assert extract_stream(iter(marked[41:73]), [KEY]).payload == PAYLOAD
    known = list(embed_stream(iter(frames), PAYLOAD, KEY, count=len(frames)))
    assert np.array_equal(np.stack(known), embed_frames(frames, PAYLOAD, KEY))


def test_colour_carries_most_of_it() -> None:
    pictures = phase_pictures(PAYLOAD, KEY, 64, 64).reshape(-1, 3) @ np.array([0.299, 0.587, 0.114])
    whole = phase_pictures(PAYLOAD, KEY, 64, 64)
    assert float(np.mean(pictures**2)) < 0.2 * float(np.mean(whole**2))
    assert set(np.unique(amplitudes()).tolist()) == {0.0, 1.0, CHROMA}


def test_busy_and_moving_places_get_more_and_the_sum_stays() -> None:
    calm = np.full((72, 96), 127.0, np.float32)
    busy = calm.copy()
    busy[:, 48:] += np.random.default_rng(0).normal(0, 20, (72, 48))
    moved = calm.copy()
    moved[:36] += 15
    for luma, before, more, less in (
        (busy, busy, np.s_[:, 60:], np.s_[:, :36]),
        (moved, calm, np.s_[:30], np.s_[42:]),
    ):
        found = weights(luma, before)
        assert found[more].mean() > 1.2 * found[less].mean()
        assert float((found**2).mean()) == pytest.approx(1, rel=1e-3)


def test_what_cannot_be_marked_is_refused() -> None:
    frames = clip(1, 25, 64, 64)
    with pytest.raises(WatermarkError, match="too short"):
        embed_frames(frames[: LEAST_FRAMES - 1], PAYLOAD, KEY)
    with pytest.raises(WatermarkError, match="one size"):
        list(embed_stream([frames[0], cv2.resize(frames[1], (32, 32))], PAYLOAD, KEY))
    with pytest.raises(WatermarkError, match="too long and narrow"):  # the reader would refuse them
        list(embed_stream([frames[0][:10]], PAYLOAD, KEY))
    with pytest.raises(WatermarkError, match="out of range"):
        embed_frames(frames, PAYLOAD, KEY, strength=0)
    with pytest.raises(WatermarkError, match="uint8"):
        list(embed_stream([frames[0].astype(np.float32)], PAYLOAD, KEY))  # type: ignore[list-item]
