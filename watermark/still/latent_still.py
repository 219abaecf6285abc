"""The mark of stills and of clips too short for a pattern that changes: read through the VAE.

The final latents are shaped so that the encoded picture's own latents read as our codeword.
A pattern added blindly to latents is flattened by the decoder, so the residual is found by gradients through
decode -> 8-bit rounding and a mild codec surrogate -> encode -> statistic (still_carrier.py), while the decoded clip
stays close to the unmarked one. Reading needs one VAE encode and the key: no prompt, no original, no denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.opencv import cv2
from safegen.types import Json
from safegen.watermark import fastvae
from safegen.watermark.base import LIST_SIZE, Extraction, Progress, check_frames, conclude
from safegen.watermark.clip.latent_residual import step_count
from safegen.watermark.fastvae import load_reader, load_vae, vae_digest
from safegen.watermark.layouts import ClipShape, Layout
from safegen.watermark.payload import Payload, check_key
from safegen.watermark.still import carrier

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Recipe", "StillEmbedder", "StillExtractor", "embed_latents", "extract_frames", "load_vae", "vae_digest"]

SCHEME = carrier.SCHEME
MAX_READ_PIXELS = 2**23
"""Pixels of all frames together, of four at least, up to which they are read at their own size: eight frames of 720p,
1448 x 1448 for a still. What the VAE takes grows with them."""

MAX_READ_SIDE = 2**14
"""Pixels along one side of what is read at most: what the cosine transform takes grows with its square."""

_EASY_SAMPLES = 14_000
"""Latents with fewer values than this get proportionally more iterations."""

_CHECKPOINT_PIXELS = 400_000
"""Clips with more pixels than this trade time for memory: activations are recomputed in the backward pass."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the residual is searched. ``margin`` is what each coded bit's statistic should reach (unmarked: N(0, 1))."""

    iterations: int = 3
    margin: float = 1.0
    step: float = 0.06
    noise: float = 0.02
    """Standard deviation of the surrogate codec's noise, in units of video in [-1, 1]."""


def embed_latents(
    vae: Any,
    latents: Tensor,
    payload: Payload | Sequence[Payload],
    key: bytes,
    *,
    strength: float = 1.0,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    shape: ClipShape | None = None,
) -> Tensor:
    """Return ``latents`` (same shape, dtype, device) changed so that the decoded clip carries ``payload``.

    ``latents`` are what the denoiser ends with, normalised by the VAE's statistics: [B, C, T, H, W] (Wan, Hunyuan),
    [B, T, C, H, W] (CogVideoX) or [B, C, H, W] (stills). For B > 1 give one payload per clip. ``strength`` scales the
    margin: retry with 1.5 or 2 when a clip does not read back after encoding. Everything runs on the latents' device.
    Raises WatermarkError for packed or unknown latents, and PayloadError for a malformed payload or key.
    """
    check_key(key)
    if not 0 < strength <= 8:
        raise WatermarkError(f"watermark strength {strength} is out of range", remedy="Use 0.5 to 4; 1 is normal.")
    recipe = recipe or Recipe()
    layout = Layout.of(vae, latents, shape)
    clips = layout.unify(latents)
    payloads = [payload] if isinstance(payload, Payload) else list(payload)
    if len(payloads) != len(clips):
        raise WatermarkError(f"{len(clips)} clips need {len(clips)} payloads, not {len(payloads)}")
    each = _iterations(recipe, clips[0].numel())
    total = each * len(clips)
    marked = []
    for i, (clip, item) in enumerate(zip(clips, payloads, strict=True)):
        tick = (lambda done, i=i: progress(i * each + done, total)) if progress else None
        marked.append(_embed_one(vae, clip[None], item, key, strength, recipe, tick))
    return layout.restore(torch.cat(marked), latents)


def _embed_one(
    vae: Any, latents: Tensor, payload: Payload, key: bytes, strength: float, recipe: Recipe, tick: Any
) -> Tensor:
    device = latents.device
    layout = carrier.place(key, tuple(latents.shape[1:]))  # type: ignore[arg-type]
    layout = carrier.Carrier(layout.signs.to(device), layout.bits.to(device))
    word = carrier.codeword(payload, key).to(device)
    generator = torch.Generator("cpu").manual_seed(0)
    target = recipe.margin * strength
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        clean = latents.detach().clone().float()
        delta = torch.zeros_like(clean, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=recipe.step * strength, betas=(0.5, 0.9))
        for iteration in range(_iterations(recipe, clean.numel())):
            video = fastvae.decode(vae, clean + delta, checkpoint=_is_large(vae, clean))
            seen = _surrogate(_round8(video), recipe.noise, generator)
            back = fastvae.encode(vae, seen, checkpoint=_is_large(vae, clean))
            samples = carrier.whiten(back[0])
            margin = carrier.bit_statistics(samples, layout) * word
            loss = nnf.relu(target - margin).square().mean()
            (delta.grad,) = torch.autograd.grad(loss, [delta])
            if not torch.isfinite(delta.grad).all():
                raise WatermarkError(
                    "the VAE's gradients are not finite", remedy="Load the VAE in float32 or bfloat16."
                )
            optimiser.step()
            if tick:
                tick(iteration + 1)
        return (clean + delta).detach()


def _iterations(recipe: Recipe, samples: int) -> int:
    """More steps where few samples share each bit: a still needs several times the amplitude of a clip."""
    return round(recipe.iterations * max(1.0, _EASY_SAMPLES / samples))


def _is_large(vae: Any, latents: Tensor) -> bool:
    ratio = 16 if fastvae.is_wan(vae) and vae.config.get("patch_size") else 8
    return latents.shape[2] * 4 * latents.shape[3] * latents.shape[4] * ratio * ratio > _CHECKPOINT_PIXELS


def _round8(video: Tensor) -> Tensor:
    """8-bit levels in the forward pass, identity inside [-1, 1] in the backward pass."""
    levels = (video.clamp(-1, 1) + 1) * 127.5
    return (levels + (levels.round() - levels).detach()) / 127.5 - 1


def _surrogate(video: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """What every lossy codec does at least: halve the chroma's resolution (BT.601) and add quantisation noise."""
    red, green, blue = video.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([blue - luma, red - luma], dim=2).flatten(0, 1)
    h, w = video.shape[-2:]
    chroma = nnf.interpolate(nnf.avg_pool2d(chroma, 2, ceil_mode=True), size=(h, w), mode="bilinear")
    blue_, red_ = (chroma.reshape(len(video), -1, 2, h, w) + luma.unsqueeze(2)).unbind(2)
    green_ = (luma - 0.299 * red_ - 0.114 * blue_) / 0.587
    grain = torch.randn(video.shape, generator=generator).to(video.device)
    return torch.stack([red_, green_, blue_], dim=1) + noise * grain


@dataclass
class StillEmbedder:
    """A diffusers ``callback_on_step_end`` that marks the latents after the last denoising step.

    Pass it with ``callback_on_step_end_tensor_inputs=["latents"]``. Afterwards ``clean`` and ``marked`` hold the final
    latents before and after; ``remark(vae, strength)`` marks the clean ones again, for a retry at higher strength.
    """

    payload: Payload | Sequence[Payload]
    key: bytes = field(repr=False)
    strength: float = 1.0
    recipe: Recipe = field(default_factory=Recipe)
    progress: Progress | None = None
    shape: ClipShape | None = None
    scheme: str = field(default=SCHEME, init=False)
    clean: Tensor | None = field(default=None, init=False, repr=False)
    marked: Tensor | None = field(default=None, init=False, repr=False)

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Mark ``callback_kwargs["latents"]`` at the last step; other steps pass through untouched."""
        if step + 1 < step_count(pipe):
            return callback_kwargs
        if "latents" not in callback_kwargs:
            raise WatermarkError(
                "the pipeline handed no latents to the watermark",
                remedy='Pass callback_on_step_end_tensor_inputs=["latents"].',
            )
        self.clean = callback_kwargs["latents"].detach().clone()
        return {**callback_kwargs, "latents": self.remark(pipe.vae, self.strength)}

    def remark(self, vae: Any, strength: float) -> Tensor:
        """Mark the clean final latents at ``strength`` and return them; WatermarkError before the loop has ended."""
        if self.clean is None:
            raise WatermarkError("no latents were seen: the denoising loop never reached its last step")
        self.marked = embed_latents(
            vae, self.clean, self.payload, self.key, strength=strength, recipe=self.recipe, progress=self.progress,
            shape=self.shape,
        )  # fmt: skip
        return self.marked


def extract_frames(
    frames: NDArray[np.uint8], vae: Any, key: bytes, *, shapes: Iterable[tuple[int, int, int]] = ()
) -> Extraction:
    """Read uint8 RGB ``frames [T, H, W, 3]`` blindly through ``vae``.

    The clip's own shape, MAX_READ_PIXELS at most, is tried first, then each of ``shapes`` (T, H, W): shapes that clips
    were generated in, tried by resizing. Every try is a hypothesis that the p-value pays for. Raises WatermarkError
    when the frames are no clip, or too long and narrow.
    """
    check_key(key)
    check_frames(frames)
    fastvae.latent_stats(vae)  # refuses a VAE that cannot be read at all
    own = _fit(vae, _bounded(frames.shape[:3]))
    if max(own[1:]) > MAX_READ_SIDE:
        raise WatermarkError(
            f"pictures of {frames.shape[2]}x{frames.shape[1]} pixels are too long and narrow to be read",
            remedy="Give the picture that it was cut from.",
        )
    tries = list(dict.fromkeys([own, *(_fit(vae, s) for s in shapes)]))
    best: tuple[float, Payload | None, float, tuple[int, int, int]] = (0.0, None, 0.0, own)
    for shape in tries:
        statistic, payload, agreement = _read_at_shape(frames, shape, vae, key)
        if (payload is not None, statistic) > (best[1] is not None, best[0]):
            best = (statistic, payload, agreement, shape)
        if payload is not None:
            break
    statistic, payload, agreement, shape = best
    evidence: dict[str, Json] = {"shape": list(shape), "bit_agreement": round(agreement, 4), "alignments": len(tries)}
    return conclude(SCHEME, statistic, payload, len(tries), evidence)


def _bounded(shape: Sequence[int]) -> tuple[int, int, int]:
    t, h, w = (int(v) for v in shape)
    scale = min(1.0, math.sqrt(MAX_READ_PIXELS / (max(t, 4) * h * w)))
    return t, max(1, int(h * scale)), max(1, int(w * scale))


def _fit(vae: Any, shape: Sequence[int]) -> tuple[int, int, int]:
    """The nearest clip shape that the VAE encodes without padding."""
    t, h, w = (int(v) for v in shape)
    if min(t, h, w) < 1:
        raise WatermarkError(f"no clip has the shape {shape}")
    space = int(vae.config.get("scale_factor_spatial") or 8)
    time = int(vae.config.get("scale_factor_temporal") or vae.config.get("temporal_compression_ratio") or 1)
    return (t - 1) // time * time + 1, max(round(h / space), 1) * space, max(round(w / space), 1) * space


def _read_at_shape(
    frames: NDArray[np.uint8], shape: tuple[int, int, int], vae: Any, key: bytes
) -> tuple[float, Payload | None, float]:
    device = next(vae.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        seen = np.stack([_shrunk(frame, shape[1:]) for frame in frames[: shape[0]]])
        video = torch.from_numpy(seen).to(device).permute(3, 0, 1, 2)[None]
        video = video.float() / 127.5 - 1
        if tuple(video.shape[3:]) != shape[1:]:
            flat = nnf.interpolate(video[0].transpose(0, 1), size=shape[1:], mode="bicubic", antialias=True)
            video = flat.transpose(0, 1)[None].clamp(-1, 1)
        latents = fastvae.encode(vae, video)[0].cpu()
        if latents.numel() < carrier.MIN_SAMPLES:
            return 0.0, None, 0.0  # no writer could have marked a clip of this shape
        layout = carrier.place(key, tuple(latents.shape))  # type: ignore[arg-type]
        return carrier.read(carrier.whiten(latents), layout, key, LIST_SIZE)


def _shrunk(frame: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """A frame of at most twice ``size`` (H, W) along each side, still in 8 bits: the rest is done in floats."""
    height, width = (min(have, 2 * wanted) for have, wanted in zip(frame.shape[:2], size, strict=True))
    if (height, width) == frame.shape[:2]:
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class StillExtractor:
    """``extract_frames`` bound to one VAE (a module, or a folder that it is loaded from at first use)."""

    scheme = SCHEME

    def __init__(self, vae: Any, shapes: Iterable[tuple[int, int, int]] = ()) -> None:
        self._vae = vae
        self._shapes = tuple(shapes)

    @property
    def vae(self) -> Any:
        """The loaded VAE, or its encoder alone where that is all it takes."""
        if isinstance(self._vae, str) or hasattr(self._vae, "__fspath__"):
            self._vae = load_reader(self._vae)
        return self._vae

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 [T, H, W, 3] frames blindly."""
        return extract_frames(frames, self.vae, key, shapes=self._shapes)
