"""The moving solids: where they are at each moment, and how far away (signed distances after I. Quilez)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safegen.tinymodel.training.ray_marched.world import SIZES, Scene, Thing

Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Solids:
    """The moving solids of a batch: for each, its centre, its cosines and sines of yaw and roll, its half-size."""

    kinds: tuple[str, ...]
    centres: tuple[Vector, ...]
    turns: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    halves: tuple[Tensor, ...]

    @classmethod
    def place(cls, scenes: Sequence[Scene], t: Tensor) -> Solids:
        """Return the solids of ``scenes`` at the times ``t`` [T] in [0, 1]."""
        kinds = tuple(thing.shape for thing in scenes[0].things)
        centres: list[Vector] = []
        turns, halves = [], []
        for k in range(len(kinds)):
            paths = [_trajectory(s.things[k], t, SIZES[s.things[k].size][0] * 0.95) for s in scenes]
            centre, yaw, roll, half = (torch.stack([p[i] for p in paths])[..., None, None] for i in range(4))
            x, y, z = centre.unbind(2)
            centres.append((x, y, z))
            turns.append((torch.cos(yaw), torch.sin(yaw), torch.cos(roll), torch.sin(roll)))
            halves.append(half)
        return cls(kinds, tuple(centres), tuple(turns), tuple(halves))

    def local(self, k: int, p: Vector) -> Vector:
        """Return the points ``p`` in the axes of solid ``k``."""
        (cx, cy, cz), (cos_yaw, sin_yaw, cos_roll, sin_roll) = self.centres[k], self.turns[k]
        x, y, z = p[0] - cx, p[1] - cy, p[2] - cz
        x, z = cos_yaw * x - sin_yaw * z, sin_yaw * x + cos_yaw * z
        x, y = cos_roll * x + sin_roll * y, -sin_roll * x + cos_roll * y
        return x, y, z

    def distance_to(self, k: int, p: Vector) -> Tensor:
        """Signed distance from the points ``p`` to solid ``k``."""
        return _DISTANCES[self.kinds[k]](*self.local(k, p), self.halves[k])

    def distance(self, p: Vector) -> Tensor:
        """Signed distance from the points ``p`` to the nearest solid."""
        best = self.distance_to(0, p)
        for k in range(1, len(self.kinds)):
            best = torch.minimum(best, self.distance_to(k, p))
        return best

    def normal(self, p: Vector, h: float = 2e-3) -> Vector:
        """Unit normals of the nearest solid, by central differences."""
        x, y, z = p
        nx = self.distance((x + h, y, z)) - self.distance((x - h, y, z))
        ny = self.distance((x, y + h, z)) - self.distance((x, y - h, z))
        nz = self.distance((x, y, z + h)) - self.distance((x, y, z - h))
        inverse = 1 / torch.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
        return nx * inverse, ny * inverse, nz * inverse


def _ball(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y + z * z + 1e-9) - s


def _cube(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    h, r = s * 0.8, s * 0.08
    qx, qy, qz = x.abs() - h + r, y.abs() - h + r, z.abs() - h + r
    out = torch.sqrt(qx.clamp_min(0) ** 2 + qy.clamp_min(0) ** 2 + qz.clamp_min(0) ** 2 + 1e-9)
    return out + torch.maximum(qx, torch.maximum(qy, qz)).clamp_max(0) - r


def _cylinder(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    qr, qy = torch.sqrt(x * x + z * z + 1e-9) - s * 0.65, y.abs() - s
    out = torch.sqrt(qr.clamp_min(0) ** 2 + qy.clamp_min(0) ** 2 + 1e-9)
    return out + torch.maximum(qr, qy).clamp_max(0) - s * 0.03


def _cone(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    side = (torch.sqrt(x * x + z * z + 1e-9) - (s - y) * 0.42) * 0.92
    return torch.maximum(side, y.abs() - s)


def _ring(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    qr = torch.sqrt(x * x + y * y + 1e-9) - s * 0.72
    return torch.sqrt(qr * qr + z * z + 1e-9) - s * 0.27


def _capsule(x: Tensor, y: Tensor, z: Tensor, s: Tensor) -> Tensor:
    qy = (y.abs() - s * 0.55).clamp_min(0)
    return torch.sqrt(x * x + qy * qy + z * z + 1e-9) - s * 0.45


_DISTANCES = {"ball": _ball, "cube": _cube, "cylinder": _cylinder, "cone": _cone, "ring": _ring, "capsule": _capsule}

_REST = {"cube": 0.82, "cylinder": 1.03}  # height of the centre above ground over the half-size; 1 for all else


def _trajectory(o: Thing, t: Tensor, size: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre [T, 3], yaw [T], roll [T] and half-size [T] for ``t`` in [0, 1], about two seconds."""
    rest = size * _REST.get(o.shape, 1.0)
    x, y, z = torch.full_like(t, o.x), torch.full_like(t, rest), torch.full_like(t, o.z)
    yaw, roll, half = torch.full_like(t, o.yaw), torch.zeros_like(t), torch.full_like(t, size)
    match o.motion:
        case "bounce":
            p = torch.frac(t * 2.0 + o.phase)
            y = rest + 4 * 1.5 * p * (1 - p)
        case "left" | "right":
            path = (1.0 if o.motion == "right" else -1.0) * (t - 0.5) * 4.2
            x = o.x * 0.4 + path
            roll = -path / size if o.shape in ("ball", "ring") else roll
            yaw = torch.zeros_like(t) if o.shape == "ring" else yaw
        case "spin":
            yaw = o.yaw + t * 6.28
        case "float":
            y = rest + 1.0 + 0.3 * torch.sin(t * 6.28 + o.phase * 6.28)
            yaw = o.yaw + t * 1.5
        case "fall":
            p = ((t - 0.58) / 0.42).clamp(0, 1)
            y = rest + torch.where(t > 0.58, 4 * 0.45 * p * (1 - p), (4.0 - 9.0 * t * t).clamp_min(0))
        case "circle":
            a = o.phase * 6.28 + t * 6.28
            x, z = o.x * 0.5 + 1.5 * torch.cos(a), 1.5 * torch.sin(a)
        case "grow" | "shrink":
            k = (0.5 + 0.9 * t) if o.motion == "grow" else (1.4 - 0.9 * t)
            half, y = size * k, rest * k
        case "near" | "away":
            z = o.z * 0.3 + (1.0 if o.motion == "near" else -1.0) * (t - 0.5) * 5.0
    return torch.stack([x, y, z], -1), yaw, roll, half
