"""The watermarks under test behind one interface, and the generator that draws the clips that they mark."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark.codecs import Frames, transcode
from benchmarks.watermark.meter import Meter, add
from benchmarks.watermark.peers import PEERS, Bits, Peer, enough_bits
from benchmarks.watermark.prompts import prompt

KEY = hashlib.sha256(b"safegen robustness benchmark").digest()
SECOND_KEY = hashlib.sha256(b"safegen robustness benchmark, a second key").digest()
OWN_CRF = 18
ISSUED_SEEDS = range(1500, 2500)
"""Clips whose ids the verifier's ledger knows: a thousand, those of a run with the usual seeds among them."""

ROOT = Path(__file__).resolve().parents[2]


def content_id(seed: int) -> str:
    """The payload of the clip with this seed, 16 hex digits."""
    return hashlib.sha256(f"payload {seed}".encode()).hexdigest()[:16]


def to_bits(identity: str) -> Bits:
    """Hex digits as bits."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(identity), np.uint8))


@dataclass(frozen=True)
class Made:
    """A marked clip, its unmarked twin, what the mark says, and what making it cost."""

    marked: Frames
    twin: Frames
    payload: str
    timings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What a reader found. ``payload`` in hex; ``status`` is empty for readers that always answer with some bits."""

    payload: str | None
    status: str
    statistic: float | None = None
    segments: tuple[str, ...] = ()
    decoded: bool = True  # False: recognised among the ids that were issued, not decoded

    def judged(self, truth: str) -> dict[str, Any]:
        """Right or wrong. A reader that gives no payload has guessed: half of its bits are right.

        ``exact``: all of the payload is right, of the clip or of one of its segments. ``verified``: our own schemes'
        VERIFIED, a false one at most once in a million reads, or as many right bits as chance reaches that rarely.
        """
        found = {p for p in (self.payload, *self.segments) if p}
        wanted = to_bits(truth)
        right = max((float(np.mean(to_bits(p) == wanted)) for p in found), default=0.5)
        by_bits = round(right * len(wanted)) >= enough_bits(len(wanted))
        exact = truth in found and self.status in ("", "verified")
        return {
            "exact": exact,
            "blind": exact and self.decoded,
            "verified": self.status == "verified" if self.status else by_bits,
            "bit_accuracy": right,
            "status": self.status or "bits",
            "statistic": self.statistic,
            "found": sorted(found),
        }


class Scheme(Protocol):
    """One watermark under test."""

    name: str
    keyed: bool

    def generate(self, seed: int) -> Made:
        """The marked clip of this seed and its twin."""
        ...

    def read(self, frames: Frames, key: bytes = KEY) -> Reading:
        """Look for a mark."""
        ...

    def payload(self, seed: int) -> str:
        """What the clip of this seed carries."""
        ...

    def mark_again(self, frames: Frames) -> Frames:
        """A second mark on marked frames: another key where there are keys, another payload."""
        ...

    def fingerprint(self) -> str:
        """Changes with the code that reads."""
        ...


class Studio:
    """The generator: draws clips from seeds, marked by a step callback or not. Loads the model when first needed."""

    def __init__(self, model: str = "tiny") -> None:
        self.model = model
        self.twins: Callable[[int], Frames] = lambda seed: self.draw(seed)[0]

    @cached_property
    def _loaded(self) -> tuple[Any, Any, dict[str, Any], float]:
        from safegen.generators import Card, load, resolve

        ref = resolve(self.model)
        card = Card.read(ref)
        return ref, load(ref), dict(card.resolve()), float(card.fps)

    @property
    def pipe(self) -> Any:
        return self._loaded[1]

    @cached_property
    def fps(self) -> float:
        from safegen.generators import Card, resolve

        return float(Card.read(resolve(self.model)).fps)

    def draw(self, seed: int, callback: Any = None) -> tuple[Frames, dict[str, float]]:
        """One clip by the product's own sampling, and what it cost."""
        from safegen.generators import sample

        _ref, pipe, call, _fps = self._loaded
        with Meter() as meter:
            frames = sample(pipe, call, prompt=prompt(seed), seed=seed, callback=callback)
        return frames, meter.costs

    @property
    def shape(self) -> Any:
        """The clip that the pipeline is asked for."""
        from safegen.watermark.layouts import call_shape

        return call_shape(self.pipe, self._loaded[2])

    @property
    def call(self) -> dict[str, Any]:
        """The pipeline's arguments."""
        return self._loaded[2]

    def decode(self, latents: Any) -> Frames:
        from safegen.generators import decode_latents

        return decode_latents(self.pipe, latents, self.shape)

    def through_vae(self, frames: Frames, vae: Any = None) -> Frames:
        """Encode and decode by the pipeline's VAE, or by another one."""
        import torch

        from safegen.watermark import fastvae

        with torch.no_grad():
            latents = fastvae.encode(vae or self.pipe.vae, as_video(frames))
            if vae is None:
                return self.decode(latents)
            video = fastvae.decode(vae, latents)[0].permute(1, 2, 3, 0).cpu().numpy()
        return np.rint((video.clip(-1, 1) + 1) * 127.5).astype(np.uint8)

    def encode_costs(self, frames: Frames) -> dict[str, float]:
        """What one VAE encode of the clip costs: the unit that extraction is measured in. The first run warms up."""
        import torch

        from safegen.watermark import fastvae

        costs: dict[str, float] = {}
        for _ in range(2):
            with torch.no_grad(), Meter() as meter:
                fastvae.encode(self.pipe.vae, as_video(frames))
            costs = meter.costs
        return costs

    @cached_property
    def _redrawer(self) -> Any:
        from safegen.generators import load

        return load(self._loaded[0], mode="video")

    def redraw(self, frames: Frames, strength: float, seed: int) -> Frames:
        """Video-to-video by the same model without a mark: the nearest thing to a regeneration attack."""
        from safegen.generators import sample

        call = self._loaded[2]
        return sample(self._redrawer, call, prompt="", seed=seed, video=frames, strength=strength)


def as_video(frames: Frames) -> Any:
    """float32 ``[1, 3, T, H, W]`` in [-1, 1]."""
    import torch

    return torch.from_numpy(frames.astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)[None]


def _code(*patterns: str) -> str:
    """Digest of source files by glob patterns from the repository's root."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in patterns for p in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _reading(found: Any) -> Reading:
    """Our own Extraction as a Reading; a splice's payloads stand in its evidence's ``segments``, if it lists them."""
    segments = found.evidence.get("segments") or ()
    named = [s.get("content_id") for s in segments if isinstance(s, dict)]
    payload = found.payload.content_id if found.payload else None
    decoded = "recognised_among" not in found.evidence
    return Reading(payload, str(found.status), float(found.statistic), tuple(str(n) for n in named if n), decoded)


class LatentResidual:
    """The in-latent mark, put on as ``safegen generate`` does: in the sampling loop, stronger if its own read fails.

    Read as ``safegen verify`` does: a mark too weak to decode is compared with the ids that were issued. The ids of
    ISSUED_SEEDS stand for a ledger; ``Reading.decoded`` tells both ways apart.
    """

    name, keyed = "latent-residual", True

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    @cached_property
    def issued(self) -> list[Any]:
        """What the ledger would know, as a verifier's settings allow."""
        from safegen.types import ContentId

        return [ContentId(content_id(seed)) for seed in ISSUED_SEEDS]

    def payload(self, seed: int) -> str:
        return content_id(seed)

    def generate(self, seed: int) -> Made:
        import tempfile

        from safegen.release.marking import MarkRequest, comfortable, make_marking
        from safegen.settings import Home
        from safegen.types import ContentId

        clean: list[Any] = []
        costs: dict[str, float] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            clean[:] = [tensors["latents"].detach().clone()]
            return tensors

        pipe, identity = self.studio.pipe, content_id(seed)
        home = Home(Path(tempfile.gettempdir()) / "safegen-benchmark-home")
        request = MarkRequest(
            ContentId(identity), KEY, self.studio.model, self.studio.call, seed, home, lambda _done, _total: None, keep
        )
        marking = make_marking(self.name, pipe, request)

        def mark(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal costs
            with Meter() as meter:
                tensors = marking.on_step_end(pipe, step, timestep, tensors)
            costs = add(costs, meter.costs)
            return tensors

        sampled, whole = self.studio.draw(seed, mark)
        start, frames, strength = time.perf_counter(), sampled, marking.strengths[0]
        for strength in marking.strengths:
            frames = marking.frames(sampled, strength)
            own = marking.read(transcode(frames, self.studio.fps, "h264", OWN_CRF))
            right = own.payload is not None and own.payload.content_id == identity
            if right and comfortable(own, marking.headroom):
                break
        timings = {
            "embed": costs,
            "generate_marked": whole,
            "strength": strength,
            "strength_search_wall_s": time.perf_counter() - start,
        }
        return Made(frames, self.studio.decode(clean[0]), identity, timings)

    def read(self, frames: Frames, key: bytes = KEY, *, issued: Sequence[Any] = ()) -> Reading:
        from safegen.watermark.clip.extraction import extract_stream

        return _reading(extract_stream(frames, [key], issued=issued or self.issued))

    def mark_again(self, frames: Frames) -> Frames:
        return Pixel(self.studio).mark(frames, content_id(-1), SECOND_KEY)

    def fingerprint(self) -> str:
        return _code("watermark/*.py", "watermark/profiles/*")


class Pixel:
    """safegen's pixel scheme, on the same twins."""

    name, keyed = "pixel", True

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def payload(self, seed: int) -> str:
        return content_id(seed)

    def mark(self, frames: Frames, identity: str, key: bytes = KEY) -> Frames:
        from safegen.types import ContentId
        from safegen.watermark.payload import Payload
        from safegen.watermark.pixel import PixelScheme

        return PixelScheme().embed_frames(frames, Payload(ContentId(identity)), key)

    def generate(self, seed: int) -> Made:
        twin = self.studio.twins(seed)
        with Meter() as meter:
            marked = self.mark(twin, content_id(seed))
        return Made(marked, twin, content_id(seed), {"embed": meter.costs})

    def read(self, frames: Frames, key: bytes = KEY) -> Reading:
        from safegen.watermark.pixel import PixelScheme

        return _reading(PixelScheme().extract_frames(frames, key))

    def mark_again(self, frames: Frames) -> Frames:
        return self.mark(frames, content_id(-1), SECOND_KEY)

    def fingerprint(self) -> str:
        return _code("watermark/pixel.py", "watermark/base.py", "watermark/ecc.py", "watermark/payload.py")


class PeerScheme:
    """One of the peers, on the same twins."""

    keyed = False

    def __init__(self, studio: Studio, peer: Peer) -> None:
        self.studio, self.peer, self.name = studio, peer, peer.name

    def payload(self, seed: int) -> str:
        return content_id(seed)[: self.peer.bits // 4]

    def generate(self, seed: int) -> Made:
        twin, identity = self.studio.twins(seed), self.payload(seed)
        with Meter() as meter:
            marked = self.peer.mark(twin, to_bits(identity))
        return Made(marked, twin, identity, {"embed": meter.costs})

    def read(self, frames: Frames, key: bytes = KEY) -> Reading:
        bits: NDArray[np.uint8] = self.peer.read(frames)
        return Reading(np.packbits(bits).tobytes().hex(), "")

    def mark_again(self, frames: Frames) -> Frames:
        return self.peer.mark(frames, to_bits(self.payload(-1)))

    def fingerprint(self) -> str:
        return _code("benchmarks/watermark/peers.py")


SCHEMES = ("latent-residual", "pixel", *PEERS)


def make_scheme(name: str, studio: Studio) -> Scheme:
    """A scheme by its name; FileNotFoundError or ImportError where a peer's library or weights are missing."""
    if name in PEERS:
        return PeerScheme(studio, PEERS[name]())
    return LatentResidual(studio) if name == LatentResidual.name else Pixel(studio)
