"""Captioned clips, drawn quickly: one solid by sphere tracing within its window, ground, sky and shadow in closed form.

Edges are smoothed by coverage: a ray that misses the solid by less than a pixel sees a part of it. What does not change
over a clip is drawn once. Sphere tracing follows J. C. Hart, The Visual Computer 12 (1996).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safegen.tinymodel.training import backdrop
from safegen.tinymodel.training.backdrop import Vector, color
from safegen.tinymodel.training.solids import DISTANCES, REACH, Path, path
from safegen.tinymodel.training.vocabulary import COLORS, SKIES
from safegen.tinymodel.training.world import Caption, Scene, caption, draw_scene

_ZOOM = 2.1  # focal length over half the picture's width
_STEPS = 14
_AT_ONCE = 4  # frames: what is computed on them stays in a processor's cache


def moments(frames: int) -> Tensor:
    """Return the moments [T] of a clip's frames, in [0, 1]."""
    return torch.linspace(0, 1, frames)


@torch.inference_mode()
def render(scene: Scene, t: Tensor, size: int, *, bare: bool = False) -> Tensor:
    """Draw ``scene`` at the moments ``t``: uint8 [T, S, S, 4], RGB and the share of the pixel that the solid covers.

    A ``bare`` scene is drawn without its solid.
    """
    way, sun = path(scene, t), _to_sun(scene)
    if bare:
        way = replace(way, y=way.y + 1e3)  # where it casts no shadow
    camera = _Camera.of(scene, t, size)
    fixed = scene.named.camera == "static"
    lasting = fixed and scene.named.ground != "water"
    scenery = _Scenery.of(scene, camera.at(slice(0, 1)), t[:1], sun) if lasting else None
    video = torch.empty(len(t), size, size, 4, dtype=torch.uint8)
    for start in range(0, len(t), _AT_ONCE):
        now = slice(start, start + _AT_ONCE)
        place, view = way.at(now), camera.at(now)
        seen = scenery or _Scenery.of(scene, view.at(slice(0, 1)) if fixed else view, t[now], sun)
        frames = torch.zeros(len(place.x), size, size, 4)
        frames[..., :3] = seen.lit(place, sun).permute(1, 2, 3, 0)
        if not bare:
            _draw_solid(scene, view, place, sun, frames)
        frames[..., :3].clamp_(0, 1).sqrt_()
        video[now] = frames.mul_(255).round_()
    return video


def draw(rng: random.Random, count: int, frames: int, size: int) -> tuple[Tensor, list[Scene], list[Caption]]:
    """Draw ``count`` clips by lot: uint8 [N, T, S, S, 4], the scenes and their captions."""
    scenes = [draw_scene(rng) for _ in range(count)]
    clips = torch.stack([render(s, moments(frames), size) for s in scenes])
    return clips, scenes, [caption(rng, s.named) for s in scenes]


def draw_stills(rng: random.Random, count: int, size: int) -> tuple[Tensor, list[Scene], list[Caption]]:
    """Draw ``count`` scenes at one moment each: uint8 [N, 1, S, S, 4]."""
    scenes = [draw_scene(rng) for _ in range(count)]
    stills = torch.stack([render(s, torch.tensor([rng.random()]), size) for s in scenes])
    return stills, scenes, [caption(rng, s.named) for s in scenes]


def _to_sun(scene: Scene) -> tuple[float, float, float]:
    height = {"sunset": 0.55, "dawn": 0.6}.get(scene.named.sky, 0.95)
    side = math.cos(height)
    return side * math.sin(scene.sun), math.sin(height), side * math.cos(scene.sun)


@dataclass(frozen=True, slots=True)
class _Camera:
    """Eyes [T, 1, 1] and axes (three of [T, 1, 1] each) of a clip's frames, and the picture's size."""

    eye: Vector
    right: Vector
    up: Vector
    forward: Vector
    size: int

    @classmethod
    def of(cls, scene: Scene, t: Tensor, size: int) -> _Camera:
        azimuth = torch.full_like(t, scene.eye[0])
        height, distance = torch.full_like(t, 2.0 + scene.eye[1]), torch.full_like(t, 6.6 + scene.eye[2])
        pan = torch.zeros_like(t)
        if scene.named.camera in ("pan_left", "pan_right"):
            pan = (t - 0.5) * (0.5 if scene.named.camera == "pan_right" else -0.5)
        if scene.named.camera == "zoom_in":
            distance = distance + 1.4 - 2.8 * t
        ex, ey, ez = distance * torch.sin(azimuth), height, distance * torch.cos(azimuth)
        tilt = torch.atan2(ey - 1.35, distance)
        heading = azimuth - pan  # 0 looks along -z
        cos_h, sin_h, cos_t, sin_t = heading.cos(), heading.sin(), tilt.cos(), tilt.sin()
        zero = torch.zeros_like(t)
        axes = ((ex, ey, ez), (cos_h, zero, -sin_h), (-sin_h * sin_t, cos_t, -cos_h * sin_t))
        forward = (-sin_h * cos_t, -sin_t, -cos_h * cos_t)
        eye, right, up, ahead = (tuple(v.view(-1, 1, 1) for v in axis) for axis in (*axes, forward))
        return cls(eye, right, up, ahead, size)  # type: ignore[arg-type]

    def at(self, which: slice | Tensor) -> _Camera:
        eye, right, up, ahead = (tuple(v[which] for v in a) for a in (self.eye, self.right, self.up, self.forward))
        return _Camera(eye, right, up, ahead, self.size)  # type: ignore[arg-type]

    def rays(self, columns: Tensor, rows: Tensor) -> Vector:
        """Unit rays through the pixels at ``columns`` [.., 1, W] and ``rows`` [.., H, 1]."""
        px = (columns + 0.5) * (2 / self.size) - 1
        py = 1 - (rows + 0.5) * (2 / self.size)
        inverse = 1 / (px * px + py * py + _ZOOM**2).sqrt()
        px, py, ahead = px * inverse, py * inverse, _ZOOM * inverse
        return tuple(  # type: ignore[return-value]
            f * ahead + r * px + u * py for f, r, u in zip(self.forward, self.right, self.up, strict=True)
        )

    def project(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return columns, rows and depths [T] of points [T]."""
        ex, ey, ez = (e.flatten() for e in self.eye)
        away = (x - ex, y - ey, z - ez)
        axes = (self.right, self.up, self.forward)
        across, upward, depth = (_dot(away, (a.flatten(), b.flatten(), c.flatten())) for a, b, c in axes)
        half = self.size / 2
        return half + half * _ZOOM * across / depth, half - half * _ZOOM * upward / depth, depth


@dataclass(frozen=True, slots=True)
class _Scenery:
    """Ground and sky without the solid.

    Colours [3, T, .., S] of the sky down to row ``bottom``; of the ground from row ``top`` on what sun, open sky and
    haze add, its points' x and z, and its share of the pixels at the horizon.
    """

    above: Tensor
    by_sun: Tensor
    by_sky: Tensor
    by_haze: Tensor
    x: Tensor
    z: Tensor
    share: Tensor
    top: int
    bottom: int

    @classmethod
    def of(cls, scene: Scene, camera: _Camera, t: Tensor, sun: Sequence[float]) -> _Scenery:
        pixels = torch.arange(camera.size, dtype=torch.float32)
        ray = camera.rays(pixels.view(1, 1, -1), pixels.view(1, -1, 1))
        time, kind = t.view(-1, 1, 1), SKIES[scene.named.sky]
        top, bottom = _horizon_rows(camera)
        upper: Vector = tuple(v[:, :bottom] for v in ray)  # type: ignore[assignment]
        lower: Vector = tuple(v[:, top:] for v in ray)  # type: ignore[assignment]
        above = backdrop.sky(scene, upper)
        albedo, x, z, distance = backdrop.ground(scene, camera.eye, lower, time)
        if scene.named.ground == "water":  # the flatter the view, the more it mirrors the sky
            fresnel = 0.06 + 0.5 * (1 + lower[1].clamp(-1, 0)).pow(6)
            albedo = albedo + (color(kind.horizon) - albedo) * fresnel
        haze = backdrop.haze(scene, distance)
        albedo = albedo * (1 - haze) * (0.5 + 0.5 * color(kind.light))
        share = (lower[1][:, : bottom - top] * (-0.5 * camera.size * _ZOOM) + 0.5).clamp(0, 1)
        by_sun, by_sky = albedo * (kind.sun * sun[1]), albedo * kind.ambient
        return cls(above, by_sun, by_sky, color(kind.horizon) * haze, x, z, share, top, bottom)

    def lit(self, way: Path, sun: Sequence[float]) -> Tensor:
        """Return the picture [3, T, S, S] with the solid's shadow in it."""
        direct, contact = _shadow(way, self.x, self.z, sun)
        lit = self.by_sun * direct + self.by_sky * contact + self.by_haze
        size, edge = self.x.shape[-1], self.bottom - self.top
        picture = torch.empty(3, lit.shape[1], size, size)
        picture[:, :, : self.bottom] = self.above
        picture[:, :, self.bottom :] = lit[:, :, edge:]
        horizon = picture[:, :, self.top : self.bottom]
        horizon += (lit[:, :, :edge] - horizon) * self.share
        return picture


def _horizon_rows(camera: _Camera) -> tuple[int, int]:
    """Return the rows between which the horizon lies, with a margin."""
    half = camera.size / 2
    at = half - half * _ZOOM * (-camera.forward[1] / camera.up[1]).flatten()
    top, bottom = int(at.min().item()) - 3, int(at.max().item()) + 4
    return min(max(top, 0), camera.size - 1), min(max(bottom, 1), camera.size)


def _shadow(way: Path, x: Tensor, z: Tensor, sun: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the shares [T, H, W] of sunlight and of sky light that reach the ground past the solid."""
    cx, cy, cz = (v.view(-1, 1, 1) for v in (way.x, way.y, way.z))
    lift = (cy - way.rest).clamp_min(0)
    reach = cy / sun[1]
    dx, dz = x - cx + sun[0] * reach, z - cz + sun[2] * reach
    flat = math.hypot(sun[0], sun[2])
    along, across = (dx * sun[0] + dz * sun[2]) / flat, (dx * sun[2] - dz * sun[0]) / flat
    round_ = ((along * sun[1]).square() + across.square()).sqrt() / (0.85 * way.half)
    soft = 0.2 + 0.12 * lift
    direct = 1 - 0.75 * ((1 + soft - round_) / (2 * soft)).clamp(0, 1)
    under = ((x - cx).square() + (z - cz).square()) / way.half**2
    contact = 1 - 0.6 * torch.exp(-under * 1.1) / (1 + 2.5 * lift)
    return direct, contact


def _dot(a: Vector, b: Vector | tuple[float, float, float]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# --- the solid ------------------------------------------------------------------------------------


def _draw_solid(scene: Scene, camera: _Camera, way: Path, sun: Sequence[float], video: Tensor) -> None:
    """Draw the solid over ``video`` [T, S, S, 4] in place, and its coverage into the last channel."""
    size, frames = camera.size, len(way.x)
    column, row, depth = camera.project(way.x, way.y, way.z)
    radius = REACH[scene.named.shape] * way.half
    margin = (0.5 * size * _ZOOM * radius / (depth - radius).clamp_min(0.5)) + 2
    left, top = (column - margin).floor().clamp(0, size - 1), (row - margin).floor().clamp(0, size - 1)
    right, bottom = (column + margin).ceil().clamp(1, size), (row + margin).ceil().clamp(1, size)
    wide, high = int((right - left).max().item()), int((bottom - top).max().item())
    left, top = left.clamp_max(size - wide), top.clamp_max(size - high)
    columns = left.view(-1, 1, 1) + torch.arange(wide).view(1, 1, -1)
    rows = top.view(-1, 1, 1) + torch.arange(high).view(1, -1, 1)
    seen, cover = _shade(scene, camera, way, sun, camera.rays(columns, rows), radius)
    for i in range(frames):
        y, x = int(top[i].item()), int(left[i].item())
        window = video[i, y : y + high, x : x + wide]
        window[..., :3].lerp_(seen[:, i].permute(1, 2, 0), cover[i].unsqueeze(-1))
        window[..., 3] = cover[i]


def _shade(
    scene: Scene, camera: _Camera, way: Path, sun: Sequence[float], ray: Vector, radius: float
) -> tuple[Tensor, Tensor]:
    """Return colour [3, T, H, W] and coverage [T, H, W] of the solid along ``ray``."""
    distance = DISTANCES[scene.named.shape]
    cos, sin = way.yaw.cos().view(-1, 1, 1), way.yaw.sin().view(-1, 1, 1)

    def turned(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return cos * x - sin * z, sin * x + cos * z

    half = way.half
    ox, oy, oz = ((e - c.view(-1, 1, 1)) / half for e, c in zip(camera.eye, (way.x, way.y, way.z), strict=True))
    (lx, lz), (dx, dz), dy = turned(ox, oz), turned(ray[0], ray[2]), ray[1]
    middle = -(lx * dx + oy * dy + lz * dz)  # where the ray passes the centre
    pixel = 2 / (camera.size * _ZOOM) * middle  # as wide as a pixel is there
    end = middle + radius / half
    along = middle - radius / half
    closest = torch.full_like(along, 9.0)
    for _ in range(_STEPS):
        free = distance(lx + dx * along, oy + dy * along, lz + dz * along)
        closest = torch.minimum(closest, free)
        along = torch.minimum(along + free, end)
    cover = (1 - closest / pixel).clamp(0, 1)
    x, y, z = lx + dx * along, oy + dy * along, lz + dz * along
    near = 0.01
    corners = ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))
    slopes = [distance(x + near * a, y + near * b, z + near * c) for a, b, c in corners]
    first, second, third, fourth = slopes
    nx, ny, nz = first - second - third + fourth, fourth + third - first - second, fourth + second - first - third
    inverse = 1 / (nx * nx + ny * ny + nz * nz + 1e-9).sqrt()
    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
    nx, nz = cos * nx + sin * nz, cos * nz - sin * nx  # back from the solid's axes
    kind = SKIES[scene.named.sky]
    base = color(COLORS[scene.named.color][0])
    # mild light on things: whatever the sky, their colours can be told
    tint = 0.6 + 0.4 * color(kind.light)
    normal, to_sun = (nx, ny, nz), (sun[0], sun[1], sun[2])
    facing = _dot(normal, to_sun).clamp_min(0)
    view = _dot(normal, ray)
    mirror = (ray[0] - 2 * view * nx, ray[1] - 2 * view * ny, ray[2] - 2 * view * nz)
    shine = _dot(mirror, to_sun).clamp_min(0).pow(24) * 0.35
    rim = (1 + view).clamp(0, 1).pow(3) * 0.22
    bright = 0.6 + 0.4 * min(1.0, kind.sun + kind.ambient)
    ambient = 0.5 + 0.15 * ny
    seen = base * (tint * (bright * (0.62 * facing + ambient))) + tint * (bright * shine) + color(kind.horizon) * rim
    return seen, cover
