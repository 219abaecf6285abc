"""Putting the mark on one clip and reading it back: in the latents where they can be reached, else in the pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from safegen.calibration.profiles import profile_for
from safegen.errors import InputError
from safegen.generators import decode_latents
from safegen.settings import Home
from safegen.types import ContentId
from safegen.watermark.payload import Payload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.generators.sampling import StepCallback
    from safegen.watermark.base import Extraction
    from safegen.watermark.layouts import ClipShape

# Imported where they are used: torch, and what loads cv2.

LATENT_SCHEME, STILL_SCHEME, NOISE_SCHEME, PIXEL_SCHEME = "latent-residual", "latent-still", "noise-sign", "pixel"
DRAWN_SCHEME = "clip-pixels"
"""LATENT_SCHEME's pattern and reader, drawn into the pixels of finished frames."""

VAE_SCHEMES = (STILL_SCHEME, NOISE_SCHEME)
"""Schemes whose readers need the model that drew the clip."""

STILL_FRAMES = 8
"""Clips up to this long are marked as stills are: a pattern that changes over time has no time to change."""

HEADROOM = 1.2
"""How far the read-back statistic must pass the threshold of presence, so that another encode leaves a mark."""

CLIP_HEADROOM = 2.0
"""The same for clips: H.264 at CRF 30 costs their statistic a third, and a payload needs 1.2 thresholds to decode."""

DRAWN_MARGIN, WEAKEST = 1.15, 0.4
"""What our own encode costs the statistic, and the weakest mark that is drawn, as a share of the normal one."""

CLIP_LAST_RESORT = (1.5, 2.2)
"""Strengths that show, for clips that cannot be read at the one that does not."""

Report = Callable[[float, float], None]


def comfortable(found: Extraction, headroom: float) -> bool:
    """Whether a mark read back from our own encode will survive another one: ours is the mildest that it meets."""
    return found.payload is not None and found.statistic >= headroom * found.threshold


@dataclass(frozen=True, slots=True)
class MarkRequest:
    """What a marking needs to know of the run. ``source`` is the model's name or folder, "" for one kept nowhere."""

    content_id: ContentId
    key: bytes = field(repr=False)
    source: str
    call: Mapping[str, Any]
    seed: int
    home: Home
    report: Report
    before: StepCallback | None = None  # a step callback of the caller's own, called first


class Marking(Protocol):
    """One clip's mark, on its way through a run."""

    scheme: str
    last_resort: tuple[float, ...]  # tried where none of ``strengths`` can be read: they show, in even places
    headroom: float
    seconds: float  # spent on embedding so far

    def arguments(self) -> dict[str, Any]:
        """Return what the pipeline is to be called with besides the caller's arguments."""
        ...

    def on_step_end(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Diffusers' ``callback_on_step_end``."""
        ...

    def strengths(self, sampled: NDArray[np.uint8]) -> tuple[float, ...]:
        """Return the strengths to be tried in turn: a stronger one only if the weaker lacked headroom."""
        ...

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return the marked frames at ``strength``, given what the pipeline returned; uint8 [T, H, W, 3]."""
        ...

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Look for the mark in frames that were encoded and decoded."""
        ...


def make_marking(scheme: str | None, pipe: Any, request: MarkRequest) -> Marking:
    """Return the marking of ``scheme``; by default the in-latent one, or pixels where the latents are out of reach.

    They are out of reach where ``pipe``'s VAE is of an unknown family; for clips, where it does not draw the pattern;
    for stills, where it is kept nowhere (``request.source`` is empty), since whoever reads them needs it too. In pixels
    clips get the same pattern as in latents, stills another one.
    InputError for an unknown or impossible scheme.
    """
    from safegen.watermark.layouts import call_shape

    shape = call_shape(pipe, request.call)
    still = shape.frames <= STILL_FRAMES
    if scheme is None:
        scheme = _default_scheme(pipe, request, still)
    if scheme in VAE_SCHEMES and not request.source:
        raise InputError(
            f"The {scheme} mark needs a VAE that can be found again, and this pipeline was loaded from nowhere.",
            remedy="Save it with save_pretrained and load it from there, or use another scheme.",
        )
    if scheme in (LATENT_SCHEME, DRAWN_SCHEME):
        if still:
            raise InputError(
                f"{shape.frames} frames are too few for the {scheme} mark.",
                remedy=f"Generate more than {STILL_FRAMES}, or leave the scheme open.",
            )
        return LatentMarking(pipe, request, shape) if scheme == LATENT_SCHEME else DrawnMarking(request)
    if scheme == STILL_SCHEME:
        if not still:
            raise InputError(f"The {scheme} mark is for up to {STILL_FRAMES} frames.", remedy="Leave the scheme open.")
        return StillMarking(pipe, request, shape)
    if scheme == NOISE_SCHEME:
        return NoiseMarking(pipe, request, shape)
    if scheme == PIXEL_SCHEME:
        return PixelMarking(request)
    known = ", ".join((LATENT_SCHEME, DRAWN_SCHEME, STILL_SCHEME, NOISE_SCHEME, PIXEL_SCHEME))
    raise InputError(f"Unknown watermark scheme {scheme!r}.", remedy=f"Known: {known}.")


def _default_scheme(pipe: Any, request: MarkRequest, still: bool) -> str:
    from safegen.watermark.layouts import reaches

    reached = reaches(pipe.vae)
    if still:
        return STILL_SCHEME if reached and request.source else PIXEL_SCHEME
    if reached and profile_for(pipe.vae, request.home, progress=request.report).draws:
        return LATENT_SCHEME
    return DRAWN_SCHEME


class _Marking:
    """What all markings have in common."""

    last_resort: tuple[float, ...] = ()
    headroom: float = HEADROOM

    def __init__(self, request: MarkRequest) -> None:
        self.seconds = 0.0
        self._hook: StepCallback | None = None
        self._key = request.key
        self._payload = Payload(request.content_id)
        self._before = request.before

    def arguments(self) -> dict[str, Any]:
        return {}

    def strengths(self, _sampled: NDArray[np.uint8]) -> tuple[float, ...]:
        return (1.0,)

    def on_step_end(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Call the caller's own callback, then mark."""
        if self._before is not None:
            tensors = self._before(pipe, step, timestep, tensors)
        start = time.perf_counter()
        try:
            return tensors if self._hook is None else self._hook(pipe, step, timestep, tensors)
        finally:
            self.seconds += time.perf_counter() - start


class _LatentMarking(_Marking):
    """What the two marks in the latents have in common: at a higher strength the clean latents are marked again."""

    def __init__(self, pipe: Any, request: MarkRequest, shape: ClipShape) -> None:
        super().__init__(request)
        self._pipe = pipe
        self._shape = shape

    def _again(self, strength: float) -> Any:
        raise NotImplementedError

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return ``sampled``, which is marked already; at a higher strength mark the clean latents again and decode."""
        if strength == 1.0:
            return sampled
        start = time.perf_counter()
        stronger = self._again(strength)
        self.seconds += time.perf_counter() - start
        return decode_latents(self._pipe, stronger, self._shape)


class _ClipMarking(_Marking):
    """What both ways to draw the pattern of clips have in common: from the pixels it is read alike."""

    last_resort: tuple[float, ...] = CLIP_LAST_RESORT
    headroom: float = CLIP_HEADROOM

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Read from the pixels, as anybody with the key does."""
        from safegen.watermark.clip.extraction import extract_frames

        return extract_frames(frames, self._key, look=False)


class LatentMarking(_LatentMarking, _ClipMarking):
    """The mark of clips: one linear filter on the latents of the last denoising step."""

    scheme: str = LATENT_SCHEME

    def __init__(self, pipe: Any, request: MarkRequest, shape: ClipShape) -> None:
        from safegen.watermark.clip.latent_residual import LatentEmbedder

        super().__init__(pipe, request, shape)
        profile = profile_for(pipe.vae, request.home, progress=request.report)
        self._hook = self._embedder = LatentEmbedder(self._payload, self._key, profile, shape)

    def _again(self, strength: float) -> Any:
        return self._embedder.remark(strength)


class StillMarking(_LatentMarking):
    """The mark of stills, shaped by gradients through the VAE, and read through it."""

    scheme: str = STILL_SCHEME
    last_resort: tuple[float, ...] = (3.2,)

    def __init__(self, pipe: Any, request: MarkRequest, shape: ClipShape) -> None:
        from safegen.watermark.still.latent_still import StillEmbedder

        super().__init__(pipe, request, shape)
        self._hook = self._embedder = StillEmbedder(self._payload, self._key, progress=request.report, shape=shape)

    def strengths(self, _sampled: NDArray[np.uint8]) -> tuple[float, ...]:
        """Three, for stills are small."""
        return (1.0, 1.6, 2.5)

    def _again(self, strength: float) -> Any:
        return self._embedder.remark(self._pipe.vae, strength)

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Read through the pipeline's own VAE."""
        from safegen.watermark.still.latent_still import extract_frames

        return extract_frames(frames, self._pipe.vae, self._key)


class NoiseMarking(_Marking):
    """The payload in the signs of the initial noise: the pictures' law is unchanged, and fewer attacks are survived."""

    scheme: str = NOISE_SCHEME
    headroom: float = 1.0

    def __init__(self, pipe: Any, request: MarkRequest, shape: ClipShape) -> None:
        import torch

        from safegen.watermark.noise.inversion import check
        from safegen.watermark.noise.noise_sign import NoiseSignExtractor, initial_noise

        super().__init__(request)
        check(pipe)
        start = time.perf_counter()
        from safegen.watermark.layouts import strides

        cell, stride = strides(pipe.vae)
        size = (1, pipe.transformer.config.in_channels, (shape.frames - 1) // stride + 1,
                shape.height // cell, shape.width // cell)  # fmt: skip
        generator = torch.Generator("cpu").manual_seed(request.seed)
        self._noise = initial_noise(size, self._payload, self._key, generator=generator)
        self._reader = NoiseSignExtractor(pipe, max_sequence_length=int(request.call.get("max_sequence_length", 512)))
        self.seconds += time.perf_counter() - start

    def arguments(self) -> dict[str, Any]:
        """Return the noise to start from."""
        return {"latents": self._noise}

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return ``sampled``: the noise has marked it."""
        return sampled

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Read through VAE and denoiser."""
        return self._reader.extract_frames(frames, self._key)


class DrawnMarking(_ClipMarking):
    """The mark of clips drawn into the pixels, for pipelines whose latents are out of reach."""

    scheme: str = DRAWN_SCHEME

    def strengths(self, sampled: NDArray[np.uint8]) -> tuple[float, ...]:
        """Of large, long or calm clips a weaker mark reads as well: the statistic grows with the strength."""
        found = self.read(self.frames(sampled, 1.0))
        enough = DRAWN_MARGIN * self.headroom * found.threshold / max(found.statistic, 1e-6)
        weaker = round(max(enough, WEAKEST), 2)
        return (weaker, 1.0) if weaker < 1 else (1.0,)

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return ``sampled`` with the pattern in its pixels."""
        from safegen.watermark.clip.in_pixels import embed_frames

        start = time.perf_counter()
        marked = embed_frames(sampled, self._payload, self._key, strength=strength)
        self.seconds += time.perf_counter() - start
        return marked


class PixelMarking(_Marking):
    """The pixel mark of stills, for pipelines whose latents are out of reach."""

    scheme: str = PIXEL_SCHEME

    def __init__(self, request: MarkRequest) -> None:
        from safegen.watermark.pixel import PixelScheme

        super().__init__(request)
        self._scheme = PixelScheme()

    def frames(self, sampled: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        """Return ``sampled`` with the mark in its pixels; its strength is fixed by the library."""
        start = time.perf_counter()
        marked = self._scheme.embed_frames(sampled, self._payload, self._key)
        self.seconds += time.perf_counter() - start
        return marked

    def read(self, frames: NDArray[np.uint8]) -> Extraction:
        """Read from the pixels."""
        return self._scheme.extract_frames(frames, self._key)
