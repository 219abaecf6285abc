"""Whole-clip passes of video VAEs, in model-normalised latents, with gradients.

diffusers runs ``AutoencoderKLWan`` chunk by chunk with a feature cache. One pass over the whole clip computes the same
numbers several times faster and lets gradients flow; the price is activations for all frames at once, which
``checkpoint=True`` keeps bounded. Other VAEs run through their own ``encode``/``decode``.

Everywhere here *latents* are ``[B, C, T, H, W]`` in the units that the denoiser sees (zero mean, unit variance by the
VAE's own statistics) and *video* is ``[B, 3, T, H, W]`` in [-1, 1].
"""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint as _checkpoint

from safegen.errors import WatermarkError
from safegen.watermark import layouts
from safegen.watermark.wan_encoder import FAMILY, WEIGHTS, WanEncoder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

# Imported where they are used: diffusers.


def load_vae(folder: str | Path) -> Any:
    """Load the VAE alone from a pipeline folder (or from its ``vae`` subfolder), float32, ready for CPU inference.

    Raises WatermarkError when the folder holds no VAE that diffusers knows. Never touches the network.
    """
    path = _vae_folder(folder)
    try:
        from diffusers.models.auto_model import AutoModel

        vae = AutoModel.from_pretrained(str(path), local_files_only=True, torch_dtype=torch.float32)
    except Exception as exc:  # diffusers raises many unrelated types here
        raise WatermarkError(f"no VAE could be loaded from {path}: {exc}", remedy="Name a diffusers folder.") from exc
    return prepare(vae)


def load_reader(folder: str | Path) -> Any:
    """Load what ``encode`` needs and no more: for a Wan VAE its encoder alone, without diffusers; else the whole VAE.

    Raises WatermarkError as ``load_vae`` does.
    """
    path = _vae_folder(folder)
    try:
        family = json.loads((path / "config.json").read_text("utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as exc:
        raise WatermarkError(f"{path / 'config.json'} is damaged: {exc}", remedy="Save the pipeline again.") from exc
    return WanEncoder.load(path) if family == FAMILY else load_vae(path)


def prepare(vae: Any) -> Any:
    """Put ``vae`` in evaluation mode and, on CPU, its weights in the layout that convolutions like; same values."""
    vae.eval().requires_grad_(False)
    if next(vae.parameters()).device.type == "cpu" and is_wan(vae):
        for module in vae.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return vae


def vae_digest(vae_or_folder: Any) -> str:
    """SHA-256 (hex) of the VAE's weights file: it names which VAE reads a mark.

    Takes a pipeline folder, a ``vae`` folder, or a loaded VAE that remembers the folder it came from.
    """
    source = vae_or_folder if isinstance(vae_or_folder, (str, Path)) else vae_or_folder.config.get("_name_or_path", "")
    folder = _vae_folder(source)
    for name in WEIGHTS:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    raise WatermarkError(f"no weights file in {folder}", remedy="Pass the folder that the VAE was loaded from.")


def _vae_folder(folder: str | Path) -> Path:
    path = Path(folder)
    path = path / "vae" if (path / "vae").is_dir() else path
    if not (path / "config.json").is_file():
        raise WatermarkError(f"no VAE in {folder}", remedy="Pass a diffusers pipeline folder or its vae subfolder.")
    return path


def is_wan(vae: Any) -> bool:
    """Whether ``vae`` is an AutoencoderKLWan, whose whole-clip pass we know."""
    return layouts.family(vae) == layouts.WAN


@lru_cache(maxsize=1)
def fast_cpu() -> bool:
    """Whether this CPU multiplies bfloat16 natively (otherwise float32 is both faster and more exact)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(vae: Any) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the hardware has it and the weights are float32; otherwise no change."""
    weight = next(vae.parameters())
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and fast_cpu():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def latent_stats(vae: Any) -> tuple[Tensor, Tensor]:
    """Return (mean, std), each ``[1, C, 1, 1, 1]``: raw VAE latents = normalised latents * std + mean."""
    config, weight = vae.config, next(vae.parameters())
    if layouts.family(vae) == layouts.LTX:
        mean, std = vae.latents_mean, vae.latents_std  # buffers, kept with the weights
    else:
        mean, std = config.get("latents_mean"), config.get("latents_std")
    scale = config.get("scaling_factor")
    if mean is not None and std is not None:
        shift, factor = torch.as_tensor(mean), torch.as_tensor(std) / (scale if scale is not None else 1.0)
    elif scale is not None:
        shift, factor = torch.tensor([config.get("shift_factor") or 0.0]), torch.tensor([1.0 / scale])
    else:
        raise WatermarkError(
            f"{type(vae).__name__} states neither latents_mean/latents_std nor scaling_factor",
            remedy="Use the pixel scheme for this pipeline.",
        )
    return tuple(v.to(weight.device, torch.float32).view(1, -1, 1, 1, 1) for v in (shift, factor))  # type: ignore[return-value]


def encode(vae: Any, video: Tensor, *, checkpoint: bool = False) -> Tensor:
    """Mean latents ``[B, C, T', H', W']`` (float32, normalised) of ``video [B, 3, T, H, W]``; gradients flow."""
    dtype = next(vae.parameters()).dtype
    mean, std = latent_stats(vae)
    with autocast(vae):
        if isinstance(vae, WanEncoder):
            raw = vae.moments(video.to(dtype)).chunk(2, dim=1)[0]
        elif is_wan(vae):
            moments = vae.quant_conv(_wan_encoder(vae, video.to(dtype), checkpoint))
            raw = moments.chunk(2, dim=1)[0]
        elif _is_image_vae(vae):
            frames = video.transpose(1, 2).flatten(0, 1).to(dtype)
            raw = _split(_distribution_mean(vae.encode(frames)), len(video)).transpose(1, 2)
        else:
            raw = _distribution_mean(vae.encode(video.to(dtype)))
    latents: Tensor = (raw.float() - mean) / std
    return latents


def decode(vae: Any, latents: Tensor, *, checkpoint: bool = False) -> Tensor:
    """Video ``[B, 3, T, H, W]`` (float32, not clamped) of normalised ``latents [B, C, T', H', W']``; gradients flow."""
    dtype = next(vae.parameters()).dtype
    mean, std = latent_stats(vae)
    raw = (latents.float() * std + mean).to(dtype)
    with autocast(vae):
        if is_wan(vae):
            return _wan_decoder(vae, vae.post_quant_conv(raw), checkpoint).float()
        if _is_image_vae(vae):
            temporal = {"num_frames": raw.shape[2]} if layouts.family(vae) == layouts.SVD else {}
            frames = vae.decode(raw.transpose(1, 2).flatten(0, 1), **temporal).sample
            return _split(frames, len(raw)).transpose(1, 2).float()
        # LTX decoders that still denoise a little are told how far: not at all, as their pipelines do by default.
        timestep = (raw.new_zeros(len(raw)),) if vae.config.get("timestep_conditioning") else ()
        return vae.decode(raw, *timestep).sample.float()  # type: ignore[no-any-return]


def _split(frames: Tensor, clips: int) -> Tensor:
    """[B*T, ...] to [B, T, ...]."""
    return frames.reshape(clips, -1, *frames.shape[1:])


def _distribution_mean(output: Any) -> Tensor:
    distribution = getattr(output, "latent_dist", None)
    if distribution is None:
        raise WatermarkError("this VAE has no Gaussian posterior", remedy="Use the pixel scheme for this pipeline.")
    return distribution.mode()  # type: ignore[no-any-return]


def _is_image_vae(vae: Any) -> bool:
    return any(isinstance(m, torch.nn.Conv2d) for m in vae.encoder.children())


# --- AutoencoderKLWan, whole clip --------------------------------------------------------------------------------


def _wan_encoder(vae: Any, video: Tensor, checkpoint: bool) -> Tensor:
    from diffusers.models.autoencoders import autoencoder_kl_wan as wan

    net = vae.encoder
    x = net.conv_in(wan.patchify(video, vae.config.patch_size or 1))
    for block in net.down_blocks:
        x = _block(block, x, checkpoint)
    return net.conv_out(net.nonlinearity(net.norm_out(_block(net.mid_block, x, checkpoint))))  # type: ignore[no-any-return]


def _wan_decoder(vae: Any, raw: Tensor, checkpoint: bool) -> Tensor:
    from diffusers.models.autoencoders import autoencoder_kl_wan as wan

    net = vae.decoder
    x = _block(net.mid_block, net.conv_in(raw), checkpoint)
    for block in net.up_blocks:
        x = _block(block, x, checkpoint)
    y = net.conv_out(net.nonlinearity(net.norm_out(x)))
    return wan.unpatchify(y, vae.config.patch_size or 1)  # type: ignore[no-any-return]


def _block(block: Any, x: Tensor, checkpoint: bool) -> Tensor:
    if checkpoint and torch.is_grad_enabled() and x.requires_grad:
        return _checkpoint(_plain_block, block, x, use_reentrant=False)  # type: ignore[no-any-return]
    return _plain_block(block, x)


def _plain_block(block: Any, x: Tensor) -> Tensor:
    """One block of the Wan encoder or decoder over all frames, without its feature cache."""
    kind = type(block).__name__
    if kind == "WanResample":
        return _resample(block, x)
    if kind not in ("WanResidualDownBlock", "WanResidualUpBlock", "WanUpBlock"):
        return block(x)  # type: ignore[no-any-return]
    y = x
    for resnet in block.resnets:
        y = resnet(y)
    if kind == "WanUpBlock":
        return _resample(block.upsamplers[0], y) if block.upsamplers is not None else y
    if kind == "WanResidualUpBlock":
        y = _resample(block.upsampler, y) if block.upsampler is not None else y
        return y + block.avg_shortcut(x, first_chunk=True) if block.avg_shortcut is not None else y
    y = _resample(block.downsampler, y) if block.downsampler is not None else y
    return y + block.avg_shortcut(x)  # type: ignore[no-any-return]


def _resample(layer: Any, x: Tensor) -> Tensor:
    """WanResample over all frames: the first latent frame stands for one frame, every later one for several."""
    b, c, t, h, w = x.shape
    if layer.mode == "upsample3d" and t > 1:
        pairs = layer.time_conv(x[:, :, 1:]).reshape(b, 2, c, t - 1, h, w)
        x = torch.cat([x[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * (t - 1), h, w)], 2)
    t = x.shape[2]
    y: Tensor = layer.resample(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    y = y.view(b, t, *y.shape[1:]).permute(0, 2, 1, 3, 4)
    if layer.mode == "downsample3d" and t > 1:
        y = torch.cat([y[:, :, :1], layer.time_conv(y)], 2)
    return y
