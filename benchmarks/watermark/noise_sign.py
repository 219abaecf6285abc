"""Can the keyed noise be read back from clips of the embedded model?

    python benchmarks/watermark/noise_sign.py [--clips 12] [--unmarked 4] [--first-seed 900] [--model tiny]

Every clip is made from keyed initial noise. The noise's signs are then read from the final latents themselves (no
pixels), from the decoded clip, and from the clip after H.264; with no inversion step and with four. ``sign_accuracy``
is the share of right signs among all tail positions (0.5 is chance), ``plain_accuracy`` the same without whitening.
``known_t`` is the correlation with the signs that were written, N(0, 1) if nothing survives. ``statistic`` and the
verdicts are what the blind extractor says, which knows the key alone. Null trials: each clip after H.264 CRF 23 under
other keys, and unmarked clips. Writes results/noise_sign.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safegen.generators import Card, Geometry, autocast, load, resolve
from safegen.generators.loading import quiet
from safegen.media import encode_video, read_clip
from safegen.watermark import fastvae
from safegen.watermark.base import Extraction, threshold
from safegen.watermark.noise.inversion import invert_wan
from safegen.watermark.noise.noise_sign import (
    NONCES,
    NoiseSignExtractor,
    encode_frames,
    initial_noise,
    read_latents,
    whiten,
)
from safegen.watermark.payload import CONTENT_BITS, Payload

STEPS = 4
CRFS = (23, 30, 40)
OTHER_KEYS = 4
TAIL = 0.6744897501960817
KEY = hashlib.sha256(b"safegen noise benchmark").digest()
PROMPTS = (
    "a red ball rolling on a green field",
    "a blue cube on sand under a clear sky",
    "a yellow cone spinning on grass",
    "two spheres on snow at sunset",
    "a green torus on a dark floor",
    "a white cube sliding over stone",
)


def h264(frames: np.ndarray, fps: float, crf: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode_video(frames, fps, path, crf=crf)
        return read_clip(path).frames


def compare(estimate: torch.Tensor, noise: torch.Tensor) -> dict[str, Any]:
    """An estimate [1, C, T, h, w] of the noise against the noise, at the tails behind frame 0."""
    samples, true = whiten(estimate[0, :, 1:]), noise[0, :, 1:]
    tails = true.abs() > TAIL
    a, signs = samples[tails].double(), true[tails].sign().double()
    found = read_latents(estimate[0], KEY)
    return {
        "sign_accuracy": float((a.sign() == signs).double().mean()),
        "plain_accuracy": float((estimate[0, :, 1:][tails].sign() == signs).double().mean()),
        "known_t": float((a * signs).sum() / a.norm()),
        "statistic": found.statistic,
        "exact": found.payload is not None,
    }


def draw(pipe: Any, call: dict[str, Any], noise: torch.Tensor, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Final latents and frames of the clip that ``noise`` becomes."""
    with quiet(), torch.no_grad(), autocast(pipe):
        final = pipe(prompt=PROMPTS[seed % len(PROMPTS)], latents=noise, output_type="latent", **call).frames.float()
        video = fastvae.decode(pipe.vae, final)[0]
    return final, ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy()


def marked_clip(pipe: Any, call: dict[str, Any], fps: float, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    payload = Payload(f"{seed:016x}")  # type: ignore[arg-type]
    noise = initial_noise(shape, payload, KEY, generator=torch.Generator().manual_seed(seed))
    final, frames = draw(pipe, call, noise, seed)
    seen = {"decoded": frames, **{f"crf_{crf}": h264(frames, fps, crf) for crf in CRFS}}
    estimates = {"latents": final, **{n: encode_frames(pipe.vae, f) for n, f in seen.items()}}
    extractor = NoiseSignExtractor(pipe, steps=STEPS, max_sequence_length=call["max_sequence_length"])
    row: dict[str, Any] = {"seed": seed, "read": {}, "extracted": {}}
    for name, latents in estimates.items():
        back = invert_wan(pipe, latents, STEPS, call["max_sequence_length"])
        row["read"][f"{name}, 0 steps"] = compare(latents, noise)
        row["read"][f"{name}, {STEPS} steps"] = compare(back, noise)
    for name, clip in seen.items():
        start = time.perf_counter()
        found = extractor.extract_frames(clip, KEY)
        row["extract_wall_s"] = time.perf_counter() - start
        row["extracted"][name] = found.to_json() | {"exact": found.payload == payload}
    others = [hashlib.sha256(f"another key {seed} {n}".encode()).digest() for n in range(OTHER_KEYS)]
    row["other_keys"] = [outcome(extractor.extract_frames(seen[f"crf_{CRFS[0]}"], key)) for key in others]
    return row


def unmarked_clip(pipe: Any, call: dict[str, Any], fps: float, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    frames = h264(draw(pipe, call, noise, seed)[1], fps, CRFS[0])
    extractor = NoiseSignExtractor(pipe, steps=STEPS, max_sequence_length=call["max_sequence_length"])
    return outcome(extractor.extract_frames(frames, KEY))


def outcome(found: Extraction) -> dict[str, Any]:
    return {"status": str(found.status), "statistic": found.statistic}


def summarise(rows: list[dict[str, Any]], unmarked: list[dict[str, Any]], shape: tuple[int, ...]) -> dict[str, Any]:
    table = {}
    for name in rows[0]["read"]:
        reads = [r["read"][name] for r in rows]
        table[name] = {
            "sign_accuracy_mean": statistics.mean(r["sign_accuracy"] for r in reads),
            "plain_accuracy_mean": statistics.mean(r["plain_accuracy"] for r in reads),
            "known_t_median": statistics.median(r["known_t"] for r in reads),
            "known_t_smallest": min(r["known_t"] for r in reads),
            "statistic_median": statistics.median(r["statistic"] for r in reads),
            "statistic_smallest": min(r["statistic"] for r in reads),
            "exact_payload": sum(r["exact"] for r in reads),
        }
    verdicts = {}
    for name in rows[0]["extracted"]:
        found = [r["extracted"][name] for r in rows]
        verdicts[name] = {s: sum(f["status"] == s for f in found) for s in ("verified", "present", "none")}
        verdicts[name]["exact_payload"] = sum(f["exact"] for f in found)
    other = [o for r in rows for o in r["other_keys"]]
    tails = math.prod(shape[1:]) * (shape[2] - 1) / shape[2] / 2
    return {
        "clips": len(rows),
        "tails_per_clip": round(tails),
        "sign_accuracy_standard_error": 0.5 / math.sqrt(tails * len(rows)),
        "threshold_verified": threshold(2 * NONCES, CONTENT_BITS),
        "threshold_present": threshold(2 * NONCES),
        "extract_wall_s_median": statistics.median(r["extract_wall_s"] for r in rows),
        "read": table,
        "verdicts": verdicts,
        "wrong_key_trials": len(other),
        "wrong_key_not_none": sum(o["status"] != "none" for o in other),
        "unmarked_trials": len(unmarked),
        "unmarked_not_none": sum(o["status"] != "none" for o in unmarked),
        "null_statistic_largest": max(o["statistic"] for o in other + unmarked),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--unmarked", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=900)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    ref = resolve(arguments.model)
    card, pipe = Card.read(ref), load(ref)
    call = card.resolve()
    latent = Geometry.read(ref).latent_shape(call["height"], call["width"], call["num_frames"])
    shape = (1, pipe.transformer.config.in_channels, *latent)
    first, rows = arguments.first_seed, []
    for seed in range(first, first + arguments.clips):
        rows.append(marked_clip(pipe, call, card.fps, shape, seed))
        print(seed, {n: round(r["sign_accuracy"], 4) for n, r in rows[-1]["read"].items()}, flush=True)
    last = first + arguments.clips
    unmarked = [unmarked_clip(pipe, call, card.fps, shape, s) for s in range(last, last + arguments.unmarked)]
    report = {
        "command": "python benchmarks/watermark/noise_sign.py " + " ".join(sys.argv[1:]),
        "date": dt.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "vae_sha256": fastvae.vae_digest(pipe.vae),
        "summary": summarise(rows, unmarked, shape),
        "clips": rows,
        "unmarked": unmarked,
    }
    path = Path(__file__).parent / "results" / "noise_sign.json"
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report["summary"], indent=1))


if __name__ == "__main__":
    main()
