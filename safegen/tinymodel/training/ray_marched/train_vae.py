"""The VAE's stage: reconstruction, with latent channels kept apart and a little noise in between.

Without the decorrelation term a handful of latent directions carry everything, pictures get mushy, and watermarks have
nowhere to live.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training import muon
from safegen.tinymodel.training.parts import Z, make_vae
from safegen.tinymodel.training.ray_marched.presets import Run
from safegen.watermark import fastvae

# Imported where they are used: diffusers.

_LAYOUT = torch.channels_last_3d
_SMALLEST_MUON = 13  # rows and columns; the 12 input channels go to AdamW
_LR, _LR_END, _WARMUP, _REST_LR = 8e-3, 2e-5, 40, 0.5


def to_video(clips: Tensor) -> Tensor:
    """Return uint8 [B, T, H, W, 3 or 4] as float [B, 3, T, H, W] in [-1, 1]."""
    video = clips[..., :3].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return video.contiguous(memory_format=_LAYOUT)


def train_vae(run: Run, clips: Tensor, start_from: str = "") -> Any:
    """Return the trained VAE, frozen: ``start_from`` (a diffusers folder), or what an earlier run kept, or a new one.

    ``clips`` is uint8 [N, T, S, S, 4], the last channel 255 where a solid is seen.
    """
    vae = make_vae()
    if start_from:
        from diffusers import AutoencoderKLWan

        vae.load_state_dict(AutoencoderKLWan.from_pretrained(start_from).state_dict())
    elif run.kept("vae.pt").exists():
        vae.load_state_dict(torch.load(run.kept("vae.pt"), map_location="cpu"))
    else:
        _fit(run, vae, clips)
        run.save({k: v.cpu() for k, v in vae.state_dict().items()}, "vae.pt")
    return fastvae.prepare(vae.to(run.device))


def _fit(run: Run, vae: Any, clips: Tensor) -> None:
    with torch.no_grad():
        vae.quant_conv.bias[Z:] = -4.0  # start with a small posterior variance
    vae.to(run.device)
    for parameter in vae.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUT)
    forward = _forward(vae)
    forward = torch.compile(forward, dynamic=False) if run.preset.compile else forward
    matrices, rest = muon.split(vae, _SMALLEST_MUON)
    optimisers = (muon.Muon(matrices), torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=1e-4))
    began, step = time.monotonic(), 0
    while (done := (time.monotonic() - began) / run.preset.vae_seconds) < 1:
        rate = _LR * min(1, (step + 1) / _WARMUP) * (1 - done) ** 0.7 + _LR_END
        for optimiser, factor in zip(optimisers, (1, _REST_LR), strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
        video, weight = _crops(run, clips, *_crop_shape(run, done, step))
        with run.amp():
            mean, log_variance, made = forward(video)
        loss, parts = _loss(video, made.float(), weight, mean.float(), log_variance.float())
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        if step % run.preset.log_every == 0 or step == 3:
            run.log(f"vae {step} T{video.shape[2]} {_report(*parts)}")
    run.log(f"vae done, {step} steps")


def _forward(vae: Any) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return video -> (mean, log variance, reconstruction from a sample), over whole clips."""

    def forward(video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = vae.quant_conv(fastvae._wan_encoder(vae, video, False)).chunk(2, dim=1)
        mean, log_variance = mean.float(), log_variance.float().clamp(-12, 4)
        # a little noise at least: a smoother decoder
        spread = torch.maximum(torch.exp(0.5 * log_variance), 0.06 * mean.std().detach())
        return mean, log_variance, fastvae.decode(vae, mean + spread * torch.randn_like(mean))

    return forward


def _crop_shape(run: Run, done: float, step: int) -> tuple[int, int, int]:
    """Return (crops, frames, pixels) of the next batch, by the share of the budget that is spent."""
    batch, frames, size = run.preset.vae_batch, run.preset.frames, run.preset.size
    if not run.preset.space_first:  # a third on whole pictures, at the end only these
        shape = (batch // 4, 17, size) if done > 0.9 or step % 3 == 2 else (batch, 17, 128)
    elif done < 0.4 or step % 3 == 0:
        shape = (4 * batch, 1, 128)
    else:
        shape = (batch, 9, 96) if done < 0.93 else (2, 17, 128)
    return shape[0], min(shape[1], frames), min(shape[2], size)


def _crops(run: Run, clips: Tensor, count: int, frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Return random crops, [count, 3, T, S, S] in [-1, 1], and their pixel weights: solids count four times."""
    picks = []
    for k in torch.randint(len(clips), (count,)).tolist():
        t = run.dice.randint(0, run.preset.frames - frames)
        y, x = (run.dice.randint(0, run.preset.size - size) for _ in range(2))
        picks.append(clips[k, t : t + frames, y : y + size, x : x + size])
    batch = torch.stack(picks)
    batch = batch.flip(-2) if run.dice.random() < 0.5 else batch
    return to_video(batch), 1 + 3 * batch[..., 3:].permute(0, 4, 1, 2, 3).float() / 255


def _loss(
    video: Tensor, made: Tensor, weight: Tensor, mean: Tensor, log_variance: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return the loss and (loss, squared error, standard deviation, channel correlations) for the log."""
    error = (made - video) * weight
    squared = functional.mse_loss(made, video)
    channels = mean.transpose(0, 1).flatten(1)
    channels = (channels - channels.mean(1, keepdim=True)) / (channels.std(1, keepdim=True) + 1e-4)
    correlations = channels @ channels.T / channels.shape[1]
    tangled = (correlations - torch.diag(torch.diag(correlations))).pow(2).sum() / Z
    divergence = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).mean()
    edges = [error.diff(dim=d).abs().mean() for d in (-2, -1)]
    edges += [error.diff(dim=2).abs().mean()] if error.shape[2] > 1 else []
    coarse = [functional.avg_pool3d(error, (1, k, k)).abs().mean() for k in (4, 16)]
    loss = error.abs().mean() + 0.5 * torch.stack(edges).sum() + squared + 1e-5 * divergence + 0.05 * tangled
    loss = loss + torch.stack(coarse).sum()
    return loss, (loss.detach(), squared.detach(), mean.detach().std(), correlations.detach())


def _report(loss: Tensor, squared: Tensor, deviation: Tensor, correlations: Tensor) -> str:
    share = torch.linalg.eigvalsh(correlations).clamp_min(1e-6)
    share = share / share.sum()
    rank = torch.exp(-(share * share.log()).sum())
    psnr = -10 * math.log10(squared.item() / 4)
    return f"psnr {psnr:.2f} loss {loss.item():.3f} z-std {deviation.item():.2f} rank {rank.item():.1f}"
