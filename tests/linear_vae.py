"""VAEs whose answers are known without running them: linear ones, without loss or with one known fault."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as nnf
from torch import Tensor


class AutoencoderKLHunyuanVideo(torch.nn.Module):
    """A lossless linear VAE: a cell's 48 latents are its 4x4 RGB pixels; four frames have one mean, the first its own.

    Named after a family whose layout safegen knows, for it goes by the class's name.
    """

    spatial_compression_ratio, temporal_compression_ratio = 4, 4

    def __init__(self, level: float = 1.0) -> None:
        super().__init__()
        self.config = {"latent_channels": 48, "scaling_factor": 1.0}
        self.level = torch.nn.Parameter(torch.tensor(level))
        self.encoder = torch.nn.Sequential()

    def encode(self, video: Tensor) -> SimpleNamespace:
        b, _, frames, height, width = video.shape
        late = video[:, :, 1:].reshape(b, 3, (frames - 1) // 4, 4, height, width).mean(dim=3)
        flat = torch.cat([video[:, :, :1], late], dim=2).transpose(1, 2)
        cells = nnf.pixel_unshuffle(flat, 4).transpose(1, 2) / self.level
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: cells, mean=cells))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        video = nnf.pixel_shuffle(self.level * latents.transpose(1, 2), 4).transpose(1, 2)
        return SimpleNamespace(sample=torch.cat([video[:, :, :1], video[:, :, 1:].repeat_interleave(4, dim=2)], dim=2))


class Uneven(AutoencoderKLHunyuanVideo):
    """Its decoder adds to every channel what its encoder knows nothing of: most of the one before."""

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return super().decode(latents + 0.8 * latents.roll(1, dims=1))


class Silent(AutoencoderKLHunyuanVideo):
    """Its decoder draws the same grey whatever it is given."""

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=0 * super().decode(latents).sample)


Uneven.__name__ = Silent.__name__ = AutoencoderKLHunyuanVideo.__name__
