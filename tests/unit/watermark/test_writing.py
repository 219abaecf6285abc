"""Writing the pattern into latents: its strength, where it is weighed by what the eye forgives, and what is refused.

The VAE here draws each sample of the pattern as it is told to, so that what is decoded can be worked out by hand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from safegen.errors import PayloadError, WatermarkError
from safegen.types import ContentId
from safegen.watermark.base import MarkStatus
from safegen.watermark.clip import latent_visibility, visibility
from safegen.watermark.clip.extraction import extract_frames
from safegen.watermark.clip.latent_residual import PSNR, embed_latents, pattern_pictures
from safegen.watermark.clip.profile import PATTERN_CHANNELS, SUBCELLS, Profile
from safegen.watermark.layouts import Layout
from safegen.watermark.payload import Payload
from tests.marked_clips import KEY, OTHER_PAYLOAD, PAYLOAD, RGB, Frames, levels

CELL, STRIDE, LATENT_FRAMES, CELLS = SUBCELLS, 4, 7, 12
LAYOUT = Layout("BCTHW", CELL, STRIDE)
PREVIEW = torch.tensor([1 / SUBCELLS**2] * SUBCELLS**2 + [0.0] * (2 * SUBCELLS**2) + [128.0])
"""The mean of a cell's luma samples, around mid-grey."""


@pytest.fixture(scope="module")
def plain_profile() -> Profile:
    """Channel n of a cell is sample n of the pattern in it: what is decoded can be drawn by hand."""
    body = torch.zeros(PATTERN_CHANNELS, PATTERN_CHANNELS, 3, 3, 3)
    first = torch.zeros(PATTERN_CHANNELS, PATTERN_CHANNELS, 2, 3, 3)
    for n in range(PATTERN_CHANNELS):
        body[n, n, 1, 1, 1] = first[n, n, 0, 1, 1] = 1
    return Profile("0" * 64, body, first, gain=1.35, preview=PREVIEW)


def drawn_by_hand(latents: torch.Tensor) -> list[Frames]:
    """Decode [B, 48, T, h, w] to clips of 4h x 4w pixels."""
    b, _, t, h, w = latents.shape
    cells = latents.float().reshape(b, 3, SUBCELLS, SUBCELLS, t, h, w).permute(0, 4, 5, 2, 6, 3, 1)
    yuv = cells.reshape(b, t, h * SUBCELLS, w * SUBCELLS, 3).numpy()
    lengths = [stop - start for start, stop in LAYOUT.spans(t)]
    return [levels(128 + np.repeat(one @ RGB.T, lengths, axis=0)) for one in yuv]


def random_latents(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return (3 * torch.randn(count, PATTERN_CHANNELS, LATENT_FRAMES, CELLS, CELLS, generator=draw)).to(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_carries_a_payload_in_every_clip(dtype: torch.dtype, plain_profile: Profile) -> None:
    latents = random_latents(2, dtype)
    before = latents.clone()
    marked = embed_latents(latents, [PAYLOAD, OTHER_PAYLOAD], KEY, plain_profile, LAYOUT)
    assert torch.equal(latents, before)
    assert (marked.shape, marked.dtype, marked.device) == (latents.shape, dtype, latents.device)
    one, two = drawn_by_hand(marked)
    assert extract_frames(one, KEY, look=False).payload == PAYLOAD
    assert extract_frames(two, KEY, look=False).payload == OTHER_PAYLOAD
    for plain in drawn_by_hand(latents):
        assert extract_frames(plain, KEY, look=False).status is MarkStatus.NONE


def test_strength_scales_the_change_linearly_and_sets_its_level(plain_profile: Profile) -> None:
    latents = random_latents(1)
    change = {s: embed_latents(latents, PAYLOAD, KEY, plain_profile, LAYOUT, strength=s) - latents for s in (0.5, 1, 3)}
    torch.testing.assert_close(change[0.5] * 2, change[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(change[3], change[1] * 3, atol=1e-5, rtol=1e-4)
    assert decibels(change[1], plain_profile) == pytest.approx(PSNR, abs=0.2)


def decibels(change: torch.Tensor, profile: Profile) -> float:
    lengths = torch.tensor([stop - start for start, stop in LAYOUT.spans(LATENT_FRAMES)], dtype=torch.float32)
    power = (change.square().mean(dim=(0, 1, 3, 4)) @ lengths) / lengths.sum()
    return 20 * math.log10(255 / (float(power.sqrt()) * profile.gain))


def test_the_change_is_the_pattern_times_the_weights(plain_profile: Profile) -> None:
    latents = scene()
    change = embed_latents(latents, PAYLOAD, KEY, plain_profile, LAYOUT) - latents
    side = SUBCELLS * CELLS
    pictures = torch.from_numpy(pattern_pictures(PAYLOAD, KEY, LAYOUT.spans(LATENT_FRAMES), side, side))
    fine = nnf.interpolate(
        latent_visibility.weights(latents, PREVIEW), (side, side), mode="bilinear", align_corners=False
    )
    wanted = (pictures * fine[0, :, None]).reshape(LATENT_FRAMES, 3, CELLS, SUBCELLS, CELLS, SUBCELLS)
    wanted = wanted.permute(1, 3, 5, 0, 2, 4).reshape(change.shape)
    level = 255 * 10 ** (-PSNR / 20) / plain_profile.gain
    torch.testing.assert_close(change, level * wanted, atol=1e-3, rtol=1e-3)
    assert decibels(change, plain_profile) == pytest.approx(PSNR, abs=0.5)


# What the eye forgives


def scene(batch: int = 1) -> torch.Tensor:
    """Latents of mid-grey: calm on the left, of fine detail at the upper right, changing at the lower right."""
    luma = torch.zeros(LATENT_FRAMES, CELLS, CELLS)
    y, x = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
    luma += torch.where((y < 6) & (x >= 6), 60.0 * ((x + y) % 2) - 30.0, torch.zeros(CELLS, CELLS))
    luma[::2] += torch.where((y >= 6) & (x >= 6), 40.0, 0.0)
    latents = torch.zeros(batch, PATTERN_CHANNELS, LATENT_FRAMES, CELLS, CELLS)
    latents[:, : SUBCELLS**2] = luma
    return latents


def even(level: float) -> torch.Tensor:
    """Latents of a picture that is one grey all over."""
    latents = torch.zeros(1, PATTERN_CHANNELS, LATENT_FRAMES, CELLS, CELLS)
    latents[:, : SUBCELLS**2] = level - 128
    return latents


HOSTS = {
    "a scene": scene(2),
    "noise": torch.randn(2, PATTERN_CHANNELS, 7, 12, 16, generator=torch.Generator().manual_seed(0)) * 60,
    "one frame": scene()[:, :, :1],
    "one cell": scene()[:, :, :, :1, :1],
    "black": even(0),
    "white": even(255),
    "mid-grey": even(127),
    "blacker than black": even(-5000),
    "half black, half mid-grey": torch.cat([even(0), even(127)], dim=4),
    "half precision": scene().half(),
}


@pytest.mark.parametrize("name", list(HOSTS))
def test_weights_are_finite_bounded_and_of_unit_power_in_every_frame(name: str) -> None:
    host = HOSTS[name]
    weights = latent_visibility.weights(host, PREVIEW)
    assert weights.shape == (len(host), *host.shape[2:])
    assert weights.dtype == torch.float32
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights.square().mean(dim=(2, 3)), torch.ones(weights.shape[:2]), atol=1e-4, rtol=0)
    spread = math.sqrt(visibility.HIGHEST / visibility.LOWEST)
    assert float((weights.amax(dim=(2, 3)) / weights.amin(dim=(2, 3))).max()) <= spread + 1e-4


@pytest.mark.parametrize("name", ["black", "white", "mid-grey", "one cell"])
def test_where_nothing_differs_all_weights_are_one(name: str) -> None:
    host = HOSTS[name][:, :, :1]
    torch.testing.assert_close(latent_visibility.weights(host, PREVIEW), torch.ones(1, 1, *host.shape[3:]))


def test_weights_are_lower_where_calm_mid_grey_would_show_the_pattern() -> None:
    weights = latent_visibility.weights(scene(), PREVIEW)[0]
    calm, busy, changing = weights[:, :, :4], weights[:, :4, 8:], weights[:, 8:, 8:]
    assert float(calm.max()) < 0.9 * float(busy.min())
    assert float(calm.max()) < 0.9 * float(changing.min())


@pytest.mark.parametrize("level", [0.0, 20.0, 255.0])
def test_weights_are_lower_at_mid_grey_than_in_the_dark_and_in_the_light(level: float) -> None:
    weights = latent_visibility.weights(torch.cat([even(127), even(level)], dim=4), PREVIEW)[0]
    assert float(weights[:, :, : CELLS - 2].max()) < 0.9 * float(weights[:, :, CELLS + 2 :].min())


def test_weights_know_each_clip_of_a_batch_by_itself() -> None:
    both = torch.cat([scene(), even(127)])
    together = latent_visibility.weights(both, PREVIEW)
    for n in range(2):
        torch.testing.assert_close(together[n : n + 1], latent_visibility.weights(both[n : n + 1], PREVIEW))


def test_a_payload_reads_from_a_scene_that_the_weights_reshape(plain_profile: Profile) -> None:
    marked = embed_latents(scene(), PAYLOAD, KEY, plain_profile, LAYOUT)
    assert extract_frames(drawn_by_hand(marked)[0], KEY, look=False).payload == PAYLOAD


# What is refused


@pytest.mark.parametrize("strength", [0, -1, 9, math.nan, math.inf])
def test_a_strength_out_of_range_is_refused(strength: float, plain_profile: Profile) -> None:
    with pytest.raises(WatermarkError, match="strength"):
        embed_latents(random_latents(1), PAYLOAD, KEY, plain_profile, LAYOUT, strength=strength)


def test_payloads_must_be_as_many_as_clips_and_clips_long_enough(plain_profile: Profile) -> None:
    with pytest.raises(WatermarkError, match="2 clips need 2 payloads"):
        embed_latents(random_latents(2), PAYLOAD, KEY, plain_profile, LAYOUT)
    with pytest.raises(WatermarkError, match="too short"):
        embed_latents(random_latents(1)[:, :, :2], PAYLOAD, KEY, plain_profile, LAYOUT)
    with pytest.raises(PayloadError):
        embed_latents(random_latents(1), PAYLOAD, b"short", plain_profile, LAYOUT)


@pytest.mark.parametrize("content_id", ["zz", "", "0123456789abcdefff"])
def test_a_malformed_content_id_is_refused(content_id: str, plain_profile: Profile) -> None:
    with pytest.raises(PayloadError):
        embed_latents(random_latents(1), Payload(ContentId(content_id)), KEY, plain_profile, LAYOUT)
