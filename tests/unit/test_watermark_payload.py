"""Payload v1, its code and its placement against golden vectors and a second implementation made from the spec."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from safegen.errors import PayloadError, WatermarkError
from safegen.types import ContentId
from safegen.watermark import base, carrier, ecc
from safegen.watermark.payload import Payload, from_bits, pack, to_bits, unpack

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "watermark" / "payload-v1.json").read_text())
KEY = bytes(range(32))


# --- a second extractor, written from docs/spec/payload-v1.md alone: pure Python, shares nothing with the product ---


def spec_mac(body: bytes, key: bytes) -> bytes:
    subkey = hmac.digest(key, b"safegen/watermark/v1/mac", "sha256")
    return hmac.digest(subkey, body, "sha256")[:5]


def spec_placement(key: bytes, c: int, t: int, h: int, w: int) -> tuple[list[int], list[int]]:
    """Signs and coded-bit indices of frame ``t`` in (c, h, w) order."""
    subkey = hmac.digest(key, b"safegen/watermark/v1/stream/latent-residual", "sha256")
    n = c * h * w
    seed = subkey + b"".join(v.to_bytes(4, "big") for v in (t, c, h, w))
    raw = hashlib.shake_256(seed).digest(8 * n)
    words = [int.from_bytes(raw[8 * i : 8 * i + 8], "big") for i in range(n)]
    signs = [-1 if word & 1 else 1 for word in words]
    index = [0] * n
    for rank, i in enumerate(sorted(range(n), key=lambda i: (words[i] >> 1, i))):
        index[i] = (rank + t * n) % 369
    return signs, index


def spec_encode(bits: list[int]) -> list[int]:
    window, out = [0] * 12, []
    for bit in bits + [0] * 11:
        window = [bit, *window[:11]]
        for taps in ("100111110111", "101111010011", "110010110101"):
            out.append(-1 if sum(b for b, tap in zip(window, taps, strict=True) if tap == "1") % 2 else 1)
    return out


def spec_viterbi(sums: list[float]) -> list[int]:
    """Plain Viterbi over 2048 states, newest bit highest."""
    steps = len(sums) // 3
    outputs = {}
    for register in range(4096):
        window = [register >> (11 - j) & 1 for j in range(12)]
        outputs[register] = [
            -1 if sum(b for b, tap in zip(window, taps, strict=True) if tap == "1") % 2 else 1
            for taps in ("100111110111", "101111010011", "110010110101")
        ]
    score, back = {0: 0.0}, []
    for step in range(steps):
        gain = sums[3 * step : 3 * step + 3]
        new: dict[int, float] = {}
        origin: dict[int, int] = {}
        for state, value in score.items():
            for bit in (0, 1) if step < steps - 11 else (0,):
                register = bit << 11 | state
                total = value + sum(g * o for g, o in zip(gain, outputs[register], strict=True))
                if total > new.get(register >> 1, -math.inf):
                    new[register >> 1], origin[register >> 1] = total, state
        score = new
        back.append(origin)
    state, bits = 0, []
    for origin in reversed(back):
        bits.append(state >> 10)
        state = origin[state]
    return bits[::-1][:-11]


def spec_whiten(latents: np.ndarray) -> np.ndarray:
    """Orthonormal DCT-II of each latent frame, power set by the band in each (channel, band)."""
    c, _, h, w = latents.shape

    def matrix(n: int) -> np.ndarray:
        k, i = np.mgrid[:n, :n]
        m = np.cos(np.pi * (2 * i + 1) * k / (2 * n)) * np.sqrt(2 / n)
        m[0] /= np.sqrt(2)
        return m

    out = np.zeros(latents.shape)
    band = np.array(
        [[math.isqrt(288 * ((x * h) ** 2 + (y * w) ** 2) // (h * w) ** 2) for x in range(w)] for y in range(h)]
    )
    for ch in range(c):
        spectrum = matrix(h) @ latents[ch].astype(float) @ matrix(w).T
        for b in range(24):
            cells = band == b
            if cells.any():
                power = np.mean(spectrum[:, cells] ** 2)
                weight = b + 0.5 if b >= 6 else 0.0
                out[ch][:, cells] = weight * spectrum[:, cells] / np.sqrt(max(power, 1e-12))
    return out


# --- payload ---


@pytest.mark.parametrize("vector", VECTORS["payloads"])
def test_payload_matches_golden_vectors(vector: dict[str, str]) -> None:
    key = bytes.fromhex(vector["key"])
    assert pack(Payload(ContentId(vector["content_id"])), key).hex() == vector["payload"]
    body = bytes([1]) + bytes.fromhex(vector["content_id"])
    assert (body + spec_mac(body, key)).hex() == vector["payload"]


def test_golden_codeword_and_placement() -> None:
    vector = VECTORS["codeword"]
    bits = to_bits(bytes.fromhex(vector["payload"]))
    word = ecc.encode(bits)
    assert "".join("0" if v > 0 else "1" for v in word) == vector["coded_bits"]
    assert spec_encode(bits.tolist()) == word.tolist()
    placed = VECTORS["placement"]
    layout = carrier.place(bytes.fromhex(placed["key"]), tuple(placed["shape"]))
    t = placed["frame"]
    assert layout.signs[:, t].flatten()[:16].int().tolist() == placed["signs_16"]
    assert layout.bits[:, t].flatten()[:16].tolist() == placed["index_16"]


@pytest.mark.parametrize("position", [0, 1, 8, 9, 13])
def test_payload_with_one_flipped_bit_is_refused(position: int) -> None:
    data = bytearray(pack(Payload(ContentId("00ff00ff00ff00ff")), KEY))
    data[position] ^= 0x10
    assert unpack(bytes(data), KEY) is None


def test_payload_version_unknown_with_right_mac_is_refused() -> None:
    body = bytes([2]) + bytes(8)
    assert unpack(body + spec_mac(body, KEY), KEY) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: pack(Payload(ContentId("xyz")), KEY),
        lambda: pack(Payload(ContentId("0" * 16), version=2), KEY),
        lambda: pack(Payload(ContentId("0" * 16)), KEY[:31]),
        lambda: unpack(b"short", KEY),
        lambda: from_bits(np.zeros(9, np.uint8)),
        lambda: ecc.decode(np.zeros(370)),
        lambda: ecc.decode(np.full(369, np.nan)),
        lambda: ecc.decode(np.zeros(0)),
    ],
)
def test_malformed_input_raises_payload_error(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PayloadError):
        make()


# --- the whole reader, twice ---


def test_second_extractor_from_the_spec_reads_what_the_product_places() -> None:
    rng = np.random.default_rng(7)
    shape = (12, 3, 10, 12)
    payload = pack(Payload(ContentId("0123456789abcdef")), KEY)
    layout = carrier.place(KEY, shape)
    word = torch.from_numpy(ecc.encode(to_bits(payload)).astype(np.float32))
    samples = rng.standard_normal(shape) + 0.8 * (word[layout.bits] * layout.signs).numpy()
    # The inverse DCT of samples, in channels of very different scale.
    h, w = shape[2:]
    dct_h, dct_w = (carrier._dct(n, torch.zeros(1, dtype=torch.float64)).numpy() for n in (h, w))
    latents = dct_h.T @ samples @ dct_w * np.geomspace(0.1, 10, 12)[:, None, None, None]

    whitened = spec_whiten(latents)
    ours = carrier.whiten(torch.from_numpy(latents))
    np.testing.assert_allclose(ours.numpy(), whitened, atol=1e-5)
    sums = [0.0] * 369
    for t in range(shape[1]):
        signs, index = spec_placement(KEY, shape[0], t, h, w)
        for value, sign, i in zip(whitened[:, t].ravel().tolist(), signs, index, strict=True):
            sums[i] += sign * value
    decoded = spec_viterbi(sums)
    assert np.packbits(np.array(decoded, np.uint8)).tobytes() == payload
    z = sum(s * c for s, c in zip(sums, spec_encode(decoded), strict=True)) / float(np.linalg.norm(whitened))

    statistic, found, _ = carrier.read(ours, layout, KEY, base.LIST_SIZE)
    assert found == Payload(ContentId("0123456789abcdef"))
    assert statistic == pytest.approx(z, rel=1e-5)
    outcome = base.conclude("latent-residual", statistic, found, 1, {})
    assert outcome.status is base.MarkStatus.VERIFIED
    assert outcome.p_value == pytest.approx(math.exp(64 * math.log(2) - z * z / 2), rel=1e-3)


# --- the accept rule ---


def test_threshold_is_where_the_bound_reaches_one_in_a_million() -> None:
    assert math.exp(base.log_p_value(base.threshold(5), 5)) == pytest.approx(base.PRESENCE_P_VALUE)
    assert base.threshold(5) > base.threshold(1) > 13.5


def test_payload_without_presence_is_no_mark_and_presence_without_payload_is_not_verified() -> None:
    payload = Payload(ContentId("0" * 16))
    assert base.conclude("s", 10.5, payload, 1, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 10.5, payload, 1, {}).payload is None
    assert base.conclude("s", 12.0, None, 1, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 12.0, payload, 1, {}).status is base.MarkStatus.VERIFIED
    assert base.conclude("s", 15.0, None, 1, {}).status is base.MarkStatus.PRESENT
    assert base.conclude("s", 15.0, payload, 1, {}).status is base.MarkStatus.VERIFIED
    assert base.conclude("s", float("nan"), payload, 1, {}).status is base.MarkStatus.NONE


def test_unmarked_and_wrong_key_statistics_stay_below_the_threshold() -> None:
    """40 heavy-tailed hosts and 40 keys on one marked host; the best of all codewords never reaches the threshold."""
    rng = np.random.default_rng(3)
    shape = (12, 3, 10, 12)
    layout = carrier.place(KEY, shape)
    word = torch.from_numpy(ecc.encode(to_bits(pack(Payload(ContentId("0" * 16)), KEY))).astype(np.float32))
    marked = torch.from_numpy(rng.standard_normal(shape)).float() + word[layout.bits] * layout.signs
    best = 0.0
    for trial in range(40):
        host = torch.from_numpy(rng.standard_t(2.5, shape)).float()
        statistic, found, _ = carrier.read(carrier.whiten(host), layout, KEY, base.LIST_SIZE)
        other = trial.to_bytes(32, "little")
        wrong, found_wrong, _ = carrier.read(marked, carrier.place(other, shape), other, base.LIST_SIZE)
        assert found is None
        assert found_wrong is None
        best = max(best, statistic, wrong)
    assert 8 < best < base.threshold(1)


def test_latents_too_small_for_a_payload_are_refused() -> None:
    with pytest.raises(WatermarkError, match="too small"):
        carrier.place(KEY, (4, 1, 8, 8))


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(WatermarkError, match="unknown watermark scheme"):
        base.make_extractor("tree-ring")
    with pytest.raises(WatermarkError, match="VAE"):
        base.make_extractor("latent-residual")
