"""Measure a VAE's profile: the filter that turns a pattern of pixels into the latents that draw it.

Two stages. *Fit* (seconds, any VAE with an encoder): what the encoder makes of a picture with the pattern, minus what
it makes of the picture without, fitted by least squares. *Refine* (minutes, by choice): a few hundred steps of Adam on
the filter, through the decoder, so that what comes out is the pattern and little else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.types import ContentId, Json
from safegen.watermark import fastvae
from safegen.watermark.base import Progress
from safegen.watermark.clip.latent_residual import pattern_pictures
from safegen.watermark.clip.pattern import TO_RGB
from safegen.watermark.clip.profile import PATTERN_CHANNELS, SUBCELLS, Profile, weights_digest
from safegen.watermark.layouts import Layout, reaches, strides
from safegen.watermark.payload import Payload

CELLS = 12
LATENT_FRAMES = 7
CLIPS = 24
LEVEL = 2.0
"""Root mean square of the patterns that are tried, in 8-bit levels."""

FIRST_FRAMES, LEAST_GAIN = 3, 0.25
"""Latent frames whose gain is measured by themselves, and the least of the whole clip's that it may be."""

RIDGE = 1e-3
REFINE_RATE = 1e-3
"""Of the second stage, relative to the filter's own root mean square."""

_RGB = torch.from_numpy(TO_RGB)


def calibrate(
    vae: Any,
    *,
    latents: Tensor | None = None,
    refine: int = 0,
    seed: int = 0,
    clips: int = CLIPS,
    cells: int = CELLS,
    progress: Progress | None = None,
) -> Profile:
    """Return the profile of ``vae``.

    ``latents`` [N, C, T, h, w], normalised, are of clips that the model drew; without them smooth random clips are
    encoded. ``refine`` steps of the second stage. The first one looks at ``clips`` of ``cells`` x ``cells`` latent
    cells. Raises WatermarkError for VAEs of an unknown family and for those that do not answer to the pattern at all.
    """
    if not reaches(vae):
        raise WatermarkError(
            f"{type(vae).__name__} is of no family whose latents are known", remedy="Use the pixel scheme."
        )
    tick = progress or (lambda _done, _total: None)
    total = clips + refine + 2
    random = np.random.default_rng(seed)
    device = next(vae.parameters()).device
    cell, stride = strides(vae)
    layout = Layout("BCTHW", cell, stride)
    inputs, outputs = [], []
    for n in range(clips):
        video = smooth_clip(random, layout.spans(LATENT_FRAMES)[-1][1], cells * cell).to(device)
        drawn = random_pattern(random, layout, (LATENT_FRAMES, cells, cells), LEVEL)
        with torch.no_grad():
            shown = (video + paint(drawn, video.shape[3:], layout).to(device) / 127.5).clamp(-1, 1)
            outputs.append((fastvae.encode(vae, shown) - fastvae.encode(vae, video)).cpu())
        inputs.append(drawn)
        tick(n + 1, total)
    body, first = _fit(torch.cat(inputs), torch.cat(outputs))
    hosts = latents
    if hosts is None:
        drawn_clips = [smooth_clip(random, layout.spans(LATENT_FRAMES)[-1][1], cells * cell) for _ in range(8)]
        with torch.no_grad():
            hosts = torch.cat([fastvae.encode(vae, c.to(device)).cpu() for c in drawn_clips])
    profile = Profile(weights_digest(vae), body, first, 1.0, _preview(vae, hosts[:8], layout))
    gain, share, frame_gains = _measure(vae, profile, hosts[:2], layout, seed)
    if refine:
        refined = _refine(vae, profile, hosts, layout, refine, random, lambda n: tick(clips + n, total))
        better = _measure(vae, refined, hosts[:2], layout, seed)
        if better[1] > share:
            profile, (gain, share, frame_gains) = refined, better
    tick(total, total)
    if not gain > 0:
        raise WatermarkError("the VAE does not draw the pattern", remedy="Use the pixel scheme for this pipeline.")
    notes: dict[str, Json] = {"clips": clips, "refine_steps": refine, "energy_in_the_pattern": round(share, 3)}
    return replace(profile, gain=gain, notes=notes, frame_gains=frame_gains)


def smooth_clip(random: np.random.Generator, frames: int, side: int) -> Tensor:
    """A clip of moving coloured clouds in [-1, 1]: [1, 3, frames, side, side]."""
    small = torch.from_numpy(random.normal(size=(1, 3, 3, 4, 4)).astype(np.float32))
    fine = torch.from_numpy(random.normal(size=(1, 3, 3, 24, 24)).astype(np.float32))
    size = (frames, side, side)
    clouds = [nnf.interpolate(c, size, mode="trilinear", align_corners=True) for c in (small, fine)]
    return (0.45 * clouds[0] + 0.12 * clouds[1]).clamp(-0.95, 0.95)


def paint(drawn: Tensor, size: Sequence[int], layout: Layout) -> Tensor:
    """Blow a pattern [1, T, 3, 4h, 4w] up to pixels and frames: RGB levels [1, 3, frames, height, width]."""
    pictures = nnf.interpolate(drawn[0], tuple(size), mode="bicubic", align_corners=False)
    rgb = torch.einsum("rc,tchw->rthw", _RGB.to(pictures), pictures)
    lengths = [stop - start for start, stop in layout.spans(drawn.shape[1])]
    return torch.repeat_interleave(rgb, torch.tensor(lengths, device=rgb.device), dim=1)[None]


def random_pattern(random: np.random.Generator, layout: Layout, shape: tuple[int, int, int], level: float) -> Tensor:
    """The pattern of a random mark over latents of ``shape`` (T, h, w): [1, T, 3, 4h, 4w], of RMS ``level``."""
    t, h, w = shape
    payload = Payload(ContentId(random.bytes(8).hex()))
    key = hashlib.sha256(random.bytes(32)).digest()
    drawn = level * pattern_pictures(payload, key, layout.spans(t), SUBCELLS * h, SUBCELLS * w)
    return torch.from_numpy(drawn)[None]


def _cells(drawn: Tensor) -> Tensor:
    b, t, _, height, width = drawn.shape
    h, w = height // SUBCELLS, width // SUBCELLS
    cells = drawn.reshape(b, t, 3, h, SUBCELLS, w, SUBCELLS).permute(0, 2, 4, 6, 1, 3, 5)
    return cells.reshape(b, PATTERN_CHANNELS, t, h, w)


def _fit(drawn: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares with a little shrinkage: (body, first) of ``Profile``."""
    x = nnf.pad(_cells(drawn), (1, 1, 1, 1, 0, 0), mode="replicate")
    near = x.unfold(3, 3, 1).unfold(4, 3, 1)  # [B, 48, T, h, w, 3, 3]
    late = torch.cat([near, near[:, :, -1:]], dim=2).unfold(2, 3, 1)  # [B, 48, T-1, h, w, 3, 3, 3t]
    body = _solve(late.permute(0, 2, 3, 4, 1, 7, 5, 6), answers[:, :, 1:], 3)
    early = near[:, :, :2].permute(0, 3, 4, 1, 2, 5, 6)[:, None]
    return body, _solve(early, answers[:, :, :1], 2)


def _solve(features: Tensor, answers: Tensor, frames: int) -> Tensor:
    c = answers.shape[1]
    a = features.reshape(-1, PATTERN_CHANNELS * frames * 9).double()
    b = answers.permute(0, 2, 3, 4, 1).reshape(-1, c).double()
    gram = a.T @ a
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved: Tensor = torch.linalg.solve(gram + ridge, a.T @ b)
    return solved.T.reshape(c, PATTERN_CHANNELS, frames, 3, 3).float()


def _preview(vae: Any, hosts: Tensor, layout: Layout) -> Tensor:
    """Least squares of the decoded cells' mean luma on their latents: ``Profile.preview``."""
    features, answers = [], []
    for host in hosts:
        with torch.no_grad():
            video = fastvae.decode(vae, host[None].to(next(vae.parameters()).device)).float().cpu()
        luma = torch.einsum("c,cthw->thw", torch.tensor([0.299, 0.587, 0.114]), (video[0].clamp(-1, 1) + 1) * 127.5)
        cells = nnf.adaptive_avg_pool2d(luma[None], tuple(host.shape[2:]))[0]
        answers.append(torch.stack([cells[a:b].mean(0) for a, b in layout.spans(host.shape[1])]).flatten())
        flat = host.float().cpu().permute(1, 2, 3, 0).reshape(-1, len(host))
        features.append(torch.cat([flat, torch.ones(len(flat), 1)], dim=1))
    a, b = torch.cat(features).double(), torch.cat(answers).double()
    gram = a.T @ a
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    fitted: Tensor = torch.linalg.solve(gram + ridge, a.T @ b)
    return fitted.float()


def _refine(
    vae: Any, profile: Profile, hosts: Tensor, layout: Layout, steps: int, random: np.random.Generator, tick: Any
) -> Profile:
    """Raise the share of the decoded change's energy that is the pattern."""
    body, first = profile.body.clone().requires_grad_(True), profile.first.clone().requires_grad_(True)
    rate = REFINE_RATE * float(profile.body.square().mean().sqrt())
    optimiser = torch.optim.Adam([body, first], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.1)
    for step in range(steps):
        host = hosts[int(random.integers(len(hosts)))][None].to(next(vae.parameters()).device)
        change, wanted = _draw(vae, replace(profile, body=body, first=first), host, layout, random)
        share = (change * wanted).sum() / (change.square().sum() * wanted.square().sum()).sqrt()
        level = (change.square().mean() / wanted.square().mean()).log()
        loss = -share.clamp(min=1e-3).log() + 0.02 * level.square()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        tick(step + 1)
    return replace(profile, body=body.detach(), first=first.detach())


def _draw(
    vae: Any, profile: Profile, host: Tensor, layout: Layout, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Decode one random pattern's latents: (what changed, what was wanted), RGB levels [1, 3, T, H, W]."""
    drawn = random_pattern(random, layout, tuple(host.shape[2:]), LEVEL)  # type: ignore[arg-type]
    with torch.no_grad():
        plain = fastvae.decode(vae, host)
    change = (fastvae.decode(vae, host + profile.shape_latents(drawn.to(host.device))) - plain) * 127.5
    return change, paint(drawn, plain.shape[3:], layout).to(host.device)


def _measure(
    vae: Any, profile: Profile, hosts: Tensor, layout: Layout, seed: int
) -> tuple[float, float, tuple[float, ...]]:
    """The profile's gain, the share of the change's energy that is the pattern, and the gain of the first frames."""
    random = np.random.default_rng(seed)
    powers, shares = [], []
    spans = layout.spans(hosts.shape[2])
    with torch.no_grad():
        for host in hosts:
            change, wanted = _draw(vae, profile, host[None].to(next(vae.parameters()).device), layout, random)
            powers.append(change.square().mean(dim=(0, 1, 3, 4)).cpu() / LEVEL**2)
            norm = float(change.square().sum() * wanted.square().sum())
            shares.append(float((change * wanted).sum()) ** 2 / norm if norm > 0 else 0.0)
    power = torch.stack(powers).mean(dim=0)
    gain = float(power.mean().sqrt())
    each = [float(power[start:stop].mean().sqrt()) / max(gain, 1e-12) for start, stop in spans]
    first = each[:FIRST_FRAMES] + ([float(np.mean(each[FIRST_FRAMES:]))] if len(each) > FIRST_FRAMES else [])
    return gain, float(np.mean(shares)), tuple(round(max(g, LEAST_GAIN), 4) for g in first)
