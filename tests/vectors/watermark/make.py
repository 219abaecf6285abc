"""Writes payload-v1.json: `python tests/vectors/watermark/make.py` must change nothing."""

from __future__ import annotations

import json
from pathlib import Path

from safegen.types import ContentId
from safegen.watermark import carrier, ecc
from safegen.watermark.payload import Payload, pack, to_bits

KEYS = [bytes(range(32)), bytes(32), b"\xff" * 32]
IDS = ["0123456789abcdef", "0000000000000000", "ffffffffffffffff"]

payloads = [
    {"key": key.hex(), "content_id": i, "payload": pack(Payload(ContentId(i)), key).hex()} for key in KEYS for i in IDS
]
word = ecc.encode(to_bits(bytes.fromhex(payloads[0]["payload"])))
shape, frame = (48, 7, 12, 12), 3
layout = carrier.place(KEYS[0], shape)
vectors = {
    "payloads": payloads,
    "codeword": {
        "payload": payloads[0]["payload"],
        "coded_bits": "".join("0" if v > 0 else "1" for v in word),
    },
    "placement": {
        "key": KEYS[0].hex(),
        "shape": list(shape),
        "frame": frame,
        "signs_16": layout.signs[:, frame].flatten()[:16].int().tolist(),
        "index_16": layout.bits[:, frame].flatten()[:16].tolist(),
    },
}
Path(__file__).with_name("payload-v1.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")
