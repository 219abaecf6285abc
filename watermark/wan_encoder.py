"""The encoder half of diffusers' ``AutoencoderKLWan``, from its weights file alone and without importing diffusers.

Whoever reads a mark needs one encode and nothing else of a pipeline. Importing diffusers takes several times as long as
that encode, and a verifier need not have it installed. The arithmetic is that of the whole-clip pass in fastvae.py;
``tests/unit/watermark/test_wan_encoder.py`` compares it with diffusers' own chunked encode.

Wan: Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025 (arXiv:2503.20314).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safegen.errors import WatermarkError

FAMILY = "AutoencoderKLWan"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")


@dataclass(frozen=True, slots=True, repr=False)
class WanEncoder:
    """Weights (float32) and configuration of one Wan VAE's encoder. Has no decoder and no gradient of its own."""

    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @classmethod
    def load(cls, folder: Path) -> WanEncoder:
        """Read ``folder`` (a ``vae`` folder of a diffusers pipeline); WatermarkError if it is damaged or incomplete."""
        path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
        if path is None:
            raise WatermarkError(f"no weights file in {folder}", remedy="Name a diffusers pipeline folder.")
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            with safe_open(str(path), framework="pt") as file:
                names = [n for n in file.keys() if n.startswith(("encoder.", "quant_conv."))]  # noqa: SIM118
                weights = {n: file.get_tensor(n).float() for n in names}
        except (OSError, ValueError, SafetensorError) as error:
            raise WatermarkError(f"{folder} is damaged: {error}", remedy="Save the pipeline again.") from error
        layout = torch.channels_last_3d
        return cls(config, {n: w.contiguous(memory_format=layout) if w.ndim == 5 else w for n, w in weights.items()})

    def parameters(self) -> Any:
        """Iterate over the weights, as a module does: callers ask the first one for device and dtype."""
        return iter(self.weights.values())

    def moments(self, video: Tensor) -> Tensor:
        """Mean and log-variance of the raw latents, ``[B, 2C, T', H', W']``; ``video`` [B, 3, T, H, W] in [-1, 1]."""
        try:
            return self._conv3d("quant_conv", self._encode(_patchify(video, self.config.get("patch_size") or 1)))
        except KeyError as error:
            raise WatermarkError(f"the VAE's weights lack {error}", remedy="Save the pipeline again.") from error

    def _encode(self, x: Tensor) -> Tensor:
        x = self._conv3d("encoder.conv_in", x, padding=1)
        blocks = self._residual_blocks if self.config.get("is_residual") else self._plain_blocks
        x = blocks(x)
        x = self._resnet("encoder.mid_block.resnets.0", x)
        x = self._attention("encoder.mid_block.attentions.0", x)
        x = self._resnet("encoder.mid_block.resnets.1", x)
        return self._conv3d("encoder.conv_out", nnf.silu(self._norm("encoder.norm_out", x)), padding=1)

    def _residual_blocks(self, x: Tensor) -> Tensor:
        """Wan 2.2: every level has an averaging shortcut around its blocks and its downsampler."""
        levels = len(self.config["dim_mult"])
        for level in range(levels):
            name, last = f"encoder.down_blocks.{level}", level == levels - 1
            in_time = not last and bool(self.config["temperal_downsample"][level])
            y = x
            for i in range(self.config["num_res_blocks"]):
                y = self._resnet(f"{name}.resnets.{i}", y)
            if not last:
                y = self._downsample(f"{name}.downsampler", y, in_time)
            channels = self.config["base_dim"] * self.config["dim_mult"][level]
            x = y + _average(x, channels, 2 if in_time else 1, 1 if last else 2)
        return x

    def _plain_blocks(self, x: Tensor) -> Tensor:
        """Wan 2.1: one flat list of residual blocks and downsamplers."""
        if self.config.get("attn_scales"):
            raise WatermarkError("this Wan VAE has attention between its levels, which safegen does not know")
        levels, index = len(self.config["dim_mult"]), 0
        for level in range(levels):
            for _ in range(self.config["num_res_blocks"]):
                x = self._resnet(f"encoder.down_blocks.{index}", x)
                index += 1
            if level != levels - 1:
                in_time = bool(self.config["temperal_downsample"][level])
                x = self._downsample(f"encoder.down_blocks.{index}", x, in_time)
                index += 1
        return x

    # -- layers --------------------------------------------------------------------------------------------------------

    def _conv3d(self, name: str, x: Tensor, *, padding: int = 0, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        """Convolve, padded causally: all of the padding in time lies before the first frame."""
        if padding:
            x = nnf.pad(x, (padding, padding, padding, padding, 2 * padding, 0))
        return nnf.conv3d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride)

    def _conv2d(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return nnf.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        unit: Tensor = nnf.normalize(x.float(), dim=1).to(x.dtype)
        return unit * math.sqrt(x.shape[1]) * self.weights[f"{name}.gamma"]

    def _resnet(self, name: str, x: Tensor) -> Tensor:
        shortcut = self._conv3d(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.weights else x
        y = self._conv3d(f"{name}.conv1", nnf.silu(self._norm(f"{name}.norm1", x)), padding=1)
        return shortcut + self._conv3d(f"{name}.conv2", nnf.silu(self._norm(f"{name}.norm2", y)), padding=1)

    def _attention(self, name: str, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        frames = self._norm(f"{name}.norm", x.transpose(1, 2).reshape(b * t, c, h, w))
        qkv = self._conv2d(f"{name}.to_qkv", frames).reshape(b * t, 1, 3 * c, h * w).transpose(2, 3).contiguous()
        q, k, v = qkv.chunk(3, dim=-1)
        seen = nnf.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(b * t, c, h, w)
        return x + self._conv2d(f"{name}.proj", seen).view(b, t, c, h, w).transpose(1, 2)

    def _downsample(self, name: str, x: Tensor, in_time: bool) -> Tensor:
        b, c, t, h, w = x.shape
        frames = nnf.pad(x.transpose(1, 2).reshape(b * t, c, h, w), (0, 1, 0, 1))
        y = self._conv2d(f"{name}.resample.1", frames, stride=2)
        x = y.view(b, t, *y.shape[1:]).transpose(1, 2)
        if in_time and t > 1:  # the first frame stands alone
            x = torch.cat([x[:, :, :1], self._conv3d(f"{name}.time_conv", x, stride=(2, 1, 1))], 2)
        return x


def _patchify(video: Tensor, size: int) -> Tensor:
    """Fold ``size`` x ``size`` pixels into channels, in diffusers' order (channel, column, row)."""
    b, c, t, h, w = video.shape
    x = video.reshape(b, c, t, h // size, size, w // size, size).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, c * size * size, t, h // size, w // size)


def _average(x: Tensor, channels: int, time: int, space: int) -> Tensor:
    """Fold ``time`` frames and ``space`` x ``space`` pixels into channels, and average down to ``channels``."""
    x = nnf.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // time, time, h // space, space, w // space, space).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, channels, -1, t // time, h // space, w // space).mean(2)
