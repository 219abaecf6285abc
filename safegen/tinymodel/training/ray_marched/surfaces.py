"""What the grounds and solids of the little world look like: hashes, value noise, patterns and materials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safegen.tinymodel.training.ray_marched.world import COLORS, GROUNDS, Thing

frac = torch.frac


def scatter(x: Tensor, y: Tensor) -> Tensor:
    """Return a pseudo-random number in [0, 1) for each pair: the sine hash of shader lore."""
    return torch.frac(torch.sin(x * 127.1 + y * 311.7) * 43758.5453).abs()


def noise(x: Tensor, y: Tensor) -> Tensor:
    """Return smooth value noise in [0, 1), of unit cell size."""
    xi, yi = torch.floor(x), torch.floor(y)
    xf, yf = x - xi, y - yi
    u, v = xf * xf * (3 - 2 * xf), yf * yf * (3 - 2 * yf)
    a, b, c, d = scatter(xi, yi), scatter(xi + 1, yi), scatter(xi, yi + 1), scatter(xi + 1, yi + 1)
    return a + (b - a) * u + (c - a) * v + (a - b - c + d) * u * v


def paint_ground(grounds: Sequence[str], x: Tensor, z: Tensor) -> Tensor:
    """Return the ground's colour [B, T, H, W, 3] at the points (x, z), one kind of ground a video."""

    def per_video(rows: Sequence[object]) -> Tensor:
        return torch.tensor(rows, device=x.device, dtype=torch.float32).view(len(grounds), 1, 1, 1, -1)

    first, second = (per_video([GROUNDS[g][i] for g in grounds]) for i in (0, 1))
    is_checker, is_wood = (per_video([float(g == kind) for g in grounds])[..., 0] for kind in ("checker", "wood"))
    grain = 0.55 * noise(x * 2.3, z * 2.3) + 0.45 * noise(x * 9.0, z * 9.0)
    checker = (torch.floor(x * 0.6) + torch.floor(z * 0.6)) % 2
    plank = (torch.frac(x * 1.1).abs() < 0.06).float() * 0.8 + 0.35 * noise(x * 1.1 // 1 * 7.0, z * 0.6)
    mix = torch.where(is_checker > 0, checker, torch.where(is_wood > 0, plank, grain)).unsqueeze(-1)
    return first * (1 - mix) + second * mix


@dataclass(frozen=True, slots=True)
class Paint:
    """Colour [..., 3], specular strength and reflectance of a solid's surface."""

    color: Tensor
    gloss: Tensor
    mirror: Tensor


_GLOSS = {"matte": 0.05, "glossy": 0.7, "metal": 0.9}
_MIRROR = {"matte": 0.0, "glossy": 0.12, "metal": 0.5}


def paint_solid(kind: str, things: Sequence[Thing], point: tuple[Tensor, Tensor, Tensor], half: Tensor) -> Paint:
    """Return the paint of one solid of each video at ``point``, given in the solid's own axes."""
    a, b, c = point

    def per_video(rows: Sequence[float]) -> Tensor:
        return torch.tensor(rows, device=a.device).view(-1, 1, 1, 1)

    base = torch.tensor([COLORS[o.color] for o in things], device=a.device).view(len(things), 1, 1, 1, 3)
    striped, checkered = (per_video([float(o.texture == t) for o in things]) for t in ("striped", "checkered"))
    if kind in ("cylinder", "cone", "capsule"):
        stripes = (torch.sin(b / half * 9.0) > 0).float()
    else:
        angle = torch.atan2(c, a) if kind != "ring" else torch.atan2(b, a)
        stripes = (torch.sin(angle * 6.0) > 0).float()
    checks = (torch.floor(a / half * 2.5) + torch.floor(b / half * 2.5) + torch.floor(c / half * 2.5)) % 2
    pattern = (striped * stripes + checkered * checks).unsqueeze(-1)
    dark, bright = (torch.tensor(v, device=a.device) for v in ([0.15, 0.15, 0.2], [0.95, 0.95, 0.93]))
    contrast = torch.where(base.mean(-1, keepdim=True) > 0.7, dark, bright)
    other = 0.25 * (1.0 - 0.85 * base) + 0.75 * contrast
    gloss, mirror = (per_video([table[o.material] for o in things]) for table in (_GLOSS, _MIRROR))
    return Paint(base * (1 - pattern) + other * pattern, gloss.expand_as(a), mirror.expand_as(a))
