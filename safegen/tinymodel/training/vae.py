"""The VAE's stage: reconstruction in which solids weigh most, with latent channels kept apart and noise in between.

Without the decorrelation term a handful of latent directions carry everything, pictures get mushy, and watermarks have
nowhere to live.

    python -m safegen.tinymodel.training.vae OUT --start safegen/tinymodel/pipe --seconds 1500
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training import muon, render, world
from safegen.tinymodel.training.run import Run, halved, restore
from safegen.watermark import fastvae

_LAYOUT = torch.channels_last_3d
_SMALLEST_MUON = 13  # rows and columns; the 12 input channels go to AdamW
_RATE, _RATE_END, _WARMUP, _REST_RATE = 8e-4, 2e-5, 20, 0.4
_SOLID_WEIGHT = 6.0  # a solid's pixel counts this much more than the others
_NOISE = 0.08  # least standard deviation of the noise in between, over the latents' own: a smoother decoder
_SHAPES = ((2, 9, 128), (4, 9, 96), (2, 9, 128), (1, 9, 192))  # clips, frames, pixels of a step's crops
_MEASURED = 16  # clips, for the mean and deviation of latents
SIZE, FRAMES = 192, 25


def to_video(clips: Tensor) -> Tensor:
    """Return uint8 [B, T, H, W, 3 or 4] as float [B, 3, T, H, W] in [-1, 1]."""
    video = clips[..., :3].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return video.contiguous(memory_format=_LAYOUT)


def train_vae(out: Path, start: Path, seconds: float, *, decoder_only: bool = False) -> Any:
    """Fine-tune the VAE of the pipeline folder ``start`` on scenes drawn as it goes, for processor ``seconds`` in all.

    ``decoder_only`` leaves the encoder as it is, so that latents already computed stay good. Keeps its state in ``out``
    and goes on from there. Returns the VAE.
    """
    vae = fastvae.load_vae(start)
    run = Run(out)
    trained = vae if not decoder_only else torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    trained.requires_grad_(True)
    matrices, rest = muon.split(trained, _SMALLEST_MUON)
    optimisers = (muon.Muon(matrices), torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=1e-4))
    name = "decoder.pt" if decoder_only else "vae.pt"
    kept = run.load(name)
    if kept:
        vae.load_state_dict(kept["weights"])
        run.spent, run.step = kept["seconds"], kept["step"]
        restore(optimisers[0].momenta(), kept["momentum"])
    dice = random.Random(10_000 + run.step)  # noqa: S311  # scenes are drawn by lot, keys are not
    torch.manual_seed(run.step)
    while (done := run.seconds / seconds) < 1:
        rate = _RATE * min(1, (run.step + 1) / _WARMUP) * (1 - done) ** 0.7 + _RATE_END
        for optimiser, factor in zip(optimisers, (1, _REST_RATE), strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        video, weight = _crops(dice, *_SHAPES[run.step % len(_SHAPES)])
        with fastvae.autocast(vae):
            mean, log_variance, made = _forward(vae, video, decoder_only)
        loss, report = _loss(video, made.float(), weight, mean, log_variance)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        run.step += 1
        if run.step % 10 == 0:
            run.log(f"vae {run.step} {report} rate {rate:.1e}")
        if run.due():
            _keep(run, name, vae, optimisers[0])
    _keep(run, name, vae, optimisers[0])
    fastvae.prepare(vae)
    if not decoder_only:
        _measure(vae, dice)
    vae.half().save_pretrained(out / "vae")
    run.log(f"vae done, {run.step} steps")
    return vae.float()


@torch.inference_mode()
def _measure(vae: Any, dice: random.Random) -> None:
    """Note the latents' mean and deviation, which the denoiser sees removed, in the VAE's configuration."""
    mean, std = fastvae.latent_stats(vae)
    drawn = (render.draw(dice, 1, FRAMES, SIZE)[0] for _ in range(_MEASURED))
    raw = torch.cat([fastvae.encode(vae, to_video(d)) for d in drawn]) * std + mean
    every = (0, 2, 3, 4)
    vae.register_to_config(latents_mean=raw.mean(every).tolist(), latents_std=raw.std(every).tolist())


def _keep(run: Run, name: str, vae: Any, optimiser: muon.Muon) -> None:
    weights = {k: v.half() for k, v in vae.state_dict().items()}
    momentum = halved(optimiser.momenta())
    run.save({"weights": weights, "momentum": momentum, "seconds": run.seconds, "step": run.step}, name)


def _crops(dice: random.Random, count: int, frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw crops of fresh scenes: [count, 3, T, S, S] in [-1, 1], and their pixels' weights."""
    picks = []
    for _ in range(count):
        first = dice.randint(0, FRAMES - frames)
        drawn = render.render(world.draw_scene(dice), render.moments(FRAMES)[first : first + frames], SIZE)
        y, x = (dice.randint(0, SIZE - size) for _ in range(2))
        picks.append(drawn[:, y : y + size, x : x + size])
    batch = torch.stack(picks)
    return to_video(batch), 1 + _SOLID_WEIGHT * batch[..., 3:].permute(0, 4, 1, 2, 3).float() / 255


def _forward(vae: Any, video: Tensor, decoder_only: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return (mean, log variance, reconstruction from a sample), over whole clips."""
    with torch.set_grad_enabled(not decoder_only):
        moments = vae.quant_conv(fastvae._wan_encoder(vae, video, False)).float()
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-12, 4)
    spread = torch.maximum(torch.exp(0.5 * log_variance), _NOISE * mean.std().detach())
    raw = mean + spread * torch.randn_like(mean)
    return mean, log_variance, fastvae._wan_decoder(vae, vae.post_quant_conv(raw), False)


def _loss(video: Tensor, made: Tensor, weight: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, str]:
    """Return the loss and a line about it."""
    error = (made - video) * (weight / weight.mean())
    squared = (error * (made - video)).mean()
    channels = mean.transpose(0, 1).flatten(1)
    channels = (channels - channels.mean(1, keepdim=True)) / (channels.std(1, keepdim=True) + 1e-4)
    correlations = channels @ channels.T / channels.shape[1]
    tangled = (correlations - torch.diag(torch.diag(correlations))).square().sum() / len(correlations)
    divergence = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).mean()
    edges = sum(error.diff(dim=d).abs().mean() for d in (-3, -2, -1))
    coarse = sum(functional.avg_pool3d(error, (1, k, k)).abs().mean() for k in (4, 16))
    loss = error.abs().mean() + 0.5 * edges + squared + 1e-5 * divergence + 0.05 * tangled + coarse
    with torch.no_grad():
        share = torch.linalg.eigvalsh(correlations).clamp_min(1e-6)
        share = share / share.sum()
        rank = torch.exp(-(share * share.log()).sum()).item()
        plain = (made - video).square()
        solid = (weight - 1) / _SOLID_WEIGHT
        on_solid = (plain * solid).sum() / (3 * solid.sum() + 1e-6)
        psnr, psnr_solid = (-10 * math.log10(e.item() / 4 + 1e-9) for e in (plain.mean(), on_solid))
    return loss, f"psnr {psnr:.2f} solid {psnr_solid:.2f} loss {loss.item():.3f} rank {rank:.1f}"


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, required=True, help="pipeline folder whose VAE the training goes on from")
    parser.add_argument("--seconds", type=float, default=1500, help="processor seconds, those already spent included")
    parser.add_argument("--decoder-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train_vae(given.out, given.start, given.seconds, decoder_only=given.decoder_only)


if __name__ == "__main__":
    main()
