"""Keyed initial noise: a clip's payload in the signs of the large values of the noise that its denoising starts from.

Writing. Latent frame 0 is plain noise (image-to-video replaces it). In every later frame t a keyed fair coin per
position says whether its magnitude comes from the tails of N(0, 1), |z| > 0.6745, or from the centre: the median of
|z|, so each is half of the law. A tail's sign is a keyed fair coin times a coded bit of the payload (pilots: times
one); a centre's sign and all magnitudes are drawn from the caller's generator. This places the payload where signs
survive best, as T2SMark does (NeurIPS 2025), and tells the reader blindly where that is.

What is preserved. Were the keyed coins truly random, the noise of one clip would be exactly i.i.d. N(0, 1), whatever
the payload: flag, sign and magnitude given the flag are independent and have the laws that N(0, 1) gives them. The
coins are SHAKE-256 keyed by key, nonce, frame and shape, so for everyone without the key the noises of any number of
clips with *distinct nonces* are computationally indistinguishable from N(0, I). That is all: for a fixed key and nonce
the law is another one (the signs are fixed), and of two clips of one shape whose nonces coincide the flags and the
pilots' signs are equal, the other signs equal up to both codewords. A nonce is 12 bits of a keyed hash of the content
id, so among q clips under one key such a pair is to be expected from q = 80 on. Noise is seldom public; where it might
be, change the key before that.

Reading. Whitened latents are correlated with the pilots of all 4096 nonces; the nonces that fit best are decoded, and a
payload counts only if its MAC holds and it hashes to the nonce under which it was read. The samples come from one VAE
encode or, if that does not do, from a few Euler steps back along the flow (inversion.py). Streams are indexed by
frame: a clip that was cut at its end still reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.types import Json
from safegen.watermark import ecc, fastvae
from safegen.watermark.base import LIST_SIZE, Extraction, check_frames, conclude, decide
from safegen.watermark.noise import inversion
from safegen.watermark.payload import PAYLOAD_BITS, Payload, check_key, pack, stream, to_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEME = "noise-sign"
CODED_BITS = ecc.coded_length(PAYLOAD_BITS)
NONCE_BITS = 12
NONCES = 1 << NONCE_BITS

MIN_POSITIONS = 24 * CODED_BITS
"""Fewer positions behind frame 0 cannot carry the payload: three in eight of them carry coded bits, nine for each."""

MOST_PILOTS = 4096
"""Pilot positions of one frame at most (otherwise a quarter of the frame): the search costs 4096 times as many."""

_MIN_FRAME = 256  # values: a smaller latent frame has no room for pilots
_SHORTLIST = 4
_PILOT_FLOOR = 4.0
"""Besides the best nonce, up to three more are decoded whose pilots score at least this (unmarked: N(0, 1) each)."""

_CHUNK = 1 << 24  # coins expanded at once while nonces are ranked


@dataclass(frozen=True, slots=True)
class Reading:
    """What one set of samples says: T of the best nonce, its payload if MAC and nonce agree, and how it was found."""

    statistic: float
    payload: Payload | None
    nonce: int
    pilot_score: float  # N(0, 1) for a nonce that was not used
    agreement: float  # share of the coded bits' signs that the codeword explains


def nonce_of(payload: Payload, key: bytes) -> int:
    """Return the nonce (0 to 4095) of a clip: a keyed hash of its content id."""
    number = int(payload.content_id, 16)
    raw = stream(key, f"{SCHEME}/nonce", number >> 32, number & 0xFFFFFFFF, length=2)
    return int.from_bytes(raw, "big") % NONCES


def initial_noise(
    shape: Sequence[int],
    payload: Payload | Sequence[Payload],
    key: bytes,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return initial noise [B, C, T, h, w] that carries ``payload`` (for B > 1 one per clip); pass it as ``latents=``.

    Same generator state, payload and key give the same noise. Drawn in float64 on the generator's device (CPU without
    one), then moved. Raises WatermarkError for a shape that cannot carry a payload, PayloadError for a malformed
    payload or key.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) != 5 or min(shape) < 1 or not _fits(shape[1:]):
        raise WatermarkError(
            f"noise of shape {list(shape)} cannot carry a payload: [B, C, T, h, w] is needed, with at least "
            f"{MIN_POSITIONS} values per clip after the first latent frame",
            remedy="Generate a larger or longer clip, or use another scheme.",
        )
    payloads = [payload] if isinstance(payload, Payload) else list(payload)
    if len(payloads) != shape[0]:
        raise WatermarkError(f"{shape[0]} clips need {shape[0]} payloads, not {len(payloads)}")
    where = torch.device("cpu") if generator is None else generator.device
    keyed = np.stack([_keyed_signs(p, key, shape[1:]) for p in payloads])
    signs = torch.from_numpy(keyed).to(where)  # 0 stands for a centre
    uniform = 1 - torch.rand(shape, generator=generator, dtype=torch.float64, device=where)  # in (0, 1]
    coins = 2.0 * torch.randint(0, 2, shape, generator=generator, device=where, dtype=torch.float64) - 1
    # Upper tail probabilities of |z|/2: tails lie in (0, 1/4], centres in (1/4, 1/2].
    quantile = torch.where(signs != 0, uniform / 4, uniform / 4 + 0.25)
    quantile[:, :, 0] = uniform[:, :, 0] / 2
    noise: Tensor = -torch.special.ndtri(quantile) * torch.where(signs != 0, signs.double(), coins)
    return noise.to(device=where if device is None else device, dtype=dtype)


def read_latents(latents: Tensor, key: bytes) -> Reading:
    """Read one clip's (estimated) noise or latents [C, T, h, w] blindly; too few values read as T = 0."""
    check_key(key)
    shape = tuple(latents.shape)
    if len(shape) != 4:
        raise WatermarkError(f"latents of one clip are [C, T, h, w], not {list(shape)}")
    if not _fits(shape) or not torch.isfinite(latents).all():
        return Reading(0.0, None, 0, 0.0, 0.0)
    samples = whiten(latents[:, 1:].detach().cpu()).transpose(0, 1).flatten(1).numpy()  # [T - 1, C * h * w]
    orders = [_order(key, t, shape) for t in range(1, shape[1])]
    placed = np.stack([row[order] for row, order in zip(samples, orders, strict=True)])
    pilots = placed[:, : _pilots(shape)]
    scores = _pilot_scores(pilots, key, shape)
    ranked = np.argsort(-scores, kind="stable")[:_SHORTLIST]
    best: Reading | None = None
    for nonce in (int(n) for n in ranked):
        if best is not None and scores[nonce] < _PILOT_FLOOR:
            break
        found = _read_nonce(placed[:, _pilots(shape) :], key, nonce, float(scores[nonce]), shape)
        if best is None or (found.payload is not None, found.statistic) > (best.payload is not None, best.statistic):
            best = found
        if best.payload is not None:
            break
    assert best is not None  # noqa: S101 - the best nonce is always decoded
    return best


def whiten(latents: Tensor) -> Tensor:
    """Latents [C, T, h, w] with every spatial frequency of every channel scaled to unit power (float32, same shape).

    Content has its power in low frequencies and the mark has it everywhere; noise passes unchanged but for its scale.
    Power is averaged over frames. The scaling depends on the clip alone and never on the key.
    """
    spectrum = torch.fft.rfft2(latents.float())
    power = spectrum.abs().square().mean(dim=1, keepdim=True)
    scaled = spectrum * power.clamp_min(1e-12).rsqrt()
    flat: Tensor = torch.fft.irfft2(scaled, s=latents.shape[-2:], norm="ortho")
    return flat


class NoiseSignExtractor:
    """Reads the scheme from frames through a VAE and, given a whole Wan pipeline, also through its denoiser.

    ``source``: a loaded Wan pipeline (both readers), a VAE, or a folder of one (VAE encode alone). ``steps``: Euler
    steps of the second reader, 1 to 5, or 0 to leave it out. ``max_sequence_length``: tokens to which the empty prompt
    is padded, as at generation. WatermarkError for a pipeline whose denoiser's call is not known.
    """

    scheme = SCHEME

    def __init__(self, source: Any, *, steps: int = 4, max_sequence_length: int = 512) -> None:
        if not 0 <= steps <= inversion.MOST_STEPS:
            raise WatermarkError(f"{steps} inversion steps are not possible", remedy="Use 0 to 5; 4 is normal.")
        whole = steps > 0 and hasattr(source, "vae")
        if whole:
            inversion.check(source)
        self._pipe = source if whole else None
        self._vae = getattr(source, "vae", source)
        self._steps = steps
        self._tokens = max_sequence_length

    def extract_frames(self, frames: NDArray[np.uint8], key: bytes) -> Extraction:
        """Read uint8 RGB ``frames [T, H, W, 3]`` blindly at their own shape; WatermarkError if they are no clip.

        The p-value pays for all 4096 nonces in each reader, tried or not.
        """
        check_key(key)
        check_frames(frames)
        if isinstance(self._vae, str) or hasattr(self._vae, "__fspath__"):
            self._vae = fastvae.load_reader(self._vae)
        latents = encode_frames(self._vae, frames)
        reading, reader = read_latents(latents[0], key), "encode"
        if self._pipe is not None and reading.payload is None and _fits(tuple(latents.shape[1:])):
            noise = inversion.invert_wan(self._pipe, latents, self._steps, self._tokens)
            second = read_latents(noise[0], key)
            if (second.payload is not None, second.statistic) > (False, reading.statistic):
                reading, reader = second, f"invert-{self._steps}"
        evidence: dict[str, Json] = {
            "reader": reader,
            "nonce": reading.nonce,
            "pilot_score": round(reading.pilot_score, 3),
            "bit_agreement": round(reading.agreement, 4),
            "latents": list(latents.shape[1:]),
        }
        readers = 1 if self._pipe is None else 2
        return conclude(SCHEME, reading.statistic, reading.payload, readers * NONCES, evidence)


def encode_frames(vae: Any, frames: NDArray[np.uint8]) -> Tensor:
    """Latents [1, C, t, h, w] of uint8 ``frames [T, H, W, 3]``: cut to whole latent frames, sides to the VAE's grid."""
    config = vae.config
    space = int(config.get("scale_factor_spatial") or 8)
    time = int(config.get("scale_factor_temporal") or config.get("temporal_compression_ratio") or 1)
    count = (len(frames) - 1) // time * time + 1
    size = tuple(max(round(n / space), 1) * space for n in frames.shape[1:3])
    weight = next(vae.parameters())
    with torch.inference_mode():
        video = torch.from_numpy(np.array(frames[:count])).to(weight.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if tuple(video.shape[2:]) != size:
            video = nnf.interpolate(video, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        return fastvae.encode(vae, video.transpose(0, 1)[None])


# -- where the coins lie; a shape is one clip's (C, T, h, w) and T enters no stream ---------------------------------


def _fits(shape: Sequence[int]) -> bool:
    return _values(shape) >= _MIN_FRAME and (shape[1] - 1) * _values(shape) >= MIN_POSITIONS


def _pilots(shape: Sequence[int]) -> int:
    """Pilot positions of each frame: a quarter of it in whole bytes of coins, or MOST_PILOTS."""
    return min(_values(shape) // 32 * 8, MOST_PILOTS)


def _values(shape: Sequence[int]) -> int:
    return shape[0] * shape[2] * shape[3]


def _order(key: bytes, t: int, shape: Sequence[int]) -> NDArray[np.int64]:
    """A keyed permutation of frame t's positions (C, h, w flattened): pilots first. The same for every nonce."""
    n = _values(shape)
    words = np.frombuffer(stream(key, f"{SCHEME}/order", t, shape[0], *shape[2:], length=8 * n), ">u8")
    return np.argsort(words, kind="stable")


def _pilot_coins(key: bytes, nonce: int, frames: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Tail flags and signs of the pilots of frames 1 to ``frames``: 0 or 1, [frames, 2, pilots]."""
    count = _pilots(shape)
    raw = stream(key, f"{SCHEME}/pilots", nonce, shape[0], *shape[2:], length=frames * 2 * count // 8)
    return np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(frames, 2, count)


def _payload_signs(key: bytes, nonce: int, t: int, shape: Sequence[int]) -> NDArray[np.int8]:
    """Signs of frame t's other positions, in the order of ``_order``: ±1 for tails, 0 for centres."""
    count = _values(shape) - _pilots(shape)
    length = math.ceil(count / 8)
    raw = stream(key, f"{SCHEME}/payload", nonce, t, shape[0], *shape[2:], length=2 * length)
    coins = np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(2, -1)[:, :count]
    return _signs(coins)


def _signs(coins: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Coins [..., 2, n] (tail flag, sign) as ±1 for tails and 0 for centres, [..., n]."""
    flags, signs = coins[..., 0, :].astype(np.int8), coins[..., 1, :].astype(np.int8)
    signed: NDArray[np.int8] = flags * (1 - 2 * signs)
    return signed


def _coded_index(signs: NDArray[np.int8], t: int) -> NDArray[np.int64]:
    """Which coded bit each tail of frame t carries: they take turns, and each frame starts at another one."""
    return (np.arange(np.count_nonzero(signs)) + 97 * t) % CODED_BITS


def _keyed_signs(payload: Payload, key: bytes, shape: Sequence[int]) -> NDArray[np.int8]:
    """All signs of one clip's noise that the key fixes, int8 [C, T, h, w]; 0 elsewhere."""
    c, frames, h, w = shape
    word, nonce = ecc.encode(to_bits(pack(payload, key))), nonce_of(payload, key)
    coins = _pilot_coins(key, nonce, frames - 1, shape)
    out = np.zeros((frames, _values(shape)), np.int8)
    for t in range(1, frames):
        signs = _payload_signs(key, nonce, t, shape)
        signs[signs != 0] *= word[_coded_index(signs, t)]
        out[t, _order(key, t, shape)] = np.concatenate([_signs(coins[t - 1]), signs])
    return out.reshape(frames, c, h, w).transpose(1, 0, 2, 3)


# -- reading one clip ------------------------------------------------------------------------------------------------


def _pilot_scores(pilots: NDArray[np.float32], key: bytes, shape: Sequence[int]) -> NDArray[np.float64]:
    """Correlation of the pilots' samples [frames, pilots] with each nonce's coins, [4096]; N(0, 1) if unmarked."""
    frames, flat = len(pilots), pilots.ravel()
    norm = float(np.linalg.norm(flat)) / math.sqrt(2)  # half of them are tails
    scores = np.zeros(NONCES)
    if not norm > 0:
        return scores
    step = max(1, _CHUNK // (2 * flat.size))
    for first in range(0, NONCES, step):
        nonces = range(first, min(first + step, NONCES))
        coins = np.stack([_pilot_coins(key, n, frames, shape) for n in nonces])
        scores[nonces.start : nonces.stop] = _signs(coins).reshape(len(nonces), -1).astype(np.float32) @ flat
    return scores / norm


def _read_nonce(samples: NDArray[np.float32], key: bytes, nonce: int, score: float, shape: Sequence[int]) -> Reading:
    """Decode the payload's samples [frames, positions], in the order of ``_order``, under one nonce."""
    sums, energy = np.zeros(CODED_BITS), 0.0
    for t, row in enumerate(samples, start=1):
        signs = _payload_signs(key, nonce, t, shape)
        tails = signs != 0
        values = row[tails].astype(np.float64) * signs[tails]
        sums += np.bincount(_coded_index(signs, t), values, CODED_BITS)
        energy += float(values @ values)
    if not energy > 0:
        return Reading(0.0, None, nonce, score, 0.0)
    statistic, payload, agreement = decide(sums, math.sqrt(energy), key, LIST_SIZE)
    if payload is not None and nonce_of(payload, key) != nonce:
        payload = None
    return Reading(statistic, payload, nonce, score, agreement)
