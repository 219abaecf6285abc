"""How each diffusers family lays out the latents that ``callback_on_step_end`` sees; the one place that knows.

Pipelines hand a callback ``[B, C, T, h, w]`` (Wan, HunyuanVideo, Mochi, AnimateDiff), ``[B, T, C, h, w]`` (CogVideoX,
Stable Video Diffusion), ``[B, C, h, w]`` (SDXL, SD3) or packed tokens ``[B, L, C p p]`` (LTX-Video, FLUX). A Layout
turns any of them into ``[B, C, T, h, w]`` and back, and says which pixels each latent cell and frame is decoded to.
With classifier-free guidance callbacks see the latents once per clip, not doubled; after the last step of every
scheduler they are in the VAE's normalised units (``fastvae.latent_stats``).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from safegen.errors import WatermarkError

if TYPE_CHECKING:
    from torch import Tensor

WAN = "AutoencoderKLWan"
LTX = "AutoencoderKLLTXVideo"
COGVIDEOX = "AutoencoderKLCogVideoX"
HUNYUAN = "AutoencoderKLHunyuanVideo"
MOCHI = "AutoencoderKLMochi"
SVD = "AutoencoderKLTemporalDecoder"
IMAGE = "AutoencoderKL"


def _wan_strides(vae: Any) -> tuple[int, int]:
    """From the layers: ``scale_factor_*`` are only declared, and need not agree with them."""
    config = vae.config
    return 2 ** (len(config["dim_mult"]) - 1) * (config.get("patch_size") or 1), 2 ** sum(config["temperal_downsample"])


def _levels(vae: Any) -> int:
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


_STRIDES: Mapping[str, Callable[[Any], tuple[int, int]]] = {
    WAN: _wan_strides,
    LTX: lambda vae: (int(vae.spatial_compression_ratio), int(vae.temporal_compression_ratio)),
    COGVIDEOX: lambda vae: (_levels(vae), int(vae.config["temporal_compression_ratio"])),
    HUNYUAN: lambda vae: (int(vae.spatial_compression_ratio), int(vae.temporal_compression_ratio)),
    MOCHI: lambda vae: (int(vae.spatial_compression_ratio), int(vae.temporal_compression_ratio)),
    SVD: lambda vae: (_levels(vae), 1),
    IMAGE: lambda vae: (_levels(vae), 1),
}
"""Per VAE class: (pixels per latent cell side, pixel frames per latent frame)."""

_PACKED = (LTX, IMAGE)
_TIME_FIRST = (COGVIDEOX, SVD)

FAMILIES = tuple(_STRIDES)
"""VAE classes whose latents' layout and normalisation are known."""


def family(vae: Any) -> str:
    """Return the name of ``vae``'s class, also when ``torch.compile`` has wrapped it."""
    return type(getattr(vae, "_orig_mod", vae)).__name__


def reaches(vae: Any) -> bool:
    """Whether the in-latent mark knows ``vae``'s latents; otherwise the pixel scheme is left."""
    return family(vae) in _STRIDES


def strides(vae: Any) -> tuple[int, int]:
    """Pixels per latent cell side, and pixel frames per latent frame; WatermarkError for an unknown family."""
    if not reaches(vae):
        raise WatermarkError(
            f"the in-latent watermark does not know {family(vae)}", remedy="Use the pixel scheme for this pipeline."
        )
    return _STRIDES[family(vae)](vae)


@dataclass(frozen=True, slots=True)
class ClipShape:
    """The clip that a pipeline call asks for, in pixels; ``frames`` is 1 for images."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How one pipeline call's latents lie, and what they decode to. Made by ``of``."""

    order: str
    """"BCTHW", "BTCHW", "BCHW", or "BLC" for packed tokens."""
    cell: int
    """Pixels per side of one latent cell (of the unified latents)."""
    stride: int
    """Pixel frames per latent frame, except for the first one, which decodes to a single frame."""
    paired: bool = False
    """CogVideoX: an even number of latent frames decodes to ``stride`` frames each, the first one included."""
    lead: int = 0
    """Leading latent frames (of "BLC": tokens) that the pipeline drops before it decodes; not unified."""
    grid: tuple[int, int, int] = (0, 0, 0)
    """Of "BLC" alone: the tokens' (frames, rows, columns)."""
    patch: int = 1
    """Of "BLC" alone: latent cells per token side."""

    @classmethod
    def of(cls, vae: Any, latents: Tensor, shape: ClipShape | None = None) -> Layout:
        """Return the layout of ``latents`` (one of the module's orders) that a pipeline with ``vae`` handed out.

        ``shape`` is the call's, from ``call_shape``. Packed tokens need it, and so does CogVideoX 1.5, which pads the
        latents in time; elsewhere it is ignored. Raises WatermarkError for unknown VAEs, for latents that do not fit,
        and for packed tokens without ``shape``.
        """
        kind, (cell, stride) = family(vae), strides(vae)
        channels = int(vae.config.get("z_dim") or vae.config["latent_channels"])
        sizes = tuple(latents.shape)
        if len(sizes) == 5 and kind in _TIME_FIRST and sizes[2] == channels:
            lead = 0
            if kind == COGVIDEOX and shape is not None:
                lead = sizes[1] - ((shape.frames - 1) // stride + 1)
            if lead >= 0:
                return cls("BTCHW", cell, stride, paired=kind == COGVIDEOX, lead=lead)
        elif len(sizes) == 5 and kind not in _TIME_FIRST and sizes[1] == channels:
            return cls("BCTHW", cell, stride)
        elif len(sizes) == 4 and kind == IMAGE and sizes[1] == channels:
            return cls("BCHW", cell, stride)
        elif len(sizes) == 3 and kind in _PACKED:
            patch = math.isqrt(max(sizes[2] // channels, 1))
            if sizes[2] == channels * patch * patch:
                return cls._of_tokens(kind, cell, stride, sizes[1], patch, shape)
        raise WatermarkError(
            f"latents of shape {sizes} fit no layout of {kind} with {channels} channels (for a clip of {shape})",
            remedy="Give the shape that the pipeline was called with, or use the pixel scheme for this pipeline.",
        )

    @classmethod
    def _of_tokens(cls, kind: str, cell: int, stride: int, tokens: int, patch: int, shape: ClipShape | None) -> Layout:
        """Packed tokens: frames, then rows, then columns; each token's channels: C, then its rows, then its columns."""
        if shape is None:
            raise WatermarkError(
                "packed latents do not say their height and width",
                remedy="Give the shape that the pipeline was called with.",
            )
        frames = (shape.frames - 1) // stride + 1 if kind == LTX else 1
        grid = (frames, shape.height // (cell * patch), shape.width // (cell * patch))
        lead = tokens - math.prod(grid)  # LTX puts the tokens of conditioning frames first
        if min(grid) < 1 or lead < 0 or (lead and kind != LTX) or lead % (grid[1] * grid[2]):
            raise WatermarkError(
                f"{tokens} packed tokens fit no layout of a clip of {shape} ({math.prod(grid)} expected)",
                remedy="Give the shape that the pipeline was called with.",
            )
        return cls("BLC", cell, stride, lead=lead, grid=grid, patch=patch)

    def unify(self, latents: Tensor) -> Tensor:
        """Return ``latents`` (in ``order``) as [B, C, T, h, w], same dtype and device: a view where possible."""
        if self.order == "BTCHW":
            return latents[:, self.lead :].transpose(1, 2)
        if self.order == "BCHW":
            return latents.unsqueeze(2)
        if self.order == "BLC":
            batch, (frames, rows, columns), patch = len(latents), self.grid, self.patch
            tokens = latents[:, self.lead :].reshape(batch, frames, rows, columns, -1, patch, patch)
            cells = tokens.permute(0, 4, 1, 2, 5, 3, 6)
            return cells.reshape(batch, -1, frames, rows * patch, columns * patch)
        return latents

    def restore(self, unified: Tensor, like: Tensor) -> Tensor:
        """Return ``unified`` [B, C, T, h, w] in ``like``'s order, dtype and device; frames that ``unify`` left out are
        ``like``'s. The exact inverse: ``restore(unify(x), x)`` equals ``x``.

        ``like`` are the pipeline's own latents. Raises WatermarkError where the two do not fit together.
        """
        if unified.shape != self.unify(like).shape:
            raise WatermarkError(
                f"latents of shape {tuple(unified.shape)} cannot take the place of {tuple(like.shape)}",
                remedy="Unify and restore with the same layout.",
            )
        made = unified
        if self.order == "BTCHW":
            made = unified.transpose(1, 2)
        elif self.order == "BCHW":
            made = unified.squeeze(2)
        elif self.order == "BLC":
            made = self._pack(unified)
        made = made.to(device=like.device, dtype=like.dtype)
        return torch.cat([like[:, : self.lead], made], dim=1) if self.lead else made

    def _pack(self, unified: Tensor) -> Tensor:
        """[B, C, T, h, w] to [B, T rows columns, C p p]."""
        batch, (frames, rows, columns), patch = len(unified), self.grid, self.patch
        cells = unified.reshape(batch, -1, frames, rows, patch, columns, patch)
        return cells.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, frames * rows * columns, -1)

    def spans(self, latent_frames: int) -> list[tuple[int, int]]:
        """Return which pixel frames [start, stop) each of ``latent_frames`` unified latent frames decodes to.

        Wan, HunyuanVideo, CogVideoX: (0, 1), (1, 5), (5, 9) ...; LTX-Video in steps of 8, Mochi of 6; image VAEs one
        each. An even number of CogVideoX latent frames: (0, 4), (4, 8) ...
        """
        if self.paired and latent_frames % 2 == 0:
            return [(self.stride * i, self.stride * (i + 1)) for i in range(latent_frames)]
        return [(max(self.stride * (i - 1) + 1, 0), self.stride * i + 1) for i in range(latent_frames)]


def call_shape(pipe: Any, call: Mapping[str, Any]) -> ClipShape:
    """Return the clip that ``pipe(**call)`` draws: from ``call``'s ``height``, ``width`` and ``num_frames``.

    What ``call`` leaves out is worked out as the pipeline does: from its signature, its own defaults, or its denoiser's
    configuration. Pipelines that take neither ``num_frames`` nor a ``video``, whose length they draw, draw images (1
    frame). Raises WatermarkError where none of these says it. Sizes that the pipeline would round down to its cells are
    returned as they are given.
    """
    parameters = inspect.signature(pipe.__call__).parameters
    denoisers = (getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet"))
    config: Mapping[str, Any] = next((d.config for d in denoisers if d is not None), {})

    def size(name: str) -> int:
        given = call.get(name) or getattr(parameters.get(name), "default", None) or getattr(pipe, f"default_{name}", 0)
        if isinstance(given, int) and given > 0:
            return given
        cells = config.get(f"sample_{name}") or getattr(pipe, "default_sample_size", 0) or config.get("sample_size")
        factor = getattr(pipe, "vae_scale_factor_spatial", 0) or getattr(pipe, "vae_scale_factor", 0)
        if not isinstance(cells, int) or not factor:
            raise WatermarkError(f"{type(pipe).__name__} does not say the clip's {name}", remedy=f"Pass {name}.")
        return int(cells * factor)

    if "num_frames" not in parameters and "video" not in parameters:
        return ClipShape(1, size("height"), size("width"))
    frames = call.get("num_frames") or getattr(parameters.get("num_frames"), "default", None)
    frames = frames or (len(call["video"]) if call.get("video") is not None else None)
    frames = frames or config.get("sample_frames") or config.get("num_frames")
    if not isinstance(frames, int) or frames < 1:
        raise WatermarkError(f"{type(pipe).__name__} does not say the number of frames", remedy="Pass num_frames.")
    return ClipShape(frames, size("height"), size("width"))
