"""Ground and sky of the little world: what a ray sees that meets no solid.

A ray is given as three tensors [T, H, W] (or what broadcasts to it), the eye as three of [T, 1, 1]. Colours are linear,
their first axis is of 3: [3, T, H, W].
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training.vocabulary import GROUNDS, SKIES, Rgb
from safegen.tinymodel.training.world import Scene

Vector = tuple[Tensor, Tensor, Tensor]

_FOG_DEPTH = {"fog": 11.0}
_CLEAR_DEPTH = 34.0  # scene units at which the ground has faded into the horizon by two thirds


def color(rgb: Rgb) -> Tensor:
    """Return a colour as [3, 1, 1, 1]."""
    return torch.tensor(rgb).view(3, 1, 1, 1)


@functools.cache
def _noise_table(side: int = 256) -> Tensor:
    """Smooth noise that repeats, about 0 with deviation 1 and features of some 16 cells: [1, 1, side, side]."""
    dice = torch.Generator().manual_seed(1)
    total = torch.zeros(1, 1, side, side)
    for cells, weight in ((16, 1.0), (32, 0.5), (64, 0.25)):
        coarse = torch.randn(1, 1, cells, cells, generator=dice)
        padded = functional.pad(coarse, (2, 2, 2, 2), mode="circular")
        scale = side // cells
        fine = functional.interpolate(padded, scale_factor=scale, mode="bicubic", align_corners=False)
        total += weight * fine[..., 2 * scale : -2 * scale, 2 * scale : -2 * scale]
    return total / total.std()


def noise(u: Tensor, v: Tensor) -> Tensor:
    """Look the repeating noise up at (u, v) in turns of the whole table; the shape of ``u``."""
    table = _noise_table()
    grid = torch.stack([u - u.floor(), v - v.floor()], -1) * 2 - 1
    flat = functional.grid_sample(
        table, grid.view(1, -1, u.shape[-1], 2), mode="bilinear", padding_mode="border", align_corners=False
    )
    return flat.view(u.shape)


def sky(scene: Scene, ray: Vector) -> Tensor:
    """Return the sky's colour along ``ray``: a gradient, clouds, a low sun's glow, stars."""
    kind = SKIES[scene.named.sky]
    dx, dy, dz = ray
    height = dy.clamp_min(0)
    k = (height * 2.2).clamp_max(1).sqrt()
    seen = color(kind.horizon) + (color(kind.zenith) - color(kind.horizon)) * k
    if kind.clouds:
        depth = 1 / (height + 0.18)
        cloud = noise(dx * depth * 0.11 + scene.texture[0], dz * depth * 0.11 + scene.texture[1])
        cover = (0.5 + 0.6 * cloud).clamp(0, 1) * kind.clouds * (height * 8).clamp_max(1)
        seen = seen + (color(kind.light) * 0.92 - seen) * cover
    if scene.named.sky in ("sunset", "dawn"):
        towards = dx * math.sin(0.6 * scene.sun) - dz * math.cos(0.6 * scene.sun)
        glow = (towards * 0.998 + 0.06 * dy).clamp(0, 1).pow(60) * 0.55
        seen = seen + color(kind.light) * glow * color((0.6, 0.5, 0.35))
    if scene.named.sky == "night":
        seen = seen + _stars(scene, dx, dy, dz)
    return seen


def _stars(scene: Scene, dx: Tensor, dy: Tensor, dz: Tensor) -> Tensor:
    """Soft dots, one in each of a few cells of the directions."""
    u = torch.atan2(dx, -dz) * 7 + 40 * scene.texture[0]
    v = dy * 8 + 40 * scene.texture[1]
    cu, cv = u.floor(), v.floor()
    first = torch.frac(torch.sin(cu * 12.99 + cv * 78.23) * 43758.5).abs()
    second = torch.frac(torch.sin(cu * 39.35 + cv * 11.13) * 24634.6).abs()
    fu, fv = u - cu - 0.15 - 0.7 * first, v - cv - 0.15 - 0.7 * second
    bright = (second * 7.3).frac()
    return torch.exp(-(fu * fu + fv * fv) * 220) * bright * (dy > 0.02) * 0.8


def ground(scene: Scene, eye: Vector, ray: Vector, time: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (albedo [3, T, H, W], x, z, distance) of the ground's points along ``ray``; far off above the horizon."""
    (ex, ey, ez), (dx, dy, dz) = eye, ray
    distance = ey / (-dy).clamp_min(0.012)
    x, z = ex + dx * distance, ez + dz * distance
    kind = GROUNDS[scene.named.ground]
    near = (7.0 / distance).clamp_max(1)  # patterns fade with distance, before they would alias
    ox, oz = scene.texture
    if kind.pattern == "checker":
        edge = 90.0 / distance  # as wide as about a pixel
        cells = (torch.sin(x * 2.6) * edge).clamp(-1, 1) * (torch.sin(z * 2.6) * edge).clamp(-1, 1)
        mix = 0.5 + 0.5 * cells * (12.0 / distance).clamp_max(1)
    elif kind.pattern == "planks":
        gap = (1 - (torch.sin(x * 2.4).abs() * 9)).clamp_min(0) * near
        mix = (
            0.45
            + 0.28 * torch.sin((x * 2.4 / math.pi).floor() * 2.4 + 9 * ox)
            + gap
            + 0.1 * noise(x * 0.4, z * 0.03 + oz)
        )
    elif kind.pattern == "bricks":
        row = (z * 1.5).floor()
        across = (torch.sin((x * 0.75 + 0.5 * row) * math.pi).abs() * 9).clamp_max(1)
        along = (torch.sin(z * 1.5 * math.pi).abs() * 6).clamp_max(1)
        mix = 1 - (0.15 + 0.85 * across * along) * near
        mix = mix * 1.3 + 0.12 * noise(x * 0.06 + ox, z * 0.06 + oz)
    elif kind.pattern == "waves":
        ripples = torch.sin(z * 2.9 + x * 0.7 + time * 5 + 6 * ox) + torch.sin(z * 2.1 - x * 1.1 - time * 4 + 6 * oz)
        mix = 0.5 + 0.4 * ripples * near
    else:
        mix = 0.5 + (0.2 * noise(x * 0.05 + ox, z * 0.05 + oz) + 0.16 * noise(x * 0.21 + oz, z * 0.21 + ox) * near)
    albedo = color(kind.first) + (color(kind.second) - color(kind.first)) * mix.clamp(0, 1)
    return albedo, x, z, distance


def haze(scene: Scene, distance: Tensor) -> Tensor:
    """Return the share of the horizon's colour in what is seen at ``distance``."""
    return 1 - torch.exp(-(distance / _FOG_DEPTH.get(scene.named.sky, _CLEAR_DEPTH)).square())
