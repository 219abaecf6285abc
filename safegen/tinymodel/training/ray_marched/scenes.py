"""Procedural captioned video: ray-marched scenes of moving solids on a ground under a sky, drawn in torch.

Everything is drawn in float32 on one device. One batch shares its shapes, so that the distance function branches in
Python; all else differs per video. Tensors of a picture are [B, T, H, W], colours have a last axis of 3, and what is
constant over a video is [B, 1, 1, 1]. Sphere tracing follows J. C. Hart, "Sphere tracing", The Visual Computer 12
(1996); the soft shadows follow I. Quilez's article on them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training.ray_marched.solids import Solids, Vector
from safegen.tinymodel.training.ray_marched.surfaces import frac, noise, paint_ground, paint_solid, scatter
from safegen.tinymodel.training.ray_marched.world import SKIES, Rgb, Scene, caption, draw_kinds, draw_scene

_FAR = 60.0  # scene units; nothing further away is drawn
_MARCH_STEPS, _SHADOW_STEPS = 30, 9
_ZOOM = 2.1  # focal length over half the picture's width
_GAMMA = 1.6


@torch.no_grad()
def render(
    batch: int,
    *,
    frames: int,
    size: int,
    seed: int,
    device: torch.device | str = "cpu",
    plain: bool = False,
) -> tuple[Tensor, list[str]]:
    """Draw ``batch`` scenes: uint8 [B, T, S, S, 4] (RGB, and 255 where a solid is seen), and their captions."""
    rng = random.Random(seed)  # noqa: S311  # scenes are drawn by lot, keys are not
    kinds = draw_kinds(rng)
    scenes = [draw_scene(rng, kinds, plain=plain) for _ in range(batch)]
    captions = [caption(rng, s) for s in scenes]
    t = torch.linspace(0, 1, frames, device=device)
    solids = Solids.place(scenes, t)
    eye, ray = _camera_rays(scenes, rng, t, size)
    light = Light.of(scenes, rng, t)
    hit = _trace(solids, eye, ray)
    image = _shade(scenes, solids, light, ray, hit)
    image = _weather(scenes, light, image)
    image = _soften(image.clamp(0, 1).pow(1 / _GAMMA))
    video = torch.cat([(image * 255).round(), hit.on_solid.unsqueeze(-1) * 255.0], -1)
    return video.to(torch.uint8), captions


def _per_video(rows: Sequence[float | bool], like: Tensor) -> Tensor:
    """One number a video as [B, 1, 1, 1]."""
    return torch.tensor([float(r) for r in rows], device=like.device).view(-1, 1, 1, 1)


def _colors(rows: Sequence[Rgb], like: Tensor) -> Tensor:
    """One colour a video as [B, 1, 1, 1, 3]."""
    return torch.tensor(rows, device=like.device).view(len(rows), 1, 1, 1, 3)


# --- camera and light -----------------------------------------------------------------------------


def _camera_path(kind: str, t: Tensor, jitter: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Return the eye [T, 3] and the pan angle [T] of a camera move."""
    azimuth, distance = torch.full_like(t, jitter[0]), torch.full_like(t, 7.4 + jitter[1])
    height, pan = torch.full_like(t, 2.6 + jitter[2]), torch.zeros_like(t)
    match kind:
        case "pan_left":
            pan = 0.35 - 0.7 * t
        case "pan_right":
            pan = -0.35 + 0.7 * t
        case "zoom_in":
            distance = 9.6 - 4.2 * t
        case "zoom_out":
            distance = 5.4 + 4.2 * t
        case "orbit_left":
            azimuth = azimuth - 0.6 + 1.2 * t
        case "orbit_right":
            azimuth = azimuth + 0.6 - 1.2 * t
        case "crane_up":
            height = 1.2 + 4.2 * t
    return torch.stack([distance * torch.sin(azimuth), height, distance * torch.cos(azimuth)], -1), pan


def _camera_rays(scenes: Sequence[Scene], rng: random.Random, t: Tensor, size: int) -> tuple[Vector, Vector]:
    """Return the eyes [B, T, 1, 1] and the unit rays [B, T, H, W] of every pixel, as vectors."""
    moves = []
    for scene in scenes:
        jitter = (rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.8), rng.uniform(-0.8, 1.0))
        moves.append(_camera_path(scene.camera, t, jitter))
    eye, pan = (torch.stack([m[i] for m in moves]) for i in (0, 1))
    forward = functional.normalize(torch.tensor([0.0, 1.0, 0.0], device=t.device) - eye, dim=-1)
    cos, sin, (fx, fy, fz) = torch.cos(pan), torch.sin(pan), forward.unbind(-1)
    forward = torch.stack([cos * fx - sin * fz, fy, sin * fx + cos * fz], -1)
    above = torch.tensor([0.0, 1.0, 0.0], device=t.device).expand_as(forward)
    right = functional.normalize(torch.linalg.cross(forward, above), dim=-1)
    up = torch.linalg.cross(right, forward)
    px, py = pixel_grid(size, t)

    def pixels(v: Tensor, i: int) -> Tensor:
        return v[..., i, None, None]

    dx, dy, dz = (pixels(forward, i) * _ZOOM + pixels(right, i) * px + pixels(up, i) * py for i in range(3))
    inverse = 1 / torch.sqrt(dx**2 + dy**2 + dz**2)
    return (pixels(eye, 0), pixels(eye, 1), pixels(eye, 2)), (dx * inverse, dy * inverse, dz * inverse)


def pixel_grid(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixel centres' x [1, 1, 1, S] and y [1, 1, S, 1] in [-1, 1], y pointing up."""
    g = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) / size * 2 - 1
    return g[None, None, None, :], -g[None, None, :, None]


_CLOUDS = {"day": 0.5, "sunset": 0.6, "night": 0.15, "overcast": 0.9, "dawn": 0.5}
_ELEVATION = {"day": 0.95, "sunset": 0.42, "night": 0.8, "overcast": 1.1, "dawn": 0.45}


@dataclass(frozen=True, slots=True)
class Light:
    """Sky and sun of a batch: colours [B, 1, 1, 1, 3], vector to the sun, amounts [B, 1, 1, 1], time [1, T, 1, 1]."""

    zenith: Tensor
    horizon: Tensor
    sun: Tensor
    ambient: Tensor
    night: Tensor
    clouds: Tensor
    to_sun: Vector
    time: Tensor

    @classmethod
    def of(cls, scenes: Sequence[Scene], rng: random.Random, t: Tensor) -> Light:
        """Return the light of ``scenes``; where the sun stands is drawn by lot."""
        skies = [SKIES[s.sky] for s in scenes]
        azimuth = _per_video([rng.uniform(-1.2, 1.2) for _ in scenes], t)
        elevation = _per_video([_ELEVATION[s.sky] for s in scenes], t)
        x, y, z = torch.sin(azimuth) * torch.cos(elevation), torch.sin(elevation), torch.cos(azimuth)
        z = z * torch.cos(elevation) * 0.6
        inverse = 1 / torch.sqrt(x * x + y * y + z * z)
        return cls(
            zenith=_colors([k[0] for k in skies], t),
            horizon=_colors([k[1] for k in skies], t),
            sun=_colors([k[2] for k in skies], t),
            ambient=_per_video([k[3] for k in skies], t),
            night=_per_video([s.sky == "night" for s in scenes], t),
            clouds=_per_video([_CLOUDS[s.sky] for s in scenes], t),
            to_sun=(x * inverse, y * inverse, z * inverse),
            time=t.view(1, -1, 1, 1) * 2.0,
        )

    def sky(self, v: Vector) -> Tensor:
        """Return the sky's colour in the directions ``v``: gradient, clouds, sun, stars."""
        x, y, z = v
        k = y.clamp(0, 1).pow(0.5).unsqueeze(-1)
        color = self.horizon * (1 - k) + self.zenith * k
        depth = y.clamp_min(0.06)
        u, w = x / depth + self.time * 0.15, z / depth
        cloud = 0.6 * noise(u * 1.3, w * 1.3) + 0.3 * noise(u * 2.9 + 7, w * 2.9) + 0.1 * noise(u * 6.1, w * 6.1 + 3)
        cloud = (cloud - 0.45).clamp(0, 1) * 2.2 * self.clouds
        cloud = (cloud * (y * 6).clamp(0, 1)).clamp(0, 0.85).unsqueeze(-1)
        color = color * (1 - cloud) + (0.75 * self.sun + 0.25) * (1 - 0.75 * self.night.unsqueeze(-1)) * cloud
        facing = (x * self.to_sun[0] + y * self.to_sun[1] + z * self.to_sun[2]).clamp(0, 1)
        disc = (facing.pow(350).clamp(0, 1) + 0.18 * facing.pow(12)).unsqueeze(-1)
        color = color + (self.sun * disc) * (1 - 0.6 * self.clouds.unsqueeze(-1))
        star = (scatter(torch.floor(x * 90), torch.floor(y * 90) + torch.floor(z * 40)) > 0.985).float()
        return color + 0.6 * (star * self.night * (y > 0.02)).unsqueeze(-1)


# --- tracing and shading --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """Where the rays end: points, distance along the ray, and on what."""

    point: Vector
    depth: Tensor
    on_solid: Tensor
    on_ground: Tensor


def _trace(solids: Solids, eye: Vector, ray: Vector) -> Hit:
    """Follow the rays to the nearest solid or to the ground plane y = 0."""
    (ox, oy, oz), (dx, dy, dz) = eye, ray
    ground = torch.where(dy < -1e-4, -oy / dy.clamp_max(-1e-4), torch.full_like(dy, _FAR)).clamp_max(_FAR)
    depth = torch.full_like(dx, 2.0)
    for _ in range(_MARCH_STEPS):
        depth = (depth + solids.distance((ox + dx * depth, oy + dy * depth, oz + dz * depth))).clamp_max(_FAR)
    left = solids.distance((ox + dx * depth, oy + dy * depth, oz + dz * depth))
    on_solid = (left < 0.02) & (depth < ground) & (depth < _FAR * 0.9)
    depth = torch.where(on_solid, depth, ground)
    point = (ox + dx * depth, oy + dy * depth, oz + dz * depth)
    return Hit(point, depth, on_solid, ~on_solid & (ground < _FAR * 0.99))


def _normals(scenes: Sequence[Scene], solids: Solids, light: Light, hit: Hit) -> Vector:
    """Unit normals of the solids, and of the ground, which is flat but for waves on water."""
    (x, _, z), time = hit.point, light.time
    nx, ny, nz = solids.normal(hit.point)
    water = _per_video([s.ground == "water" for s in scenes], x)
    wx = 0.05 * torch.sin(x * 3.1 + time * 2.2) + 0.04 * torch.sin(x * 1.7 + z * 2.9 - time * 1.7)
    wz = 0.05 * torch.sin(z * 2.7 + time * 1.9) + 0.04 * torch.sin(z * 1.3 - x * 2.3 + time * 2.4)
    return (
        torch.where(hit.on_solid, nx, water * wx),
        torch.where(hit.on_solid, ny, torch.ones_like(ny)),
        torch.where(hit.on_solid, nz, water * wz),
    )


def _materials(scenes: Sequence[Scene], solids: Solids, hit: Hit) -> tuple[Tensor, Tensor, Tensor]:
    """Return colour [..., 3], specular strength and reflectance of what the rays hit."""
    x, _, z = hit.point
    color = paint_ground([s.ground for s in scenes], x, z)
    water = _per_video([s.ground == "water" for s in scenes], x)
    gloss, mirror = 0.15 * torch.ones_like(x), 0.0 * x + water * 0.45
    nearest: Tensor | None = None
    for k, kind in enumerate(solids.kinds):
        distance = solids.distance_to(k, hit.point)
        paint = paint_solid(kind, [s.things[k] for s in scenes], solids.local(k, hit.point), solids.halves[k])
        here = hit.on_solid if nearest is None else hit.on_solid & (distance < nearest)
        color = torch.where(here.unsqueeze(-1), paint.color, color)
        gloss, mirror = torch.where(here, paint.gloss, gloss), torch.where(here, paint.mirror, mirror)
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
    return color, gloss, mirror


def _shadow(solids: Solids, light: Light, hit: Hit, normal: Vector) -> tuple[Tensor, Tensor]:
    """Return (soft shadow of the sun, contact occlusion), both 1 in the open."""
    (x, y, z), (nx, ny, nz), (lx, ly, lz) = hit.point, normal, light.to_sun
    sx, sy, sz = x + nx * 0.03, y + ny * 0.03, z + nz * 0.03
    along, open_sky = torch.full_like(x, 0.05), torch.ones_like(x)
    for _ in range(_SHADOW_STEPS):
        free = solids.distance((sx + lx * along, sy + ly * along, sz + lz * along))
        open_sky = torch.minimum(open_sky, (9.0 * free / along).clamp(0, 1))
        along = along + free.clamp(0.04, 1.2)
    near = solids.distance((x + nx * 0.35, y + ny * 0.35, z + nz * 0.35))
    return open_sky, 0.35 + 0.65 * (near / 0.35).clamp(0, 1)


def _shade(scenes: Sequence[Scene], solids: Solids, light: Light, ray: Vector, hit: Hit) -> Tensor:
    """Return the linear picture [B, T, H, W, 3]: sun, sky light, highlights, reflections, fog."""
    normal = _normals(scenes, solids, light, hit)
    color, gloss, mirror = _materials(scenes, solids, hit)
    open_sky, occlusion = _shadow(solids, light, hit, normal)
    (nx, ny, nz), (dx, dy, dz), (lx, ly, lz) = normal, ray, light.to_sun
    facing = (nx * lx + ny * ly + nz * lz).clamp(0, 1)
    towards = dx * nx + dy * ny + dz * nz
    rx, ry, rz = dx - 2 * towards * nx, dy - 2 * towards * ny, dz - 2 * towards * nz
    highlight = (rx * lx + ry * ly + rz * lz).clamp(0, 1).pow(40) * gloss * open_sky
    sky_light = (light.zenith + light.horizon) * 0.5
    ambient = (light.ambient * occlusion * (0.6 + 0.4 * ny)).unsqueeze(-1) * (0.6 + 0.6 * sky_light)
    lit = color * (light.sun * (facing * open_sky).unsqueeze(-1) * 0.95 + ambient)
    fresnel = mirror + (1 - mirror) * 0.25 * (1 + towards).clamp(0, 1).pow(4) * (mirror > 0).float()
    fresnel = fresnel.unsqueeze(-1)
    reflected = light.sky((rx, ry.abs(), rz)) * fresnel * (0.55 + 0.45 * open_sky.unsqueeze(-1))
    lit = lit * (1 - fresnel) + reflected + light.sun * highlight.unsqueeze(-1)
    fog = (1 - torch.exp(-((hit.depth / 26.0) ** 2))).unsqueeze(-1) * (~hit.on_solid).unsqueeze(-1).float()
    lit = lit * (1 - fog) + light.horizon * fog
    return torch.where((hit.on_solid | hit.on_ground).unsqueeze(-1), lit, light.sky(ray))


def _weather(scenes: Sequence[Scene], light: Light, image: Tensor) -> Tensor:
    """Draw falling snow or rain over the pictures that have it, in two layers."""
    if all(s.weather == "none" for s in scenes):
        return image
    px, py = pixel_grid(image.shape[-2], image)
    snow = _per_video([s.weather == "snowfall" for s in scenes], image)
    rain = _per_video([s.weather == "rain" for s in scenes], image)
    for layer, scale in enumerate((9.0, 15.0)):
        u = px * scale * 0.5 + 0.3 * light.time + layer * 3.7
        v = py * scale * 0.5 + light.time * (2.2 + layer)
        r = scatter(torch.floor(u) + 13 * layer, torch.floor(v))
        r1 = scatter(torch.floor(v) + 5 * layer, torch.floor(u) + 31)
        fx, fy = frac(u + 100) - 0.2 - 0.6 * r, frac(v + 100) - 0.2 - 0.6 * r1
        flake = torch.exp(-(fx * fx + fy * fy) * (45 + 60 * r1)) * (r > 0.45) * snow
        u2, v2 = px * scale * 1.6 + layer * 5.1, py * scale * 0.25 + light.time * (7 + 2 * layer)
        r2 = scatter(torch.floor(u2), torch.floor(v2))
        streak = torch.exp(-((frac(u2 + 100) - 0.5) ** 2) * 60) * (r2 > 0.75) * rain * 0.35
        k = (flake + streak).clamp(0, 0.95).unsqueeze(-1)
        image = image * (1 - k) + k * (0.9 * light.sun.clamp_min(0.7))
    return image


def _soften(image: Tensor) -> Tensor:
    """Blur a little, in place of anti-aliasing."""
    side, middle = 0.14, 0.72
    v = functional.pad(image.flatten(0, 1).permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    v = side * v[..., :-2] + middle * v[..., 1:-1] + side * v[..., 2:]
    v = side * v[..., :-2, :] + middle * v[..., 1:-1, :] + side * v[..., 2:, :]
    return v.permute(0, 2, 3, 1).reshape(image.shape)
