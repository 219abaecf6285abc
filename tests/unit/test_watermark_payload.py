"""Payload v1, its code, the pattern and its reading against golden vectors and a second reader made from the spec."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.errors import PayloadError, WatermarkError
from safegen.types import ContentId
from safegen.watermark import base, ecc, extraction, pattern, reading, still_carrier
from safegen.watermark.payload import Payload, from_bits, pack, to_bits, unpack

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "watermark" / "payload-v1.json").read_text())
KEY = bytes(range(32))
GOLDEN = VECTORS["clip"]
TOLERANCE = 0.01
"""Of the golden clip's statistic: the reader here computes in double precision, the product in single."""


# --- a second reader, written from docs/spec/payload-v1.md alone: numpy, shares nothing with the product -------------


def spec_mac(body: bytes, key: bytes) -> bytes:
    subkey = hmac.digest(key, b"safegen/watermark/v1/mac", "sha256")
    return hmac.digest(subkey, body, "sha256")[:5]


def spec_words(seed: bytes, count: int, *numbers: int) -> list[int]:
    raw = hashlib.shake_256(seed + b"".join(n.to_bytes(4, "big") for n in numbers)).digest(8 * count)
    return [int.from_bytes(raw[8 * i : 8 * i + 8], "big") for i in range(count)]


def spec_stream(key: bytes, label: str, count: int, *numbers: int) -> list[int]:
    subkey = hmac.digest(key, b"safegen/watermark/v1/stream/" + label.encode(), "sha256")
    return spec_words(subkey, count, *numbers)


def spec_ranked(words: list[int]) -> list[int]:
    return sorted(range(len(words)), key=lambda i: (words[i] >> 1, i))


def spec_sign(word: int) -> int:
    return -1 if word & 1 else 1


def spec_slots() -> list[tuple[int, int, int]]:
    limits = ((9, 576), (4, 256), (4, 256))
    return [
        (c, v, u)
        for c, (low, high) in enumerate(limits)
        for v in range(24)
        for u in range(24)
        if low <= u * u + v * v < high
    ]


def spec_signpost() -> np.ndarray:
    """±1 on the signpost's slots, else 0: [8, 3, 24, 24]."""
    out, slots = np.zeros((8, 3, 24, 24), int), spec_slots()
    for k in range(8):
        words = spec_words(b"safegen/watermark/v1/signpost", len(slots), k)
        for i in spec_ranked(words)[: len(slots) // 5]:
            out[k][slots[i]] = spec_sign(words[i])
    return out


def spec_pattern(key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Key signs (0 off the payload's slots) and coded-bit numbers (-1 there), both [8, 3, 24, 24]."""
    signs, bits = np.zeros((8, 3, 24, 24), int), np.full((8, 3, 24, 24), -1)
    post = spec_signpost()
    for k in range(8):
        slots = [slot for slot in spec_slots() if post[k][slot] == 0]
        words = spec_stream(key, "latent-residual", len(slots), k)
        for rank, i in enumerate(spec_ranked(words)):
            signs[k][slots[i]] = spec_sign(words[i])
            bits[k][slots[i]] = (rank + k * len(slots)) % 369
    return signs, bits


TAPS = [[int(digit) for digit in f"{octal:012b}"] for octal in (0o4767, 0o5723, 0o6265)]


def spec_encode(bits: list[int]) -> list[int]:
    window, out = [0] * 12, []
    for bit in bits + [0] * 11:
        window = [bit, *window[:11]]
        out += [-1 if sum(b * tap for b, tap in zip(window, taps, strict=True)) % 2 else 1 for taps in TAPS]
    return out


def spec_viterbi(sums: np.ndarray) -> list[int]:
    """Plain Viterbi over 2048 states, newest bit highest."""
    steps = len(sums) // 3
    registers = np.arange(4096)
    window = registers[:, None] >> np.arange(11, -1, -1) & 1
    outputs = 1 - 2 * (window @ np.array(TAPS).T % 2)  # [4096, 3]
    score = np.full(2048, -np.inf)
    score[0] = 0
    back = []
    for step in range(steps):
        # Register (bit, state) leads to state register >> 1; its two ways there differ in the lowest bit.
        total = np.concatenate([score, score]) + outputs @ sums[3 * step : 3 * step + 3]
        if step >= steps - 11:
            total[2048:] = -np.inf
        pairs = total.reshape(2048, 2)
        choice = pairs.argmax(axis=1)
        score = pairs[np.arange(2048), choice]
        back.append(choice)
    state, bits = 0, []
    for choice in reversed(back):
        bits.append(int(state) >> 10)
        state = (2 * state + choice[state]) & 2047
    return bits[::-1][:-11]


def spec_area(length: int, cells: int) -> np.ndarray:
    """Resampling by area as a matrix [cells, length]."""
    edges = np.arange(cells + 1) * length / cells
    low = np.maximum(edges[:-1, None], np.arange(length))
    high = np.minimum(edges[1:, None], np.arange(length) + 1)
    return np.maximum(high - low, 0) * cells / length


def spec_linear(length: int, cells: int) -> np.ndarray:
    at = (np.arange(cells) + 0.5) * length / cells - 0.5
    at = np.clip(at, 0, length - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(length)), 0)


def spec_blur(length: int, sigma: float, radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    matrix = np.zeros((length, length))
    for i in range(length):
        mirrored = (i + offsets) % (2 * length)
        mirrored = np.minimum(mirrored, 2 * length - 1 - mirrored)
        np.add.at(matrix[i], mirrored, weights / weights.sum())
    return matrix


def spec_cosines(length: int, short: int) -> np.ndarray:
    k, x = np.mgrid[:24, :length]
    return np.sqrt(np.where(k == 0, 1, 2) / short) * np.cos(np.pi * k * (x + 0.5) / short)


def spec_canvas(frames: np.ndarray) -> np.ndarray:
    """[T, 3, h, w], 96 along the short side."""
    height, width = frames.shape[1:3]
    m = min(height, width)
    by = spec_area if m >= 96 else spec_linear
    rows, columns = by(height, round(96 * height / m)), by(width, round(96 * width / m))
    yuv = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    small = rows @ frames.astype(float).transpose(0, 3, 1, 2) @ columns.T
    return np.einsum("cr,tryx->tcyx", yuv, small)


def spec_samples(frames: np.ndarray, phases: list[int]) -> np.ndarray:
    """Whitened samples [8, 3, 24, 24]."""
    canvas = spec_canvas(frames)
    count = len(canvas)
    change = np.empty_like(canvas)
    for t in range(count):
        start = min(max(t - 8, 0), max(count - 17, 0))
        change[t] = canvas[t] - canvas[start : start + 17].mean(axis=0)
    x = np.zeros((8, *canvas.shape[1:]))
    for k in range(8):
        mine = [t for t in range(count) if phases[t] == k]
        if mine:
            x[k] = change[mine].sum(axis=0) / math.sqrt(len(mine))
    h, w = x.shape[2:]
    x = spec_area(h, round(h / 2)) @ x @ spec_area(w, round(w / 2)).T
    h, w = x.shape[2:]
    power = spec_blur(h, 3, 12) @ (x**2).mean(axis=0) @ spec_blur(w, 3, 12).T
    x = x / np.sqrt(power + 1e-4)
    r = spec_cosines(h, 48) @ x @ spec_cosines(w, 48).T
    mask = np.zeros((3, 24, 24))
    for slot in spec_slots():
        mask[slot] = 1
    blur = spec_blur(24, 1.5, 6)
    q = blur @ (r**2 * mask) @ blur.T
    q = 0.5 * q + 0.25 * np.roll(q, 1, axis=0) + 0.25 * np.roll(q, -1, axis=0)
    a = mask * np.clip(r / np.sqrt(q / np.maximum(blur @ mask @ blur.T, 1e-6) + 1e-12), -2, 2)
    a[(r**2 * mask).sum(axis=(1, 2, 3)) == 0] = 0
    return a


def spec_read(samples: np.ndarray, signs: np.ndarray, bits: np.ndarray, key: bytes) -> tuple[float, bytes, bool]:
    """Statistic and bytes of the best codeword, and whether its MAC holds; any shape of samples."""
    carrying = signs != 0
    sums = np.zeros(369)
    np.add.at(sums, bits[carrying], (signs * samples)[carrying])
    word = spec_viterbi(sums)
    data = bytes(int("".join(map(str, word[i : i + 8])), 2) for i in range(0, 112, 8))
    statistic = float(sums @ spec_encode(word)) / math.sqrt(float((samples[carrying] ** 2).sum()))
    return statistic, data, data[9:] == spec_mac(data[:9], key) and data[8] == 1


def spec_phases(count: int, first: int = 0) -> list[int]:
    return [(t + first + 3) // 4 % 8 for t in range(count)]


def spec_golden_clip() -> np.ndarray:
    """The clip of section 10, uint8 [T, H, W, 3]."""
    count, height, width = GOLDEN["frames"], GOLDEN["height"], GOLDEN["width"]
    short = min(height, width)
    signs, bits = spec_pattern(bytes.fromhex(GOLDEN["key"]))
    payload = bytes.fromhex(GOLDEN["payload"])
    word = np.array(spec_encode([byte >> (7 - i) & 1 for byte in payload for i in range(8)]))
    values = spec_signpost() + signs * word[bits]
    k = np.arange(24)[:, None]

    def table(length: int) -> np.ndarray:
        cosine = np.cos(np.pi * k * (2 * np.arange(length) + 1) / (2 * short))
        return np.floor(16384 * np.where(k == 0, math.sqrt(0.5), 1) * cosine + 0.5).astype(np.int64)

    frames = []
    y, x = np.mgrid[:height, :width]
    for t, phase in enumerate(spec_phases(count)):
        luma, cb, cr = GOLDEN["amplitude"] * (table(height).T @ values[phase] @ table(width)) >> 28
        grain = ((73856093 * x ^ 19349663 * y ^ 83492791 * t) % 2**32 * 1664525 % 2**32) >> 28
        ground = 70 + 60 * (((x + 2 * t) // 24 + (y + t) // 24) % 2) + grain
        red = ground + ((1024 * luma + 1436 * cr + 2**19) >> 20)
        green = ground + 8 + ((1024 * luma - 352 * cb - 731 * cr + 2**19) >> 20)
        blue = ground + 16 + ((1024 * luma + 1815 * cb + 2**19) >> 20)
        frames.append(np.stack([red, green, blue], -1))
    return np.stack(frames).astype(np.uint8)


def spec_still_placement(key: bytes, c: int, t: int, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs and coded-bit numbers of latent frame ``t``, [C, H, W]."""
    n = c * h * w
    words = spec_stream(key, "latent-still", n, t, c, h, w)
    index = np.zeros(n, int)
    for rank, i in enumerate(spec_ranked(words)):
        index[i] = (rank + t * n) % 369
    return np.array([spec_sign(word) for word in words]).reshape(c, h, w), index.reshape(c, h, w)


def spec_still_whiten(latents: np.ndarray) -> np.ndarray:
    """Orthonormal DCT-II of each latent frame, power set by the band in each (channel, band)."""
    c, _, h, w = latents.shape

    def matrix(n: int) -> np.ndarray:
        k, i = np.mgrid[:n, :n]
        m = np.cos(np.pi * (2 * i + 1) * k / (2 * n)) * np.sqrt(2 / n)
        m[0] /= np.sqrt(2)
        return m

    out = np.zeros(latents.shape)
    band = np.array(
        [[min(23, math.isqrt(288 * ((x * h) ** 2 + (y * w) ** 2) // (h * w) ** 2)) for x in range(w)] for y in range(h)]
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


# --- payload and code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["payloads"])
def test_payload_matches_golden_vectors(vector: dict[str, str]) -> None:
    key = bytes.fromhex(vector["key"])
    assert pack(Payload(ContentId(vector["content_id"])), key).hex() == vector["payload"]
    body = bytes.fromhex(vector["content_id"]) + bytes([1])
    assert (body + spec_mac(body, key)).hex() == vector["payload"]


def test_golden_codeword() -> None:
    vector = VECTORS["codeword"]
    bits = to_bits(bytes.fromhex(vector["payload"]))
    word = ecc.encode(bits)
    assert "".join("0" if v > 0 else "1" for v in word) == vector["coded_bits"]
    assert spec_encode(bits.tolist()) == word.tolist()


def test_many_words_are_coded_like_one() -> None:
    words = np.random.default_rng(0).integers(0, 2, (5, 112)).astype(np.uint8)
    np.testing.assert_array_equal(ecc.encode_many(words), [ecc.encode(w) for w in words])


def test_no_coded_bit_is_the_same_in_all_clips_of_a_key() -> None:
    """Otherwise the mean of many clips would hold a mark that fits every clip."""
    rng = np.random.default_rng(1)
    words = np.stack([pattern.codeword(Payload(ContentId(rng.bytes(8).hex())), KEY) for _ in range(200)])
    assert np.abs(words.mean(axis=0)).max() < 0.35


@pytest.mark.parametrize("position", [0, 7, 8, 9, 13])
def test_payload_with_one_flipped_bit_is_refused(position: int) -> None:
    data = bytearray(pack(Payload(ContentId("00ff00ff00ff00ff")), KEY))
    data[position] ^= 0x10
    assert unpack(bytes(data), KEY) is None


def test_payload_version_unknown_with_right_mac_is_refused() -> None:
    body = bytes(8) + bytes([2])
    assert unpack(body + spec_mac(body, KEY), KEY) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: pack(Payload(ContentId("xyz")), KEY),
        lambda: pack(Payload(ContentId("0" * 16), version=2), KEY),
        lambda: pack(Payload(ContentId("0" * 16)), KEY[:31]),
        lambda: unpack(b"short", KEY),
        lambda: from_bits(np.zeros(9, np.uint8)),
        lambda: pattern.place(KEY[:31]),
        lambda: ecc.decode(np.zeros(370)),
        lambda: ecc.decode(np.full(369, np.nan)),
        lambda: ecc.decode(np.zeros(0)),
    ],
)
def test_malformed_input_raises_payload_error(make: Any) -> None:
    with pytest.raises(PayloadError):
        make()


# --- the pattern ------------------------------------------------------------------------------------------------------


def digest(values: np.ndarray, dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype).tobytes()).hexdigest()


def test_signpost_matches_the_golden_vectors_both_ways() -> None:
    vector = VECTORS["signpost"]
    for post in (pattern.signpost().astype(int), spec_signpost()):
        assert np.abs(post).sum(axis=(1, 2, 3)).tolist() == vector["slots_per_phase"]
        assert post[3, 0, 5].tolist() == vector["phase_3_luma_row_5"]
        assert digest(post, "i1") == vector["int8_sha256"]


def test_placement_by_key_matches_the_golden_vectors_both_ways() -> None:
    vector = VECTORS["pattern_placement"]
    key = bytes.fromhex(vector["key"])
    placed = pattern.place(key)
    ours = placed.signs.astype(int), np.where(placed.signs != 0, placed.bits, -1)
    for signs, bits in (ours, spec_pattern(key)):
        assert np.abs(signs).sum(axis=(1, 2, 3)).tolist() == vector["slots_per_phase"]
        assert signs[3, 2, 5].tolist() == vector["phase_3_cr_row_5_signs"]
        assert bits[3, 2, 5].tolist() == vector["phase_3_cr_row_5_bits"]
        assert digest(signs, "i1") == vector["signs_int8_sha256"]
        assert digest(bits, ">i2") == vector["bits_int16_sha256"]


def test_signpost_and_payload_share_no_slot_and_fill_them_all() -> None:
    post, placed = pattern.signpost() != 0, pattern.place(KEY).signs != 0
    assert not (post & placed).any()
    assert (post | placed == pattern.used()).all()
    counts = np.bincount(pattern.place(KEY).bits[placed], minlength=369)
    assert set(counts) <= {15, 16}  # every coded bit gets its share of 8 * 706 slots


# --- the golden clip, read by both readers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> np.ndarray:
    frames = spec_golden_clip()
    assert digest(frames, "u1") == GOLDEN["frames_sha256"]
    return frames


def test_second_reader_reads_the_golden_clip(golden: np.ndarray) -> None:
    samples = spec_samples(golden, spec_phases(len(golden)))
    key = bytes.fromhex(GOLDEN["key"])
    statistic, data, genuine = spec_read(samples, *spec_pattern(key), key)
    assert data.hex() == GOLDEN["payload"]
    assert genuine
    assert statistic == pytest.approx(GOLDEN["statistic"], abs=TOLERANCE)
    wrong = bytes.fromhex(GOLDEN["wrong_key"])
    statistic, _, genuine = spec_read(samples, *spec_pattern(wrong), wrong)
    assert not genuine
    assert statistic == pytest.approx(GOLDEN["wrong_key_statistic"], abs=TOLERANCE)


def test_product_reads_the_golden_clip(golden: np.ndarray) -> None:
    key = bytes.fromhex(GOLDEN["key"])
    found = extraction.extract_frames(golden, key)
    assert (found.status, found.hypotheses) == (base.MarkStatus.VERIFIED, 1)
    assert found.payload is not None
    assert pack(found.payload, key).hex() == GOLDEN["payload"]
    assert found.statistic == pytest.approx(GOLDEN["statistic"], abs=TOLERANCE)
    assert found.p_value == pytest.approx(math.exp(64 * math.log(2) - found.statistic**2 / 2))
    other = extraction.extract_frames(golden, bytes.fromhex(GOLDEN["wrong_key"]), look=False)
    assert (other.status, other.payload) == (base.MarkStatus.NONE, None)
    assert other.statistic == pytest.approx(GOLDEN["wrong_key_statistic"], abs=TOLERANCE)


def test_second_reader_finds_where_a_cut_clip_begins_by_the_signpost(golden: np.ndarray) -> None:
    cut = golden[6:]
    post = spec_signpost()

    def fit(first: int) -> float:
        samples = spec_samples(cut, spec_phases(len(cut), first))
        return float((samples * post).sum() / np.sqrt((samples[post != 0] ** 2).sum()))

    first = max(range(0, 32, 2), key=fit)
    assert first == 6
    _, data, genuine = spec_read(spec_samples(cut, spec_phases(len(cut), first)), *spec_pattern(KEY), KEY)
    assert genuine
    assert data.hex() == GOLDEN["payload"]
    found = extraction.extract_frames(cut, KEY, look=False)
    assert found.payload is not None
    assert pack(found.payload, KEY).hex() == GOLDEN["payload"]
    assert found.hypotheses == 2  # as it is, and along the signpost


@pytest.mark.parametrize("size", [(270, 481), (150, 101), (96, 171), (72, 128)])
@pytest.mark.parametrize("count", [6, 20])
def test_both_readers_agree_on_unmarked_clips_of_any_size(size: tuple[int, int], count: int) -> None:
    """Sizes whose canvas is cut anew or enlarged, and clips shorter and longer than the window of 17 frames."""
    rng = np.random.default_rng(count)
    blocks = rng.integers(0, 256, (count, 12, 15, 3)).astype(np.uint8)
    frames = blocks[:, np.arange(size[0]) * 12 // size[0]][:, :, np.arange(size[1]) * 15 // size[1]]
    np.testing.assert_allclose(reading.to_canvas(frames, 96), spec_canvas(frames), atol=1e-3)
    statistic, _, genuine = spec_read(spec_samples(frames, spec_phases(count)), *spec_pattern(KEY), KEY)
    found = extraction.extract_frames(frames, KEY, look=False)
    assert not genuine
    assert (found.status, found.hypotheses) == (base.MarkStatus.NONE, 1)
    assert found.statistic == pytest.approx(statistic, abs=TOLERANCE)
    assert statistic > 7  # the best of all codewords fits any noise a little


# --- the still scheme, read by both readers ---------------------------------------------------------------------------


def test_golden_still_placement() -> None:
    placed = VECTORS["still_placement"]
    key, shape, t = bytes.fromhex(placed["key"]), tuple(placed["shape"]), placed["frame"]
    layout = still_carrier.place(key, shape)
    signs, index = spec_still_placement(key, shape[0], t, *shape[2:])
    for a, b in ((layout.signs[:, t].int().numpy(), layout.bits[:, t].numpy()), (signs, index)):
        assert a.flatten()[:16].tolist() == placed["signs_16"]
        assert b.flatten()[:16].tolist() == placed["index_16"]


def test_second_reader_reads_what_the_still_scheme_places() -> None:
    rng = np.random.default_rng(7)
    shape = (12, 3, 10, 12)
    payload = pack(Payload(ContentId("0123456789abcdef")), KEY)
    layout = still_carrier.place(KEY, shape)
    word = torch.from_numpy(ecc.encode(to_bits(payload)).astype(np.float32))
    samples = rng.standard_normal(shape) + 0.8 * (word[layout.bits] * layout.signs).numpy()
    # The inverse DCT of samples, in channels of very different scale.
    h, w = shape[2:]
    dct_h, dct_w = (still_carrier._dct(n, torch.zeros(1, dtype=torch.float64)).numpy() for n in (h, w))
    latents = dct_h.T @ samples @ dct_w * np.geomspace(0.1, 10, 12)[:, None, None, None]

    whitened = spec_still_whiten(latents)
    ours = still_carrier.whiten(torch.from_numpy(latents))
    np.testing.assert_allclose(ours.numpy(), whitened, atol=1e-5)
    placed = [spec_still_placement(KEY, shape[0], t, h, w) for t in range(shape[1])]
    signs, index = (np.stack([p[i] for p in placed], axis=1) for i in (0, 1))
    z, data, genuine = spec_read(whitened, signs, index, KEY)
    assert genuine
    assert data == payload

    statistic, found, _ = still_carrier.read(ours, layout, KEY, base.LIST_SIZE)
    assert found == Payload(ContentId("0123456789abcdef"))
    assert statistic == pytest.approx(z, rel=1e-5)


def test_unmarked_and_wrong_key_statistics_stay_below_the_threshold() -> None:
    """12 heavy-tailed hosts and 12 keys on one marked host; the best of all codewords never reaches the threshold."""
    rng = np.random.default_rng(3)
    shape = (12, 3, 10, 12)
    layout = still_carrier.place(KEY, shape)
    word = torch.from_numpy(ecc.encode(to_bits(pack(Payload(ContentId("0" * 16)), KEY))).astype(np.float32))
    marked = torch.from_numpy(rng.standard_normal(shape)).float() + word[layout.bits] * layout.signs
    best = 0.0
    for trial in range(12):
        host = torch.from_numpy(rng.standard_t(2.5, shape)).float()
        statistic, found, _ = still_carrier.read(still_carrier.whiten(host), layout, KEY, base.LIST_SIZE)
        other = trial.to_bytes(32, "little")
        wrong, found_wrong, _ = still_carrier.read(marked, still_carrier.place(other, shape), other, base.LIST_SIZE)
        assert found is None
        assert found_wrong is None
        best = max(best, statistic, wrong)
    assert 8 < best < base.threshold(1)


def test_latents_too_small_for_a_payload_are_refused() -> None:
    with pytest.raises(WatermarkError, match="too small"):
        still_carrier.place(KEY, (4, 1, 8, 8))


# --- the accept rule --------------------------------------------------------------------------------------------------


def test_threshold_is_where_the_bound_reaches_one_in_a_million() -> None:
    assert math.exp(base.log_p_value(base.threshold(5), 5)) == pytest.approx(base.PRESENCE_P_VALUE)
    assert base.threshold(5) > base.threshold(1) > 13.5
    for codeword_bits, stated in ((112, 13.524), (64, 10.787), (0, 5.257), (math.log2(1000), 6.438)):
        assert base.threshold(1, codeword_bits) == pytest.approx(stated, abs=6e-4)


def test_payload_without_presence_is_no_mark_and_presence_without_payload_is_not_verified() -> None:
    payload = Payload(ContentId("0" * 16))
    assert base.conclude("s", 10.5, payload, 1, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 10.5, payload, 1, {}).payload is None
    assert base.conclude("s", 12.0, None, 1, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 12.0, payload, 1, {}).status is base.MarkStatus.VERIFIED
    assert base.conclude("s", 12.0, payload, 2 * 10**6, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 15.0, None, 1, {}).status is base.MarkStatus.PRESENT
    assert base.conclude("s", 15.0, payload, 1, {}).status is base.MarkStatus.VERIFIED
    assert base.conclude("s", float("nan"), payload, 1, {}).status is base.MarkStatus.NONE


ISSUED = [ContentId(f"{n:016x}") for n in range(1, 301)]


def _sums(content_id: ContentId, statistic: float) -> tuple[np.ndarray, float]:
    """Sums and norm of samples on which one payload has about the given statistic: 1-sigma noise on every bit."""
    word = ecc.encode(to_bits(pack(Payload(content_id), KEY)))
    noise = np.random.default_rng(5).standard_normal(369)
    return word * statistic / math.sqrt(369) + noise - (noise @ word) * word / 369, math.sqrt(369)


def test_recognition_names_an_issued_payload_that_is_too_weak_to_decode() -> None:
    sums, norm = _sums(ISSUED[41], 8.0)
    _, decoded, _ = base.decide(sums, norm, KEY, base.LIST_SIZE)
    assert decoded is None
    statistic, found = base.recognise(sums, norm, KEY, ISSUED)
    assert found == Payload(ISSUED[41])
    assert statistic == pytest.approx(8.0)
    outcome = base.conclude("s", statistic, found, 2, {}, issued=len(ISSUED))
    assert outcome.status is base.MarkStatus.VERIFIED
    assert outcome.p_value == pytest.approx(2 * 300 * math.exp(-32))
    assert outcome.evidence["recognised_among"] == 300
    assert base.conclude("s", 6.1, found, 2, {}, issued=len(ISSUED)).status is base.MarkStatus.NONE


def test_recognition_refuses_what_was_not_issued_and_what_is_not_ahead() -> None:
    sums, norm = _sums(ContentId("f" * 16), 8.0)
    assert base.recognise(sums, norm, KEY, ISSUED) == (0.0, None)
    assert base.recognise(*_sums(ISSUED[0], 5.0), KEY, ISSUED) == (0.0, None)
    both = _sums(ISSUED[0], 8.0)[0] + _sums(ISSUED[1], 7.5)[0]  # two marks in one clip
    assert base.recognise(both, norm, KEY, ISSUED) == (0.0, None)
    assert base.recognise(sums, 0.0, KEY, ISSUED) == (0.0, None)
    assert base.recognise(sums, norm, KEY, []) == (0.0, None)


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(WatermarkError, match="unknown watermark scheme"):
        base.make_extractor("tree-ring")
    for scheme in ("latent-still", "noise-sign"):
        with pytest.raises(WatermarkError, match="VAE"):
            base.make_extractor(scheme)
    assert base.make_extractor().scheme == "latent-residual"
