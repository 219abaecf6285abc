"""WanTransformer3DModel's forward pass for training on processors: the same numbers, several times quicker.

diffusers computes norms and modulations in float32 and a modulation for each token. Here all runs in one dtype, what a
frame's tokens share is computed once, and the text's padding, which Wan attends to, is one token that counts as many.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def forward(
    model: Any, x: Tensor, sigma: Tensor, states: Tensor, text_length: int, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Return the model's output [B, C, T, H, W] in float32 for latents ``x`` of that shape.

    ``sigma`` [B, T] is each frame's share of noise (a thousandth of its timestep); ``states`` [B, L, width] are the
    text's, zero past each one's end, and stand for ``text_length`` tokens of which the rest are padding.
    """
    cast = _Cast(dtype)
    config = model.config
    b, c, frames, h, w = x.shape
    heads, width = config.num_attention_heads, config.num_attention_heads * config.attention_head_dim
    ph, pw = config.patch_size[1:]
    rows, columns = h // ph, w // pw
    patches = (
        x.view(b, c, frames, rows, ph, columns, pw).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, frames, rows * columns, -1)
    )
    kernel = cast(model.patch_embedding.weight).flatten(1)
    y = functional.linear(patches.to(dtype), kernel, cast(model.patch_embedding.bias))

    embedder = model.condition_embedder
    waves = embedder.timesteps_proj(sigma.flatten() * 1000).view(b, frames, -1).to(dtype)
    time = cast.linear(
        embedder.time_embedder.linear_2, functional.silu(cast.linear(embedder.time_embedder.linear_1, waves))
    )
    modulation = cast.linear(embedder.time_proj, functional.silu(time)).view(b, frames, 6, 1, width)

    padded = functional.pad(states.to(dtype), (0, 0, 0, 1))  # the last stands for all the padding that is left out
    text = functional.gelu(cast.linear(embedder.text_embedder.linear_1, padded), approximate="tanh")
    text = cast.linear(embedder.text_embedder.linear_2, text)
    bias = torch.zeros(padded.shape[1], dtype=dtype)
    bias[-1] = math.log(text_length - states.shape[1]) if text_length > states.shape[1] else -torch.inf

    cos, sin = (v.flatten(0, 1).squeeze(1).to(dtype) for v in model.rope(x))  # [N, head width]
    cos, sin = cos[:, 0::2].contiguous(), sin[:, 1::2].contiguous()
    order = _halves(heads, width // heads)
    for block in model.blocks:
        table = cast(block.scale_shift_table).view(1, 1, 6, 1, width)
        shift, scale, gate, shift2, scale2, gate2 = (table + modulation).unbind(2)
        z = functional.layer_norm(y, (width,), eps=config.eps) * (1 + scale) + shift
        y = y + _self_attention(cast, block.attn1, z, cos, sin, order, heads) * gate
        z = functional.layer_norm(y, (width,), cast(block.norm2.weight), cast(block.norm2.bias), config.eps)
        y = y + _cross_attention(cast, block.attn2, z, text, bias, heads)
        z = functional.layer_norm(y, (width,), eps=config.eps) * (1 + scale2) + shift2
        z = functional.gelu(cast.linear(block.ffn.net[0].proj, z), approximate="tanh")
        y = y + cast.linear(block.ffn.net[2], z) * gate2
    shift, scale = (cast(model.scale_shift_table).view(1, 1, 2, 1, width) + time.view(b, frames, 1, 1, width)).unbind(2)
    y = functional.layer_norm(y, (width,), eps=config.eps) * (1 + scale) + shift
    y = cast.linear(model.proj_out, y).view(b, frames, rows, columns, ph, pw, -1)
    return y.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, -1, frames, h, w).float()


class _Cast:
    """Weights in the dtype of the pass."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __call__(self, weight: Tensor) -> Tensor:
        return weight.to(self._dtype)

    def linear(self, layer: Any, x: Tensor) -> Tensor:
        return functional.linear(x, self(layer.weight), self(layer.bias))


def _halves(heads: int, width: int) -> Tensor:
    """Return an order of channels, each head's even ones before its odd ones: rotations then need no strides."""
    one = torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])
    return (torch.arange(heads).unsqueeze(1) * width + one).flatten()


def _projected(cast: _Cast, layer: Any, norm: Any, x: Tensor, order: Tensor | None) -> Tensor:
    weight, bias, gain = cast(layer.weight), cast(layer.bias), cast(norm.weight)
    if order is not None:
        weight, bias, gain = weight[order], bias[order], gain[order]
    return functional.rms_norm(functional.linear(x, weight, bias), (weight.shape[0],), gain, norm.eps)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[B, N, width] to [B, heads, N, width of one]."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of [B, heads, N, D] in plain products: the fused kernel's way back is slow for so few tokens."""
    scores = q @ k.transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def _self_attention(
    cast: _Cast, attention: Any, z: Tensor, cos: Tensor, sin: Tensor, order: Tensor, heads: int
) -> Tensor:
    flat = z.flatten(1, 2)  # [B, N, width]

    def turned(t: Tensor) -> Tensor:
        even, odd = _by_head(t, heads).chunk(2, dim=-1)
        return torch.cat([even * cos - odd * sin, even * sin + odd * cos], -1)

    q = turned(_projected(cast, attention.to_q, attention.norm_q, flat, order))
    k = turned(_projected(cast, attention.to_k, attention.norm_k, flat, order))
    v = _by_head(cast.linear(attention.to_v, flat), heads)
    made = _attend(q * q.shape[-1] ** -0.5, k, v, None).transpose(1, 2).flatten(2)
    return cast.linear(attention.to_out[0], made).view(z.shape)


def _cross_attention(cast: _Cast, attention: Any, z: Tensor, text: Tensor, bias: Tensor, heads: int) -> Tensor:
    q = _by_head(_projected(cast, attention.to_q, attention.norm_q, z.flatten(1, 2), None), heads)
    k = _by_head(_projected(cast, attention.to_k, attention.norm_k, text, None), heads)
    v = _by_head(cast.linear(attention.to_v, text), heads)
    made = _attend(q * q.shape[-1] ** -0.5, k, v, bias).transpose(1, 2).flatten(2)
    return cast.linear(attention.to_out[0], made).view(z.shape)
