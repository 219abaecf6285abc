"""Putting the mark on one clip and reading it back: in the latents where they can be reached, else in the pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from safegen.errors import InputError
from safegen.types import ContentId

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.generators.sampling import StepCallback
    from safegen.watermark.base import Extraction

LATENT_SCHEME, PIXEL_SCHEME = "latent-residual", "pixel"

HEADROOM = 1.2
"""How far the read-back statistic must pass the threshold of presence: H.264 at CRF 28 costs it about a sixth."""

Report = Callable[[float, float], None]

STRENGTHS = (1.0, 1.6, 2.5)
"""In-latent strengths tried in turn: a stronger one only if the weaker was not read back with headroom."""


def comfortable(found: Extraction) -> bool:
    """Whether a mark read back from our own encode will survive another one: ours is the mildest that it meets."""
    return found.payload is not None and found.statistic >= HEADROOM * found.threshold


class Marking(Protocol):
    """One clip's mark, on its way through a run."""

    scheme: str
    strengths: tuple[float, ...]  # to be tried in turn
    seconds: float  # spent on embedding so far

    def on_step_end(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Diffusers' ``callback_on_step_end``."""
        ...

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return the marked frames at ``strength``, given what the pipeline returned; uint8 [T, H, W, 3]."""
        ...

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Look for the mark in frames that were encoded and decoded."""
        ...


def make_marking(
    scheme: str | None,
    pipe: Any,
    source: str,
    content_id: ContentId,
    key: bytes,
    report: Report,
    before: StepCallback | None,
) -> Marking:
    """Return the marking of ``scheme``; by default the in-latent one, or pixels where the latents are out of reach.

    They are out of reach where ``pipe``'s VAE is of an unknown family, and where it is kept nowhere (``source``, the
    model's name or folder, is empty): whoever reads the mark later needs the same VAE. ``before`` is a step callback of
    the caller's own, called first. InputError for an unknown or impossible scheme.
    """
    from safegen.watermark.latent_residual import reaches

    if scheme is None:
        scheme = LATENT_SCHEME if source and reaches(pipe.vae) else PIXEL_SCHEME
    if scheme == LATENT_SCHEME:
        if not source:
            raise InputError(
                "The in-latent mark needs a VAE that can be found again, and this pipeline was loaded from nowhere.",
                remedy="Save it with save_pretrained and load it from there, or use the pixel scheme.",
            )
        return LatentMarking(pipe, content_id, key, report, before)
    if scheme == PIXEL_SCHEME:
        return PixelMarking(content_id, key, before)
    raise InputError(f"Unknown watermark scheme {scheme!r}.", remedy=f"Known: {LATENT_SCHEME}, {PIXEL_SCHEME}.")


class LatentMarking:
    """The in-latent mark, embedded inside the denoising loop."""

    scheme: str = LATENT_SCHEME
    strengths: tuple[float, ...] = STRENGTHS

    def __init__(
        self, pipe: Any, content_id: ContentId, key: bytes, report: Report, before: StepCallback | None
    ) -> None:
        from safegen.watermark.latent_residual import LatentEmbedder
        from safegen.watermark.payload import Payload

        self.seconds = 0.0
        self._pipe = pipe
        self._key = key
        self._embedder = LatentEmbedder(Payload(content_id), key, strength=STRENGTHS[0], progress=report)
        self._before = before

    def on_step_end(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Let the embedder see the latents, after the caller's own callback."""
        if self._before is not None:
            tensors = self._before(pipe, step, timestep, tensors)
        start = time.perf_counter()
        try:
            return self._embedder(pipe, step, timestep, tensors)
        finally:
            self.seconds += time.perf_counter() - start

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return ``sampled``, which is marked already; at a higher strength mark the clean latents again and decode."""
        if strength == STRENGTHS[0]:
            return sampled
        from safegen.generators import decode_latents

        start = time.perf_counter()
        stronger = self._embedder.remark(self._pipe.vae, strength)
        self.seconds += time.perf_counter() - start
        return decode_latents(self._pipe, stronger)

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Read through the pipeline's own VAE."""
        from safegen.watermark.latent_residual import extract_frames

        return extract_frames(frames, self._pipe.vae, self._key)


class PixelMarking:
    """The pixel mark, for pipelines whose latents are out of reach."""

    scheme: str = PIXEL_SCHEME
    strengths: tuple[float, ...] = (1.0,)

    def __init__(self, content_id: ContentId, key: bytes, before: StepCallback | None) -> None:
        from safegen.watermark.payload import Payload
        from safegen.watermark.pixel import PixelScheme

        self.seconds = 0.0
        self._payload = Payload(content_id)
        self._key = key
        self._scheme = PixelScheme()
        self._before = before

    def on_step_end(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Only the caller's own callback: there is nothing to do in the loop."""
        return tensors if self._before is None else self._before(pipe, step, timestep, tensors)

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return ``sampled`` with the mark in its pixels; its strength is fixed by the library."""
        start = time.perf_counter()
        marked = self._scheme.embed_frames(sampled, self._payload, self._key)
        self.seconds += time.perf_counter() - start
        return marked

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Read from the pixels."""
        return self._scheme.extract_frames(frames, self._key)
