"""The mark of a clip: a pattern written into the final latents by one linear filter, read back from the pixels alone.

Writing costs two small matrix products and one small convolution, without gradients, decoding or waiting for the
device. Reading needs neither the VAE nor the model nor the prompt: only frames and the key (reading.py, search.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.watermark.clip import pattern
from safegen.watermark.clip.latent_visibility import weights
from safegen.watermark.clip.profile import SUBCELLS, Profile
from safegen.watermark.clip.visibility import amplitudes
from safegen.watermark.layouts import ClipShape, Layout
from safegen.watermark.payload import Payload, check_key

SCHEME = pattern.SCHEME
PSNR = 41.0
"""Decibels between a clip marked at strength 1 and its unmarked twin, about (docs/watermark.md has the trade-off)."""


def draw_pattern(
    payload: Payload,
    key: bytes,
    spans: Sequence[tuple[int, int]],
    height: int,
    width: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The pattern of a clip whose latent frames decode to the pixel frames ``spans``: float32 [T, 3, height, width].

    One YUV picture per latent frame, the mean over its frames, sampled at ``height`` x ``width`` points; zero mean over
    the clip's frames and of root mean square 1. Only some thousand signs travel to ``device``; it draws the rest.
    """
    share = np.zeros((len(spans), pattern.PHASES), np.float32)
    for latent_frame, (start, stop) in enumerate(spans):
        for frame in range(start, stop):
            share[latent_frame, pattern.phase_of(frame)] += 1 / (stop - start)
    frames = np.array([stop - start for start, stop in spans], np.float32)
    share -= frames @ share / frames.sum()
    slots = np.einsum("tk,kcvu->tcvu", share, pattern.coefficients(payload, key) * amplitudes()).astype(np.float32)
    rows, columns = (torch.from_numpy(pattern.cosines(n, min(height, width))).to(device) for n in (height, width))
    drawn = torch.matmul(torch.matmul(rows.T, torch.from_numpy(slots).to(device)), columns)
    weight = torch.from_numpy(frames / frames.sum()).to(device)
    power = (weight * drawn.square().mean(dim=(1, 2, 3))).sum()
    return drawn / power.sqrt().clamp(min=1e-12)


def pattern_pictures(
    payload: Payload, key: bytes, spans: Sequence[tuple[int, int]], height: int, width: int
) -> NDArray[np.float32]:
    """``draw_pattern`` as an array."""
    pictures: NDArray[np.float32] = draw_pattern(payload, key, spans, height, width).numpy()
    return pictures


def embed_latents(
    latents: Tensor,
    payload: Payload | Sequence[Payload],
    key: bytes,
    profile: Profile,
    layout: Layout,
    *,
    strength: float = 1.0,
) -> Tensor:
    """Return ``latents`` (same shape, dtype, device) changed so that the decoded clip carries ``payload``.

    ``latents`` are what the denoiser ends with, in the order that ``layout`` names. For B > 1 give one payload per
    clip. ``strength`` scales the pattern: 1 gives about PSNR decibels, 2 about 6 less. Raises WatermarkError for
    clips too short to carry a pattern that changes, and PayloadError for a malformed payload or key.
    """
    check_key(key)
    if not 0 < strength <= 8:
        raise WatermarkError(f"watermark strength {strength} is out of range", remedy="Use 0.5 to 4; 1 is normal.")
    clips = layout.unify(latents)
    payloads = [payload] if isinstance(payload, Payload) else list(payload)
    if len(payloads) != len(clips):
        raise WatermarkError(f"{len(clips)} clips need {len(clips)} payloads, not {len(payloads)}")
    spans = layout.spans(clips.shape[2])
    if spans[-1][1] < pattern.LEAST_FRAMES:
        raise WatermarkError(
            f"a clip of {spans[-1][1]} frames is too short for a pattern that changes over time",
            remedy=f"Generate at least {pattern.LEAST_FRAMES} frames, or one still.",
        )
    height, width = SUBCELLS * clips.shape[3], SUBCELLS * clips.shape[4]
    drawn = torch.stack([draw_pattern(p, key, spans, height, width, latents.device) for p in payloads])
    level = strength * 255 * 10 ** (-PSNR / 20) / profile.gain
    with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
        visible = weights(clips, profile.preview)
        fine = nnf.interpolate(visible, (height, width), mode="bilinear", align_corners=False)
        even = profile.even(len(spans)).to(latents.device)[:, None, None, None]
        change = profile.shape_latents(level * even * drawn * fine[:, :, None])
        return layout.restore(clips.float() + change, latents)


@dataclass
class LatentEmbedder:
    """A diffusers ``callback_on_step_end`` that marks the latents after the last denoising step.

    Pass it with ``callback_on_step_end_tensor_inputs=["latents"]``. Afterwards ``clean`` and ``marked`` hold the final
    latents before and after; ``remark(strength)`` marks the clean ones again, for a retry at higher strength. ``shape``
    is the clip that the pipeline was asked for: packed latents do not tell it.
    """

    payload: Payload | Sequence[Payload]
    key: bytes = field(repr=False)
    profile: Profile = field(repr=False)
    shape: ClipShape | None = None
    strength: float = 1.0
    scheme: str = field(default=SCHEME, init=False)
    clean: Tensor | None = field(default=None, init=False, repr=False)
    marked: Tensor | None = field(default=None, init=False, repr=False)
    _layout: Layout | None = field(default=None, init=False, repr=False)

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Mark ``callback_kwargs["latents"]`` at the last step; other steps pass through untouched."""
        if step + 1 < step_count(pipe):
            return callback_kwargs
        if "latents" not in callback_kwargs:
            raise WatermarkError(
                "the pipeline handed no latents to the watermark",
                remedy='Pass callback_on_step_end_tensor_inputs=["latents"].',
            )
        self.clean = callback_kwargs["latents"]
        self._layout = Layout.of(pipe.vae, self.clean, self.shape)
        return {**callback_kwargs, "latents": self.remark(self.strength)}

    def remark(self, strength: float) -> Tensor:
        """Mark the clean final latents at ``strength`` and return them; WatermarkError before the loop has ended."""
        if self.clean is None or self._layout is None:
            raise WatermarkError("no latents were seen: the denoising loop never reached its last step")
        self.marked = embed_latents(self.clean, self.payload, self.key, self.profile, self._layout, strength=strength)
        return self.marked


def step_count(pipe: Any) -> int:
    """How many denoising steps ``pipe`` is taking; WatermarkError if it does not say."""
    steps = getattr(pipe, "num_timesteps", None)
    if not isinstance(steps, int):
        timesteps = getattr(getattr(pipe, "scheduler", None), "timesteps", None)
        if timesteps is None:
            raise WatermarkError(f"{type(pipe).__name__} does not say how many steps it takes")
        steps = len(timesteps)
    return steps
