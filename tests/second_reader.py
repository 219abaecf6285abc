"""A second reader of payload v1, written from docs/spec/payload-v1.md alone: numpy, shares nothing with the product."""

from __future__ import annotations

import hashlib
import hmac
import math
from functools import cache
from typing import Any

import numpy as np


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


@cache
def spec_slots() -> list[tuple[int, int, int]]:
    limits = ((9, 576), (4, 256), (4, 256))
    return [
        (c, v, u)
        for c, (low, high) in enumerate(limits)
        for v in range(24)
        for u in range(24)
        if low <= u * u + v * v < high
    ]


@cache
def spec_signpost() -> np.ndarray:
    """±1 on the signpost's slots, else 0: [8, 3, 24, 24]."""
    out, slots = np.zeros((8, 3, 24, 24), int), spec_slots()
    for k in range(8):
        words = spec_words(b"safegen/watermark/v1/signpost", len(slots), k)
        for i in spec_ranked(words)[: len(slots) // 5]:
            out[k][slots[i]] = spec_sign(words[i])
    return out


def spec_nonce(payload: bytes, key: bytes) -> int:
    high, low = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
    return (spec_stream(key, "latent-residual/nonce", 1, high, low)[0] >> 56) % 64


@cache
def spec_pattern(key: bytes, nonce: int) -> tuple[np.ndarray, np.ndarray]:
    """Key signs (0 off the payload's slots) and coded-bit numbers (-1 there), both [8, 3, 24, 24]."""
    signs, bits = np.zeros((8, 3, 24, 24), int), np.full((8, 3, 24, 24), -1)
    post = spec_signpost()
    for k in range(8):
        slots = [slot for slot in spec_slots() if post[k][slot] == 0]
        words = spec_stream(key, "latent-residual", len(slots), k, nonce)
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


def spec_sums(samples: np.ndarray, signs: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """[369], of any shape of samples."""
    carrying = signs != 0
    sums = np.zeros(369)
    np.add.at(sums, bits[carrying], (signs * samples)[carrying])
    return sums


def spec_read(samples: np.ndarray, signs: np.ndarray, bits: np.ndarray, key: bytes) -> tuple[float, bytes, bool]:
    """Statistic and bytes of the best codeword, and whether its MAC holds; any shape of samples."""
    sums = spec_sums(samples, signs, bits)
    word = spec_viterbi(sums)
    data = bytes(int("".join(map(str, word[i : i + 8])), 2) for i in range(0, 112, 8))
    statistic = float(sums @ spec_encode(word)) / math.sqrt(float((samples[signs != 0] ** 2).sum()))
    return statistic, data, data[9:] == spec_mac(data[:9], key) and data[8] == 1


def spec_read_clip(samples: np.ndarray, key: bytes) -> tuple[float, bytes, bool]:
    """The same for a clip's samples, under the three nonces whose sums have the most energy."""
    energy = [float((spec_sums(samples, *spec_pattern(key, nonce)) ** 2).sum()) for nonce in range(64)]
    tried = []
    for nonce in sorted(range(64), key=lambda n: (-energy[n], n))[:3]:
        statistic, data, genuine = spec_read(samples, *spec_pattern(key, nonce), key)
        if genuine and spec_nonce(data, key) == nonce:
            return statistic, data, True
        tried.append((statistic, data, False))
    return max(tried)


def spec_phases(count: int, first: int = 0) -> list[int]:
    return [(t + first + 3) // 4 % 8 for t in range(count)]


def spec_golden_clip(recipe: dict[str, Any]) -> np.ndarray:
    """The clip of section 10 from the vectors' ``clip``, uint8 [T, H, W, 3]."""
    count, height, width = recipe["frames"], recipe["height"], recipe["width"]
    short = min(height, width)
    key, payload = bytes.fromhex(recipe["key"]), bytes.fromhex(recipe["payload"])
    signs, bits = spec_pattern(key, spec_nonce(payload, key))
    word = np.array(spec_encode([byte >> (7 - i) & 1 for byte in payload for i in range(8)]))
    values = spec_signpost() + signs * word[bits]
    k = np.arange(24)[:, None]

    def table(length: int) -> np.ndarray:
        cosine = np.cos(np.pi * k * (2 * np.arange(length) + 1) / (2 * short))
        return np.floor(16384 * np.where(k == 0, math.sqrt(0.5), 1) * cosine + 0.5).astype(np.int64)

    frames = []
    y, x = np.mgrid[:height, :width]
    for t, phase in enumerate(spec_phases(count)):
        luma, cb, cr = recipe["amplitude"] * (table(height).T @ values[phase] @ table(width)) >> 28
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
