"""The clip mark in every diffusers family, through the pipeline's own loop and callback.

Random decoders draw nothing that could be read, so what is compared is the change of the latents that the pipeline goes
on with: it must be the profile's answer to the pattern, in the family's own order, for each clip its own payload. The
embedded model's VAE then stands for decoding and reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.watermark import fastvae
from safegen.watermark.calibration import smooth_clip
from safegen.watermark.clip.extraction import extract_frames
from safegen.watermark.clip.latent_residual import PSNR, LatentEmbedder, embed_latents, pattern_pictures
from safegen.watermark.clip.latent_visibility import weights
from safegen.watermark.clip.profile import SUBCELLS, Profile, find, weights_digest
from safegen.watermark.layouts import Layout, call_shape
from safegen.watermark.payload import Payload
from tests import families
from tests.families import BUILDERS
from tests.marked_clips import KEY, OTHER_PAYLOAD, PAYLOAD
from tests.quick import quick

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("exact")]
PAYLOADS = (PAYLOAD, OTHER_PAYLOAD)
IMAGES = ("flux", "sd3", "sdxl", "sdxl_statistics")
LONGER = {"svd": 10, "animatediff": 10, "cogvideox_even": 16}
"""Frames for the families whose usual test clip is too short for a pattern that changes."""

CLIPS = tuple(name for name in BUILDERS if name not in IMAGES)
MIXED = ("wan21", "ltx", "cogvideox", "mochi", "svd")
"""One of each layout and stride: where one is enough."""


def some_profile(channels: int) -> Profile:
    """A filter like no other, about as strong as measured ones are."""
    generator = torch.Generator().manual_seed(4)
    body, first = (0.02 * torch.randn(channels, 48, n, 3, 3, generator=generator) for n in (3, 2))
    preview = torch.zeros(channels + 1)
    preview[-1] = 127  # all clips look grey: the pattern is equally visible everywhere
    return Profile(digest="00" * 32, body=body, first=first, gain=1.5, preview=preview)


@dataclass
class Made:
    """One marked call of a family's pipeline."""

    embedder: LatentEmbedder
    layout: Layout
    output: Tensor
    payloads: Sequence[Payload]

    def change(self) -> Tensor:
        """What was added, unified and in float32."""
        assert self.embedder.marked is not None
        assert self.embedder.clean is not None
        return self.layout.unify(self.embedder.marked).float() - self.layout.unify(self.embedder.clean).float()


def mark(
    name: str, dtype: torch.dtype = torch.float32, swap: bool = False, preview: Tensor | None = None, **options: Any
) -> Made:
    case = families.build(name, dtype)
    if name in LONGER:
        case.call["num_frames"] = LONGER[name]
    shape = call_shape(case.pipe, case.call)
    clips = 1 if name == "ltx_condition" else 2
    payloads = tuple(reversed(PAYLOADS))[:clips] if swap else PAYLOADS[:clips]
    profile = some_profile(case.latents[0])
    if preview is not None:
        profile = replace(profile, preview=preview[: case.latents[0] + 1])
    embedder = LatentEmbedder(payloads, KEY, profile, shape, **options)
    output = case.pipe(
        **case.call,
        output_type="pt" if name == "ltx_condition" else "latent",  # that one hands out a slice of its latents
        callback_on_step_end=embedder,
        callback_on_step_end_tensor_inputs=["latents"],
    )
    assert embedder.clean is not None
    return Made(embedder, Layout.of(case.pipe.vae, embedder.clean, shape), output.frames, payloads)


def wanted_change(made: Made, strength: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """The profile's answer to each payload's pattern, at the level that the strength asks for.

    ``weights`` [B, T, h, w] say how strong it may be where.
    """
    profile = made.embedder.profile
    assert made.embedder.clean is not None
    _, _, frames, rows, columns = made.layout.unify(made.embedder.clean).shape
    level = strength * 255 * 10 ** (-PSNR / 20) / profile.gain
    drawn = [
        level * pattern_pictures(p, KEY, made.layout.spans(frames), SUBCELLS * rows, SUBCELLS * columns)
        for p in made.payloads
    ]
    pattern = torch.from_numpy(np.stack(drawn)).float()
    if weights is not None:
        fine = nnf.interpolate(weights, pattern.shape[-2:], mode="bilinear", align_corners=False)
        pattern = pattern * fine[:, :, None]
    return profile.shape_latents(pattern)


@pytest.mark.parametrize("name", quick(CLIPS, *MIXED))
def test_latents_change_by_the_profiles_answer_to_each_clips_pattern(name: str) -> None:
    made = mark(name)
    wanted = wanted_change(made)
    assert made.change().shape == wanted.shape
    assert torch.allclose(
        made.change(), wanted, atol=2e-5 + 2e-6 * float(made.layout.unify(made.embedder.clean).abs().max())
    )
    assert float(wanted.square().mean().sqrt()) > 1e-3
    assert made.embedder.marked.shape == made.embedder.clean.shape
    if made.layout.lead:  # what the pipeline drops before decoding stays as it was
        lead = made.layout.lead
        assert torch.equal(made.embedder.marked[:, :lead], made.embedder.clean[:, :lead])


@pytest.mark.parametrize("name", MIXED)
def test_the_pattern_is_weighted_by_what_each_clip_shows(name: str) -> None:
    made = mark(name, preview=30 * torch.randn(64, generator=torch.Generator().manual_seed(6)))
    seen = weights(made.layout.unify(made.embedder.clean), made.embedder.profile.preview)
    assert float(seen.std()) > 0.05
    assert torch.allclose(made.change(), wanted_change(made, weights=seen), atol=1e-4)
    assert not torch.allclose(made.change(), wanted_change(made), atol=1e-3)


@pytest.mark.parametrize("name", quick((n for n in CLIPS if n != "ltx_condition"), *MIXED))
def test_the_pipeline_goes_on_with_the_marked_latents(name: str) -> None:
    made = mark(name)
    assert torch.equal(made.layout.unify(made.output), made.layout.unify(made.embedder.marked))
    assert not torch.equal(made.output, made.embedder.clean)


@pytest.mark.parametrize("name", MIXED)
def test_each_clip_of_a_batch_has_its_own_payload(name: str) -> None:
    made, swapped = mark(name), mark(name, swap=True)
    assert torch.allclose(made.change()[0], swapped.change()[1], atol=1e-4)
    assert torch.allclose(made.change()[1], swapped.change()[0], atol=1e-4)
    difference = (made.change()[0] - made.change()[1]).square().mean()
    assert difference > 0.5 * made.change().square().mean()


@pytest.mark.parametrize("name", quick(CLIPS, *MIXED))
def test_latents_of_bfloat16_pipelines_keep_their_type_and_are_rounded_once(name: str) -> None:
    made = mark(name, torch.bfloat16)
    clean, marked = made.embedder.clean, made.embedder.marked
    assert marked.dtype == clean.dtype
    assert clean.dtype == (torch.float32 if name.startswith("ltx") else torch.bfloat16)  # LTX keeps its latents exact
    exact = made.layout.unify(clean).float() + wanted_change(made)
    off = (made.layout.unify(marked).float() - exact).abs()
    assert (off <= 2.0**-8 * exact.abs() + 1e-5).all()
    kept = (made.change() * wanted_change(made)).sum() / wanted_change(made).square().sum()
    assert kept == pytest.approx(1, abs=0.1)  # rounding is noise, and takes nothing from the mark


@pytest.mark.parametrize("name", MIXED)
def test_marking_again_starts_from_the_clean_latents(name: str) -> None:
    made = mark(name)
    once = made.change()
    made.embedder.remark(2.0)
    assert torch.allclose(made.change(), wanted_change(made, 2.0), atol=1e-4)
    assert torch.allclose(made.change(), 2 * once, atol=1e-4)


@pytest.mark.parametrize("name", ["svd", "animatediff", "cogvideox_even", *IMAGES])
def test_clips_too_short_for_the_pattern_are_refused(name: str) -> None:
    case = families.build(name)
    embedder = LatentEmbedder(PAYLOADS, KEY, some_profile(case.latents[0]), call_shape(case.pipe, case.call))
    with pytest.raises(WatermarkError, match="too short") as caught:
        case.pipe(
            **case.call,
            output_type="latent",
            callback_on_step_end=embedder,
            callback_on_step_end_tensor_inputs=["latents"],
        )
    assert "frames" in caught.value.remedy


def test_one_payload_for_two_clips_is_refused() -> None:
    latents = torch.zeros(2, 16, 3, 6, 4)
    layout = Layout("BCTHW", 8, 4)
    for payloads in (PAYLOAD, [PAYLOAD], [PAYLOAD] * 3):
        with pytest.raises(WatermarkError, match="payloads"):
            embed_latents(latents, payloads, KEY, some_profile(16), layout)


def test_only_the_last_step_is_touched() -> None:
    case = families.build("wan21")
    embedder = LatentEmbedder(PAYLOADS, KEY, some_profile(16), call_shape(case.pipe, case.call))
    seen: list[Tensor] = []

    def hook(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        before = tensors["latents"].clone()
        after = embedder(pipe, step, timestep, tensors)
        seen.append(after["latents"] - before)
        return after

    case.pipe(**case.call, output_type="latent", callback_on_step_end=hook)
    assert [bool(change.any()) for change in seen] == [False, True]
    with pytest.raises(WatermarkError, match="never reached"):
        replace(embedder).remark(1.0)


# -- drawn by a decoder that has learnt to draw -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded() -> tuple[Any, Profile, Tensor]:
    """The embedded model's VAE, its profile, and latents [2, C, T, h, w] of two smooth clips."""
    import safegen

    vae = fastvae.load_vae(Path(safegen.__file__).parent / "tinymodel" / "pipe")
    profile = find(weights_digest(vae))
    assert profile is not None
    with torch.no_grad():
        clips = [fastvae.encode(vae, smooth_clip(np.random.default_rng(n), 13, 192)) for n in range(2)]
    return vae, profile, torch.cat(clips)


@pytest.mark.slow
def test_two_clips_of_a_batch_are_read_each_by_its_own_payload(embedded: tuple[Any, Profile, Tensor]) -> None:
    vae, profile, latents = embedded
    layout = Layout.of(vae, latents)
    marked = embed_latents(latents, PAYLOADS, KEY, profile, layout)
    with torch.no_grad():
        plain, drawn = fastvae.decode(vae, latents), fastvae.decode(vae, marked)
    for clip, payload in zip(drawn, PAYLOADS, strict=True):
        found = extract_frames(levels(clip), KEY, look=False)
        assert found.payload == payload
        assert found.statistic > 1.2 * found.threshold
    assert extract_frames(levels(plain[0]), KEY, look=False).payload is None
    change = (drawn.clamp(-1, 1) - plain.clamp(-1, 1)) * 127.5
    psnr = 10 * torch.log10(255**2 / change.square().mean())
    assert float(psnr) == pytest.approx(PSNR, abs=3)


def levels(video: Tensor) -> Any:
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
