"""How strong the pattern may be in latents where: the just-noticeable difference of visibility.py, without decoding."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from safegen.watermark.clip.visibility import BUSY, HIGHEST, LOWEST, MOVING


def weights(latents: Tensor, preview: Tensor) -> Tensor:
    """Weights [B, T, h, w] of normalised ``latents`` [B, C, T, h, w].

    ``preview`` [C + 1] gives a cell's mean luma in 8-bit levels: coefficients of the channels, then the offset.
    """
    luma = torch.einsum("bcthw,c->bthw", latents.float(), preview[:-1].to(latents.device)) + preview[-1]
    luma = luma.clamp(0, 255)
    around = _mean(luma)
    threshold = torch.where(around <= 127, 17 * (1 - (around / 127).sqrt()) + 3, 3 / 128 * (around - 127) + 3)
    threshold = threshold + BUSY * (_mean(luma**2) - around**2).clamp(min=0).sqrt()
    if luma.shape[1] > 1:
        change = (luma[:, 1:] - luma[:, :-1]).abs()
        threshold = threshold + MOVING * _mean(
            torch.maximum(torch.cat([change[:, :1], change], 1), torch.cat([change, change[:, -1:]], 1))
        )
    smooth = _mean(threshold)
    bounded = _to_unit_power(smooth).clamp(LOWEST, HIGHEST)
    return _to_unit_power(bounded.sqrt())


def _mean(x: Tensor) -> Tensor:
    """Mean over 3x3 cells."""
    return nnf.avg_pool2d(nnf.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _to_unit_power(x: Tensor) -> Tensor:
    return x / x.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=1e-6)
