"""The solids of the little world: distances to them, how high they rest, and how they move.

A solid's own axes have their origin at its centre, y up and z towards the viewer; all are about two half-sizes high.
The distances are exact or slightly short outside, which is what sphere tracing needs; inside only their sign counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safegen.tinymodel.training.vocabulary import SIZES
from safegen.tinymodel.training.world import Scene

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def _beyond(*axes: Tensor) -> Tensor:
    """Distance to a box's surface from how far a point lies beyond it along each axis (negative: within)."""
    outside = axes[0].clamp_min(0).square()
    for axis in axes[1:]:
        outside = outside + axis.clamp_min(0).square()
    within = axes[0]
    for axis in axes[1:]:
        within = torch.maximum(within, axis)
    return outside.sqrt() + within.clamp_max(0)


def _ball(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return (x * x + y * y + z * z).sqrt() - 1


def _cube(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    edge, rounding = 0.82, 0.05
    return _beyond(*(v.abs() - (edge - rounding) for v in (x, y, z))) - rounding


def _cylinder(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return _beyond((x * x + z * z).sqrt() - 0.58, y.abs() - 0.95) - 0.04


def _cone(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    slope = 0.42  # radius over height above: 0.84 at the foot
    side = ((x * x + z * z).sqrt() - (1 - y) * slope) / math.hypot(1, slope)
    return torch.maximum(side, -1 - y)


def _pyramid(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    slope = 0.48
    side = (torch.maximum(x.abs(), z.abs()) - (1 - y) * slope) / math.hypot(1, slope)
    return torch.maximum(side, -1 - y)


def _ring(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    around = (x * x + y * y).sqrt() - 0.73
    return (around * around + z * z).sqrt() - 0.27


def _star(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Five points: the plane folded into a tenth, whose one edge is a line from a tip to a notch."""
    radius = (x * x + y * y).sqrt()
    sector = 2 * math.pi / 5
    angle = torch.remainder(torch.atan2(x, y) + sector / 2, sector) - sector / 2
    tip, notch = (1.05, 0.0), (0.47 * math.cos(sector / 2), 0.47 * math.sin(sector / 2))
    along, across = radius * angle.cos(), radius * angle.sin().abs()
    ex, ey = notch[0] - tip[0], notch[1] - tip[1]
    length = math.hypot(ex, ey)
    flat = ((along - tip[0]) * -ey + (across - tip[1]) * ex) / -length
    return _beyond(flat, z.abs() - 0.26) - 0.03


def _heart(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """A square on its corner and a disc on each of its upper sides."""
    side = 0.58  # half of the square's side, and the discs' radius
    half = side * math.sqrt(0.5)
    lowered = y + 0.95 - 2 * half  # the square's lowest corner lies at y = -0.95
    u, v = (x.abs() + lowered) * math.sqrt(0.5), (x.abs() - lowered) * math.sqrt(0.5)
    square = _beyond(u.abs() - side, v.abs() - side)
    disc = ((x.abs() - half).square() + (lowered - half).square()).sqrt() - side
    return _beyond(torch.minimum(square, disc), z.abs() - 0.28) - 0.03


DISTANCES: dict[str, Distance] = {
    "ball": _ball,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": _pyramid,
    "ring": _ring,
    "star": _star,
    "heart": _heart,
}
REACH = {
    "ball": 1.0,
    "cube": 1.37,
    "cylinder": 1.16,
    "cone": 1.31,
    "pyramid": 1.69,
    "ring": 1.0,
    "star": 1.16,
    "heart": 1.15,
}
"""Radius of a sphere about the centre that holds the solid, in half-sizes."""
_REST = {"cube": 0.82, "star": 0.9, "heart": 0.96, "cylinder": 0.99}
_UPRIGHT = ("ring", "star", "heart")  # flat solids that face the viewer: they turn a little only


@dataclass(frozen=True, slots=True)
class Path:
    """Where the solid is at each of T moments: centre x, y, z, turn about the vertical, and half-size; [T] each."""

    x: Tensor
    y: Tensor
    z: Tensor
    yaw: Tensor
    half: float
    rest: float

    def at(self, which: slice) -> Path:
        """Return the path at some of its moments."""
        return Path(self.x[which], self.y[which], self.z[which], self.yaw[which], self.half, self.rest)


def path(scene: Scene, t: Tensor) -> Path:
    """Return where the solid of ``scene`` is at the moments ``t`` in [0, 1], a clip's length."""
    half = SIZES[scene.named.size][0]
    rest = half * _REST.get(scene.named.shape, 1.0)
    x, z = torch.full_like(t, scene.x), torch.full_like(t, scene.z)
    y = torch.full_like(t, rest)
    yaw = torch.full_like(t, scene.yaw if scene.named.shape in _UPRIGHT else 0.6 + scene.yaw)
    match scene.named.motion:
        case "bounce":
            swing = torch.frac(t * 2 + scene.phase)
            y = rest + 1.35 * 4 * swing * (1 - swing)
        case "left" | "right":
            way = 1.0 if scene.named.motion == "right" else -1.0
            x = 0.3 * scene.x + way * (t - 0.5) * 3.2
        case "float":
            y = rest + 0.75 + 0.16 * torch.sin(2 * math.pi * (t + scene.phase))
        case "fall":
            y = rest + (2.1 - 3.6 * (t * 1.05).square()).clamp_min(0)
        case "spin":
            yaw = yaw + 2 * math.pi * t
        case "near":
            z = 0.3 * scene.z - 1.7 + 3.4 * t
            x = 0.5 * x
    return Path(x, y, z, yaw, half, rest)
