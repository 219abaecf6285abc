"""Writes payload-v1.json: `python tests/vectors/watermark/make.py` must change nothing.

The clip is stored as its recipe and its digest (docs/spec/payload-v1.md, section 10), not as frames.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.types import ContentId
from safegen.watermark import ecc
from safegen.watermark.clip import extraction, pattern
from safegen.watermark.payload import Payload, pack, to_bits
from safegen.watermark.still import carrier

KEYS = [bytes(range(32)), bytes(32), b"\xff" * 32]
IDS = ["0123456789abcdef", "0000000000000000", "ffffffffffffffff"]
CLIP = {"frames": 25, "height": 192, "width": 256, "amplitude": 20}


def coefficients(payload: Payload, key: bytes) -> NDArray[np.int64]:
    """The pattern's slots, signpost included: -1, 0 or 1, [8, 3, 24, 24]."""
    return pattern.coefficients(payload, key).astype(np.int64)


def laid(key: bytes, nonce: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Key signs (0 off the payload's slots) and coded-bit numbers (-1 there) under one nonce, both [8, 3, 24, 24]."""
    placement = pattern.place(key, (nonce,))
    signs, bits = np.zeros(pattern.signpost().shape, np.int64), np.full(pattern.signpost().shape, -1)
    signs.reshape(-1)[placement.slots], bits.reshape(-1)[placement.slots] = placement.signs[0], placement.bits[0]
    return signs, bits


def paint(slots: NDArray[np.int64], frames: int, height: int, width: int, amplitude: int) -> NDArray[np.uint8]:
    """The golden clip: a chequered ground that moves, grain, and the pattern, in integers."""
    rows, columns = (_cosines(n, min(height, width)) for n in (height, width))
    t, y, x = np.mgrid[:frames, :height, :width].astype(np.int64)
    grain = ((x * 73856093 ^ y * 19349663 ^ t * 83492791) % 2**32 * 1664525 % 2**32) >> 28
    ground = 70 + 60 * (((x + 2 * t) // 24 + (y + t) // 24) % 2) + grain
    out = np.empty((frames, height, width, 3), np.uint8)
    for frame in range(frames):
        drawn = np.einsum("vy,cvu,ux->cyx", rows, slots[pattern.phase_of(frame)], columns, optimize=True)
        luma, cb, cr = amplitude * drawn >> 28  # 1024ths of a level
        red, green, blue = 1024 * luma + 1436 * cr, 1024 * luma - 352 * cb - 731 * cr, 1024 * luma + 1815 * cb
        for channel, change in enumerate((red, green, blue)):
            out[frame, :, :, channel] = np.clip(ground[frame] + 8 * channel + (change + 2**19 >> 20), 0, 255)
    return out


def _cosines(length: int, short: int) -> NDArray[np.int64]:
    k, x = np.arange(24)[:, None], np.arange(length)
    exact = 16384 * np.where(k == 0, np.sqrt(0.5), 1.0) * np.cos(np.pi * k * (2 * x + 1) / (2 * short))
    return np.floor(exact + 0.5).astype(np.int64)


def digest(values: NDArray[Any], dtype: str) -> str:
    """SHA-256 of the values in C order."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype).tobytes()).hexdigest()


def main() -> None:
    payloads = [
        {
            "key": key.hex(),
            "content_id": i,
            "payload": pack(Payload(ContentId(i)), key).hex(),
            "nonce": pattern.nonce_of(ContentId(i), key),
        }
        for key in KEYS
        for i in IDS
    ]
    word = ecc.encode(to_bits(bytes.fromhex(payloads[0]["payload"])))
    signpost, nonce = pattern.signpost(), pattern.nonce_of(ContentId(IDS[0]), KEYS[0])
    signs, carried = laid(KEYS[0], nonce)
    every = [laid(KEYS[0], n) for n in range(pattern.NONCES)]
    shape = (48, 7, 12, 12)
    still = carrier.place(KEYS[0], shape)
    mark = Payload(ContentId(IDS[0]))
    frames = paint(coefficients(mark, KEYS[0]), **CLIP)
    found = extraction.extract_frames(frames, KEYS[0], look=False)
    other = extraction.extract_frames(frames, KEYS[1], look=False)
    assert found.payload == mark, found
    vectors = {
        "payloads": payloads,
        "codeword": {
            "payload": payloads[0]["payload"],
            "coded_bits": "".join("0" if v > 0 else "1" for v in word),
        },
        "signpost": {
            "slots_per_phase": [int(n) for n in (signpost != 0).sum(axis=(1, 2, 3))],
            "int8_sha256": digest(signpost, "i1"),
            "phase_3_luma_row_5": signpost[3, 0, 5].astype(int).tolist(),
        },
        "pattern_placement": {
            "key": KEYS[0].hex(),
            "nonce": nonce,
            "slots_per_phase": [int(n) for n in (signs != 0).sum(axis=(1, 2, 3))],
            "signs_int8_sha256": digest(signs, "i1"),
            "bits_int16_sha256": digest(carried, ">i2"),
            "phase_3_cr_row_5_signs": signs[3, 2, 5].tolist(),
            "phase_3_cr_row_5_bits": carried[3, 2, 5].tolist(),
            "all_nonces_signs_int8_sha256": digest(np.stack([s for s, _ in every]), "i1"),
            "all_nonces_bits_int16_sha256": digest(np.stack([b for _, b in every]), ">i2"),
        },
        "still_placement": {
            "key": KEYS[0].hex(),
            "shape": list(shape),
            "frame": 3,
            "signs_16": still.signs[:, 3].flatten()[:16].int().tolist(),
            "index_16": still.bits[:, 3].flatten()[:16].tolist(),
        },
        "clip": {
            **CLIP,
            "frames_sha256": digest(frames, "u1"),
            "key": KEYS[0].hex(),
            "payload": pack(mark, KEYS[0]).hex(),
            "statistic": round(found.statistic, 3),
            "wrong_key": KEYS[1].hex(),
            "wrong_key_statistic": round(other.statistic, 3),
        },
    }
    path = Path(__file__).with_name("payload-v1.json")
    text = json.dumps(vectors, indent=1)
    path.write_text(_on_one_line(text) + "\n", encoding="utf-8")


def _on_one_line(text: str) -> str:
    """Lists of numbers on one line each."""
    return re.sub(r"\[[-\d,\s]+\]", lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text)


if __name__ == "__main__":
    main()
