"""What every watermark scheme offers, and the one result type that extraction returns.

A scheme embeds 112-bit payloads (payload.py) and reads them back blindly: no prompt, no original, only the key. Its
answer rests on a statistic whose law under "no mark by this key" is known whatever the video is:

* The key's pseudorandom signs k_i are independent of an unmarked video, so by Hoeffding's inequality the correlation
  T = sum_i k_i c_i a_i / ||a|| of its whitened samples a with a fixed codeword c obeys P(T >= z) <= exp(-z*z/2).
* Extraction looks for the best of 2**112 codewords in each of the alignments that it tries, so the p-value is
  alignments * 2**112 * exp(-z*z/2): a bound, never an estimate. A scheme that may lay a codeword in 64 ways
  (``placements``) pays for all: 2**118. Where the MAC holds, the codeword is one of the 2**64 that the key allows, each
  in one way, and 2**64 takes the place of both.

PRESENT needs p <= 1e-6 over all codewords. VERIFIED needs p <= 1e-6 *and* a payload whose 40-bit MAC holds; a list of
L candidates in each of A alignments passes the MAC by chance with probability at most A*L*2**-40 (7e-12 for one
alignment), so a false VERIFIED is at most as likely as the smaller of both bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from safegen.errors import WatermarkError
from safegen.types import Json
from safegen.watermark import ecc
from safegen.watermark.payload import CONTENT_BITS, PAYLOAD_BITS, Payload, from_bits, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRESENCE_P_VALUE = 1e-6
"""The largest p-value at which a mark counts as present."""

SMALLEST_P_VALUE = 1e-300
"""Smaller bounds are given as this one, lest they read as zero; evidence has their logarithm."""

LIST_SIZE = 8
"""How many candidate payloads of one alignment are shown to the MAC."""

RECOGNITION_MARGIN = 2.0
"""How far the best of the issued payloads must stand above the second best, in standard deviations."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class MarkStatus(StrEnum):
    """What extraction found: our payload; a mark by this key whose payload is damaged; nothing.

    COPIED and UNCOMPARED are no extractor's answers: they are what a payload amounts to once the pictures prove not to
    be its clip's, or cannot be compared with them (``watermark.fingerprint``).
    """

    VERIFIED = "verified"
    COPIED = "copied"
    UNCOMPARED = "uncompared"
    PRESENT = "present"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Extraction:
    """The outcome of one blind extraction. ``p_value`` bounds the chance that unmarked video scores ``statistic``."""

    status: MarkStatus
    scheme: str
    payload: Payload | None
    statistic: float
    p_value: float
    threshold: float  # the statistic that PRESENCE_P_VALUE asks for
    hypotheses: int  # alignments searched; codewords come on top
    evidence: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the outcome as plain JSON values."""
        return {
            "status": str(self.status),
            "scheme": self.scheme,
            "content_id": self.payload.content_id if self.payload else None,
            "statistic": round(self.statistic, 3),
            "p_value": self.p_value,
            "threshold": round(self.threshold, 3),
            "hypotheses": self.hypotheses,
            "evidence": dict(self.evidence),
        }


class Embedder(Protocol):
    """Marks finished frames. In-generation schemes offer a hook of their own (latent_residual.LatentEmbedder)."""

    scheme: str

    def embed_frames(self, frames: NDArray[np.uint8], payload: Payload, key: bytes) -> NDArray[np.uint8]:
        """Return marked frames, uint8 [T, H, W, 3] like ``frames``; WatermarkError if they cannot carry the payload."""
        ...


class Extractor(Protocol):
    """Reads marks from frames."""

    scheme: str

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 [T, H, W, 3] frames blindly; a missing mark is a result, WatermarkError means "could not look"."""
        ...


def check_frames(frames: NDArray[np.uint8]) -> None:
    """WatermarkError unless ``frames`` are an array uint8 [T, H, W, 3], not empty."""
    if not isinstance(frames, np.ndarray):
        raise WatermarkError(f"frames must be a uint8 array [T, H, W, 3], not {type(frames).__name__}")
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise WatermarkError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}")


def log_p_value(statistic: float, hypotheses: int, codeword_bits: float = PAYLOAD_BITS) -> float:
    """Natural log of the bound above for 2**codeword_bits codewords, at most 0."""
    if not math.isfinite(statistic) or statistic <= 0:
        return 0.0
    return min(0.0, math.log(hypotheses) + codeword_bits * math.log(2) - statistic * statistic / 2)


def threshold(hypotheses: int, codeword_bits: float = PAYLOAD_BITS) -> float:
    """The smallest statistic whose p-value is PRESENCE_P_VALUE: for one alignment 13.5, or 10.8 with 64 bits."""
    return math.sqrt(2 * (math.log(hypotheses) + codeword_bits * math.log(2) - math.log(PRESENCE_P_VALUE)))


def conclude(
    scheme: str,
    statistic: float,
    payload: Payload | None,
    hypotheses: int,
    evidence: Mapping[str, Json],
    *,
    issued: int = 0,
    placements: int = 1,
) -> Extraction:
    """Turn the best alignment's statistic and payload (or None) into an Extraction by the rules above.

    ``placements``: in how many ways the scheme may lay one payload; where a payload is known, so is its placement.

    ``issued``: the payload was not decoded but recognised among so many (``recognise``), which then are all the
    codewords that could have been found.
    """
    codeword_bits = PAYLOAD_BITS + math.log2(placements) if payload is None else float(CONTENT_BITS)
    if issued:
        codeword_bits = math.log2(issued)
        evidence = {**evidence, "recognised_among": issued}
    log_p = log_p_value(statistic, hypotheses, codeword_bits)
    status = MarkStatus.NONE
    if log_p <= math.log(PRESENCE_P_VALUE):
        status = MarkStatus.VERIFIED if payload is not None else MarkStatus.PRESENT
    return Extraction(
        status=status,
        scheme=scheme,
        payload=payload if status is MarkStatus.VERIFIED else None,
        statistic=statistic,
        p_value=max(math.exp(log_p), SMALLEST_P_VALUE),
        threshold=threshold(hypotheses, codeword_bits),
        hypotheses=hypotheses,
        evidence={**evidence, "log10_p": round(log_p / math.log(10), 2)},
    )


def decide(sums: NDArray[np.float64], norm: float, key: bytes, list_size: int) -> tuple[float, Payload | None, float]:
    """Decode the 369 coded bits' correlation sums: (statistic T, MAC-approved payload or None, agreeing signs' share).

    ``norm`` is the Euclidean norm of all the samples that went into the sums. T belongs to the candidate that the MAC
    approves, or to the best one if it approves none.
    """
    candidates = ecc.decode(sums, list_size=list_size)
    found, chosen = None, candidates[0]
    for bits in candidates:
        found = unpack(from_bits(bits), key)
        if found is not None:
            chosen = bits
            break
    word = ecc.encode(chosen)
    agreement = float(np.mean(np.where(sums >= 0, 1, -1) == word))
    return float(sums @ word) / norm, found, agreement


def recognise(statistics: NDArray[np.float64]) -> int | None:
    """Of the payloads known to be issued, given each one's statistic: the index of the one that is there, or None.

    For marks too weak to decode: naming one of a few thousand known payloads takes far less evidence than naming one
    of 2**64. It must be above the threshold for that many codewords and clearly ahead of the second best.
    """
    if not len(statistics):
        return None
    order = np.argsort(-statistics)
    best = float(statistics[order[0]])
    ahead = len(order) == 1 or best - float(statistics[order[1]]) >= RECOGNITION_MARGIN
    return int(order[0]) if ahead and best >= threshold(1, math.log2(len(statistics))) else None
