"""Every watermark scheme by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safegen.errors import WatermarkError
from safegen.watermark.base import Extractor
from safegen.watermark.clip.extraction import ClipExtractor
from safegen.watermark.pixel import PixelScheme

# Imported where they are used: what loads torch.

DEFAULT_SCHEME = "latent-residual"


def make_extractor(
    scheme: str = DEFAULT_SCHEME, *, vae: Any = None, shapes: Sequence[tuple[int, int, int]] = ()
) -> Extractor:
    """Return the extractor of a scheme by its name.

    ``latent-still`` needs the VAE (a module or a folder), ``noise-sign`` the VAE or, to read more, the Wan pipeline.
    ``shapes`` (T, H, W) are further shapes that ``latent-still`` tries by resizing where its own reads nothing.
    Raises WatermarkError for an unknown scheme or a missing VAE.
    """
    if scheme == "latent-residual":
        return ClipExtractor()
    if scheme == "latent-still":
        if vae is None:
            raise WatermarkError("the latent-still scheme reads through a VAE", remedy="Pass vae=load_vae(folder).")
        from safegen.watermark.still.latent_still import StillExtractor

        return StillExtractor(vae, shapes)
    if scheme == "noise-sign":
        if vae is None:
            raise WatermarkError(
                "the noise-sign scheme reads through a VAE", remedy="Pass the Wan pipeline, its VAE or its folder."
            )
        from safegen.watermark.noise.noise_sign import NoiseSignExtractor

        return NoiseSignExtractor(vae)
    if scheme == "pixel":
        return PixelScheme()
    raise WatermarkError(
        f"unknown watermark scheme {scheme!r}", remedy="Known: latent-residual, latent-still, noise-sign, pixel."
    )
