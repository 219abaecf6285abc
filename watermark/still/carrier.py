"""Where coded bits lie in latents, and the statistic that reads them (docs/spec/payload-v1.md, sections 5 and 8).

Latents here are ``[C, T, H, W]`` float32 tensors as an encoder returns them. Each latent frame's key stream depends on
its index alone, so that a clip cut at its end still reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.watermark import ecc
from safegen.watermark.base import decide
from safegen.watermark.payload import PAYLOAD_BITS, Payload, pack, stream, to_bits

SCHEME = "latent-still"
CODED_BITS = ecc.coded_length(PAYLOAD_BITS)
BANDS = 24
"""Radial spatial-frequency bands in which samples are scaled to unit power."""

FIRST_BAND = 6
"""Lower bands weigh nothing: there the picture's own power is large, and a residual that beats it would be seen."""

MIN_SAMPLES = 8 * CODED_BITS
"""Fewer samples than this cannot carry the payload: even clean latents would read as noise."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """Pseudorandom signs (±1 float32) and coded-bit indices (int64), both ``[C, T, H, W]``."""

    signs: Tensor
    bits: Tensor


def place(key: bytes, shape: tuple[int, int, int, int]) -> Carrier:
    """Lay out the coded bits over latents of ``shape`` (C, T, H, W); WatermarkError if they are too small."""
    c, frames, h, w = shape
    n = c * h * w
    if n * frames < MIN_SAMPLES:
        raise WatermarkError(
            f"latents of {c}x{frames}x{h}x{w} are too small to carry a payload ({MIN_SAMPLES} samples needed)",
            remedy="Generate a larger or longer clip, or use the pixel scheme.",
        )
    signs = np.empty((frames, n), np.float32)
    bits = np.empty((frames, n), np.int64)
    for t in range(frames):
        words = np.frombuffer(stream(key, SCHEME, t, c, h, w, length=8 * n), ">u8")
        signs[t] = 1.0 - 2.0 * (words & np.uint64(1))
        order = np.argsort(words >> np.uint64(1), kind="stable")
        bits[t, order] = (np.arange(n) + t * n) % CODED_BITS
    as_latents = (frames, c, h, w)
    return Carrier(
        torch.from_numpy(signs).view(as_latents).transpose(0, 1).contiguous(),
        torch.from_numpy(bits).view(as_latents).transpose(0, 1).contiguous(),
    )


def whiten(latents: Tensor) -> Tensor:
    """Spatial DCT-II of every latent frame, each (channel, radial band) scaled to a power that the band alone sets.

    A band's amplitude is its number plus one half from FIRST_BAND on and 0 below: measured residuals grow about so. The
    scaling depends on the clip alone, never on the key, so Hoeffding's bound holds whatever the clip is. Gradients
    flow through the transform; the scale is treated as constant.
    """
    h, w = latents.shape[-2:]
    spectrum = _dct(h, latents) @ latents @ _dct(w, latents).T
    band = torch.from_numpy(_bands(h, w)).to(latents.device).flatten()
    power = spectrum.detach().square().mean(dim=1).flatten(1)  # [C, H*W]
    count = power.new_zeros(BANDS).index_add(0, band, torch.ones_like(power[0])).clamp_(min=1)
    mean_power = power.new_zeros(len(power), BANDS).index_add(1, band, power) / count
    weight = torch.where(band >= FIRST_BAND, band + 0.5, 0.0).to(power.dtype)
    scale = (weight * mean_power[:, band].clamp_(min=1e-12).rsqrt()).view(-1, 1, h, w)
    return spectrum * scale


def bit_statistics(samples: Tensor, carrier: Carrier) -> Tensor:
    """Correlation of whitened ``samples`` with each coded bit's signs, normalised: [369], about N(0, 1) if unmarked."""
    flat, index = (samples * carrier.signs).flatten(), carrier.bits.flatten()
    sums = samples.new_zeros(CODED_BITS).index_add(0, index, flat)
    energy = samples.new_zeros(CODED_BITS).index_add(0, index, flat.detach().square())
    return sums / energy.clamp(min=1e-12).sqrt()


def codeword(payload: Payload, key: bytes) -> Tensor:
    """The ±1 codeword (float32 [369]) of an authenticated payload."""
    return torch.from_numpy(ecc.encode(to_bits(pack(payload, key))).astype(np.float32))


def read(samples: Tensor, carrier: Carrier, key: bytes, list_size: int) -> tuple[float, Payload | None, float]:
    """Decode whitened ``samples``: (statistic T of the best codeword, MAC-approved payload or None, share of signs).

    T is the correlation of all samples with the codeword over the samples' norm; where the MAC approves a candidate, T
    is that candidate's. The share is how many of the 369 hard decisions agree with the codeword.
    """
    flat, index = (samples * carrier.signs).flatten().double(), carrier.bits.flatten()
    norm = float(flat.norm())
    sums = torch.zeros(CODED_BITS, dtype=torch.float64).index_add(0, index.cpu(), flat.cpu()).numpy()
    if not math.isfinite(norm) or norm <= 0:
        return 0.0, None, 0.0
    return decide(sums, norm, key, list_size)


def _bands(h: int, w: int) -> np.ndarray:
    """Band of each DCT coefficient, int64 [h, w]: floor of 24 * |(u/w, v/h)| / sqrt(2), in exact integer arithmetic."""
    squares = [[BANDS**2 // 2 * (u * u * h * h + v * v * w * w) // (h * h * w * w) for u in range(w)] for v in range(h)]
    return np.array([[min(math.isqrt(x), BANDS - 1) for x in row] for row in squares], np.int64)


def _dct(n: int, like: Tensor) -> Tensor:
    """Orthonormal DCT-II matrix [n, n]."""
    k = torch.arange(n, dtype=torch.float64).view(-1, 1)
    i = torch.arange(n, dtype=torch.float64).view(1, -1)
    matrix = torch.cos(math.pi * (2 * i + 1) * k / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like.device, like.dtype)
