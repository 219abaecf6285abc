"""What a model was made for: its frame rate, its usual call, and the sizes that its VAE and patches allow.

All of it is read from the model's own JSON files, so that a bad size is refused before any weights are loaded.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safegen.errors import GeneratorError, InputError
from safegen.generators.loading import pipeline_class
from safegen.generators.refs import ModelRef, read_json

# Imported where they are used: diffusers.

DEFAULT_FPS = 16.0
"""Frames per second of a model that does not say: Wan's rate, the family most in use."""

MAX_SIDE = 4096
"""Pixels. H.264 level 5.2 ends there, and so do the players."""

MAX_VOXELS = 1 << 29
"""Pixels x frames: 257 frames of 1920x1088. Decoded in float32 that is 6.4 GB, before the VAE's own features."""

MAX_STEPS = 1000
"""The usual number of training timesteps: more steps would repeat the same ones."""

_CARD_KEYS = {"fps", "call"}


@dataclass(frozen=True, slots=True)
class Geometry:
    """The grid that a pipeline works on: sizes are multiples of ``spatial``, frame counts are ``k * temporal + 1``."""

    height_multiple: int  # pixels: VAE stride x patch
    width_multiple: int
    spatial_stride: int  # pixels per latent, along each side
    temporal_stride: int  # frames per latent frame, after the first

    @classmethod
    def read(cls, ref: ModelRef) -> Geometry:
        """Return the geometry of ``ref`` from its VAE's and denoiser's config.json; GeneratorError if it has none."""
        vae = _with_defaults(ref.config("vae"), {"scale_factor_spatial", "scale_factor_temporal"})
        if not vae:
            raise GeneratorError(
                f"{ref.name} has no vae/config.json", remedy="safegen needs a latent video model with a VAE."
            )
        spatial, temporal = _vae_strides(vae)
        denoiser = _with_defaults(ref.config("transformer") or ref.config("unet"), {"patch_size"})
        patch = denoiser.get("patch_size", 1)
        sides = patch[-2:] if isinstance(patch, list | tuple) and len(patch) >= 2 else [patch, patch]
        if not all(isinstance(n, int) and n > 0 for n in (*sides, spatial, temporal)):
            raise GeneratorError(f"{ref.name}: its configuration gives strides that are no positive integers")
        return cls(spatial * sides[0], spatial * sides[1], spatial, temporal)

    def check(self, height: int, width: int, frames: int) -> None:
        """Raise InputError, naming the nearest valid values, unless the pipeline can make exactly this clip."""
        if height % self.height_multiple or width % self.width_multiple or min(height, width) <= 0:
            best = f"{_nearest(width, self.width_multiple)}x{_nearest(height, self.height_multiple)}"
            grid = f"{self.width_multiple} (width) and {self.height_multiple} (height)"
            raise InputError(
                f"size {width}x{height} does not fit this model: sides must be multiples of {grid}",
                remedy=f"Use {best}.",
            )
        if max(height, width) > MAX_SIDE:
            raise InputError(f"size {width}x{height} is too large", remedy=f"Sides go up to {MAX_SIDE} pixels.")
        if frames < 1 or (frames - 1) % self.temporal_stride:
            below = max(0, (frames - 1) // self.temporal_stride) * self.temporal_stride + 1
            near = f"{below} or {below + self.temporal_stride}" if frames > 0 else "1"
            raise InputError(
                f"{frames} frames do not fit this model: it makes {self.temporal_stride} x k + 1 of them",
                remedy=f"Use {near}.",
            )
        if height * width * frames > MAX_VOXELS:
            most = (MAX_VOXELS // (height * width) - 1) // self.temporal_stride * self.temporal_stride + 1
            raise InputError(
                f"{frames} frames of {width}x{height} need too much memory",
                remedy=f"At this size use at most {most} frames.",
            )

    def latent_shape(self, height: int, width: int, frames: int) -> tuple[int, int, int]:
        """Return the latents' [T, H, W]."""
        return (frames - 1) // self.temporal_stride + 1, height // self.spatial_stride, width // self.spatial_stride


def _nearest(value: int, multiple: int) -> int:
    return min(max(multiple, round(value / multiple) * multiple), MAX_SIDE // multiple * multiple)


def _with_defaults(config: dict[str, Any], needed: set[str]) -> dict[str, Any]:
    """Complete a part's config by its class's defaults, unless it says all that is ``needed`` (spares an import)."""
    if not config or needed <= config.keys():
        return config
    import diffusers

    part = getattr(diffusers, str(config.get("_class_name")), None)
    if part is None:
        raise GeneratorError(
            f"this diffusers ({diffusers.__version__}) has no {config.get('_class_name')}", remedy="Upgrade diffusers."
        )
    parameters = inspect.signature(part.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | config


def _vae_strides(vae: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return (pixels per latent, frames per latent frame), by the names that diffusers' VAEs give them."""
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio")
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio")
    if scaling := vae.get("spatio_temporal_scaling"):  # LTX
        spatial = spatial or vae.get("patch_size", 1) * 2 ** sum(scaling)
        temporal = temporal or vae.get("patch_size_t", 1) * 2 ** sum(scaling)
    if spatial is None:
        blocks = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or [0]
        spatial = 2 ** (len(blocks) - 1)
    if temporal is None and (expansions := vae.get("temporal_expansions")):  # Mochi
        temporal, spatial = math.prod(expansions), math.prod(vae.get("spatial_expansions", []))
    return spatial, 1 if temporal is None else temporal


@dataclass(frozen=True, slots=True)
class Card:
    """A model's frame rate and usual call, from ``card.json`` or else from its pipeline's own defaults."""

    fps: float
    call: Mapping[str, Any]
    geometry: Geometry
    source: str = field(default="card.json")  # or "defaults": where ``call`` comes from

    @classmethod
    def read(cls, ref: ModelRef) -> Card:
        """Return the card of ``ref``; GeneratorError if it is malformed. Loads no weights.

        ``card.json`` holds ``{"fps": number, "call": {argument of the pipeline's __call__: value}}`` and whatever else
        its author wants to note; every argument that it leaves out has the pipeline's own default.
        """
        path = ref.configs / "card.json"
        geometry = Geometry.read(ref)
        data = read_json(path) if path.is_file() else {}
        fps, call = data.get("fps"), data.get("call", {})
        if fps is not None and not (_is_number(fps) and 1 <= fps <= 120):
            raise GeneratorError(f"{path}: fps must be a number from 1 to 120", remedy="Correct the card.")
        if not isinstance(call, dict):
            raise GeneratorError(f"{path}: call must be an object", remedy="Correct the card.")
        for name in ("height", "width", "num_frames", "num_inference_steps"):
            if name in call and not (_is_number(call[name]) and isinstance(call[name], int) and call[name] > 0):
                raise GeneratorError(f"{path}: {name} must be a positive integer", remedy="Correct the card.")
        call = dict(call)
        if fps is None or not {"height", "width", "num_frames", "num_inference_steps"} <= call.keys():
            defaults = _call_defaults(ref, geometry)
            fps = fps or defaults.pop("frame_rate", DEFAULT_FPS)
            call = {k: v for k, v in defaults.items() if k != "frame_rate"} | call
        return cls(float(fps), call, geometry, "card.json" if "call" in data else "defaults")

    def resolve(
        self,
        *,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> dict[str, Any]:
        """Return the arguments for the pipeline's call, the card's with the given ones in their place.

        ``size`` is (width, height) in pixels. Raises InputError, naming the nearest valid values, for what the model
        cannot make; weights need not be loaded.
        """
        call = dict(self.call)
        if size is not None:
            call["width"], call["height"] = size
        if frames is not None:
            call["num_frames"] = frames
        if steps is not None:
            call["num_inference_steps"] = steps
        if guidance_scale is not None:
            call["guidance_scale"] = guidance_scale
        self.geometry.check(call["height"], call["width"], call["num_frames"])
        if not 1 <= call["num_inference_steps"] <= MAX_STEPS:
            raise InputError(
                f"{call['num_inference_steps']} steps are not possible", remedy=f"Use 1 to {MAX_STEPS} steps."
            )
        scale = call.get("guidance_scale", 1.0)
        if not (_is_number(scale) and math.isfinite(scale) and 0 <= scale <= 100):
            raise InputError(f"guidance scale {scale} is not possible", remedy="Use a number from 0 to 100.")
        return call


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _call_defaults(ref: ModelRef, geometry: Geometry) -> dict[str, Any]:
    """Return sizes, frames, steps and frame rate of a pipeline by its class's own signature and its denoiser's config.

    Some pipelines (CogVideoX) say None there and work it out from ``sample_height`` and the like: so does this.
    """
    parameters = inspect.signature(pipeline_class(ref).__call__).parameters
    wanted = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "frame_rate")
    values = {n: parameters[n].default for n in wanted if n in parameters}
    values = {n: v for n, v in values.items() if _is_number(v)}
    denoiser = _with_sample_defaults(ref)
    for name, key, stride in (
        ("height", "sample_height", geometry.spatial_stride),
        ("width", "sample_width", geometry.spatial_stride),
        ("num_frames", "sample_frames", 1),
    ):
        if name not in values and isinstance(denoiser.get(key), int):
            values[name] = denoiser[key] * stride
    missing = {"height", "width", "num_frames", "num_inference_steps"} - values.keys()
    if missing:
        raise GeneratorError(
            f"{ref.name} does not say which {', '.join(sorted(missing))} it was made for",
            remedy='Write a card.json beside its model_index.json: {"fps": 16, "call": {"height": ..., ...}}.',
        )
    return values


def _with_sample_defaults(ref: ModelRef) -> dict[str, Any]:
    config = ref.config("transformer") or ref.config("unet")
    if isinstance(size := config.get("sample_size"), int):  # older UNets: one number for both sides
        return {"sample_height": size, "sample_width": size} | config
    return config


_SIZE = re.compile(r"\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*", re.IGNORECASE)


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of text such as ``256x192``; InputError if it is not of that form."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise InputError(f"not a size: {text!r}", remedy="Write WIDTHxHEIGHT in pixels, for example 256x192.")
    return int(found[1]), int(found[2])
