"""The pattern that carries the mark of a clip: which slots there are, what they hold, how they look (spec section 3).

A clip's pattern is a sum of slow cosines in Y, Cb and Cr that changes about every fourth frame and goes through
``PHASES`` phases before it repeats. One *slot* is one cosine in one channel in one phase; its sign holds one piece of
the mark. A fifth of the slots, the *signpost*, are the same for everybody: they tell any reader that a safegen mark is
there, and how the clip has been moved, turned, scaled and cut since. The rest are the owner's: which coded bit a slot
carries and with which sign comes from the watermark key and a nonce, which changes from clip to clip.

Coordinates are in units of the picture's short side, so that the pattern scales with the picture; past the short side's
length cosines go on by themselves, mirrored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safegen.errors import PayloadError
from safegen.types import ContentId, parse_content_id
from safegen.watermark import ecc
from safegen.watermark.payload import PAYLOAD_BITS, Payload, pack, stream, to_bits

SCHEME = "latent-residual"
PHASES = 8
FRAMES_PER_PHASE = 4
ORDER = 24
"""Cosines have fewer than this many half-periods along the short side, in both directions."""

LUMA_BAND = (3.0, 24.0)
CHROMA_BAND = (2.0, 16.0)
"""Smallest (inclusive) and largest (exclusive) radius sqrt(u^2 + v^2) of the slots used, in half-periods."""

SIGNPOST_SHARE = 5
"""One slot in this many belongs to the signpost."""

NONCES = 64
"""Ways in which a key lays its coded bits; the content id chooses one."""

LEAST_FRAMES = 2 * FRAMES_PER_PHASE + 1
"""Shorter clips have no time for a pattern that changes."""

TO_RGB: NDArray[np.float32] = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]], np.float32)
"""Y, Cb, Cr to R, G, B (BT.601, full range), [3, 3] to be applied from the left."""

CODED_BITS = ecc.coded_length(PAYLOAD_BITS)
_SIGNPOST_LABEL = b"safegen/watermark/v1/signpost"


@lru_cache(maxsize=1)
def radii() -> NDArray[np.float64]:
    """Radius of every cosine, [ORDER, ORDER] over (v, u)."""
    v, u = np.mgrid[:ORDER, :ORDER]
    out: NDArray[np.float64] = np.hypot(u, v)
    return out


@lru_cache(maxsize=1)
def used() -> NDArray[np.bool_]:
    """Which (channel, v, u) are slots: bool [3, ORDER, ORDER], the same in every phase."""
    bands = (LUMA_BAND, CHROMA_BAND, CHROMA_BAND)
    return np.stack([(radii() >= low) & (radii() < high) for low, high in bands])


@lru_cache(maxsize=1)
def signpost() -> NDArray[np.float32]:
    """The public part: ±1 where a slot belongs to the signpost, else 0; float32 [PHASES, 3, ORDER, ORDER]."""
    out = np.zeros((PHASES, *used().shape), np.float32)
    slots = np.flatnonzero(used())
    for phase in range(PHASES):
        words = _words(hashlib.shake_256(_SIGNPOST_LABEL + phase.to_bytes(4, "big")).digest(8 * len(slots)))
        mine = np.argsort(words >> np.uint64(1), kind="stable")[: len(slots) // SIGNPOST_SHARE]
        out[phase].reshape(-1)[slots[mine]] = _signs(words[mine])
    return out


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a key puts the coded bits under each of N nonces.

    ``slots`` [n] are the payload's slots as flat indices into [PHASES, 3, ORDER, ORDER]; ``signs`` [N, n] ±1 and
    ``bits`` [N, n] say with which sign each of them carries which coded bit.
    """

    slots: NDArray[np.int64]
    signs: NDArray[np.float32]
    bits: NDArray[np.int64]

    def coefficients(self, word: NDArray[np.generic], row: int = 0) -> NDArray[np.float32]:
        """Slot values [PHASES, 3, ORDER, ORDER] of a ±1 codeword [CODED_BITS], without the signpost."""
        out = np.zeros((PHASES, *used().shape), np.float32)
        out.reshape(-1)[self.slots] = self.signs[row] * word.astype(np.float32)[self.bits[row]]
        return out

    def sums(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """Correlation sums of the coded bits under each nonce, [N, CODED_BITS]; ``samples`` lie as coefficients do."""
        count = len(self.signs)
        weights = self.signs * samples.reshape(-1)[self.slots]
        places = self.bits + CODED_BITS * np.arange(count)[:, None]
        sums = np.bincount(places.ravel(), weights.ravel(), count * CODED_BITS)
        return sums.reshape(count, CODED_BITS).astype(np.float64, copy=False)

    def norm(self, samples: NDArray[np.float32]) -> float:
        """Euclidean norm of the samples in the payload's slots."""
        return float(np.linalg.norm(samples.reshape(-1)[self.slots].astype(np.float64)))


@lru_cache(maxsize=8)
def place(key: bytes, nonces: tuple[int, ...] = tuple(range(NONCES))) -> Placement:
    """Lay the coded bits over the payload's slots. Raises PayloadError for a key that is not 32 bytes."""
    slots, signs, bits = [], [], []
    for phase in range(PHASES):
        mine = np.flatnonzero(used() & (signpost()[phase] == 0))
        n = len(mine)
        words = np.stack([_words(stream(key, SCHEME, phase, nonce, length=8 * n)) for nonce in nonces])
        order = np.argsort(words >> np.uint64(1), axis=1, kind="stable")
        carried = np.empty((len(nonces), n), np.int64)
        np.put_along_axis(carried, order, (np.arange(n)[None] + phase * n) % CODED_BITS, axis=1)
        slots.append(mine + phase * used().size)
        signs.append(_signs(words))
        bits.append(carried)
    return Placement(np.concatenate(slots), np.concatenate(signs, axis=1), np.concatenate(bits, axis=1))


def nonce_of(content_id: ContentId, key: bytes) -> int:
    """Which of the key's NONCES placements a clip uses: pseudorandom, so that averaging clips cancels their marks."""
    try:
        identity = int(parse_content_id(content_id), 16)
    except (ValueError, TypeError) as exc:
        raise PayloadError(f"{exc}", remedy="Draw one with safegen.types.new_content_id().") from exc
    return stream(key, f"{SCHEME}/nonce", identity >> 32, identity & 0xFFFFFFFF, length=1)[0] % NONCES


def coefficients(payload: Payload, key: bytes) -> NDArray[np.float32]:
    """Slot values of a whole mark, signpost and payload: [PHASES, 3, ORDER, ORDER] of ±1, 0 where nothing is used."""
    placement = place(key, (nonce_of(payload.content_id, key),))
    return placement.coefficients(codeword(payload, key)) + signpost()


def codeword(payload: Payload, key: bytes) -> NDArray[np.int8]:
    """The ±1 codeword [CODED_BITS] of an authenticated payload; +1 stands for a coded 0."""
    return ecc.encode(to_bits(pack(payload, key)))


def phase_of(frame: int) -> int:
    """The phase of a frame of an untouched clip of a model that codes four frames at a time, the first one alone."""
    return (frame + FRAMES_PER_PHASE - 1) // FRAMES_PER_PHASE % PHASES


@lru_cache(maxsize=64)
def cosines(length: int, short: int, start: int = 0) -> NDArray[np.float32]:
    """Cosines at ``length`` pixel centres from ``start`` on, ``short`` to the short side: float32 [ORDER, length].

    Orthonormal over the short side (the rows of an orthonormal DCT-II where ``length == short``).
    """
    k, x = np.arange(ORDER)[:, None], (np.arange(start, start + length) + 0.5) / short
    rows = np.cos(np.pi * k * x) * np.sqrt(np.where(k == 0, 1.0, 2.0) / short)
    return rows.astype(np.float32)


def _words(data: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(data, ">u8").astype(np.uint64)


def _signs(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    return (1.0 - 2.0 * (words & np.uint64(1))).astype(np.float32)
