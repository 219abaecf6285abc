"""Does the in-latent mark read back? Clips of the embedded model, as ``safegen generate`` marks them.

    python benchmarks/watermark/robustness.py [--clips 20] [--unmarked 200] [--first-seed 500] [--model tiny]

Every clip is marked at the strengths that the product tries in turn, until its own read-back (H.264 CRF 18) has
headroom; then it is encoded at several CRFs with libx264 (yuv420p) and read blindly. PSNR is against the unmarked twin
of the same latents. Null trials: unmarked clips of their own seeds after H.264 CRF 23, and the marked clips under other
keys. Writes results/robustness.json and results/robustness.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safegen.generators import Card, decode_latents, load, resolve, sample
from safegen.marking import STRENGTHS, comfortable
from safegen.media import encode_video, read_clip
from safegen.watermark.base import MarkStatus
from safegen.watermark.fastvae import fast_cpu, vae_digest
from safegen.watermark.latent_residual import LatentEmbedder, extract_frames
from safegen.watermark.payload import Payload

OWN_CRF = 18
CRFS = (23, 28, 30, 36, 40)
OTHER_KEYS = 10
KEY = hashlib.sha256(b"safegen robustness benchmark").digest()
PROMPTS = (
    "a red ball rolling on a green field",
    "a blue cube on sand under a clear sky",
    "a yellow cone spinning on grass",
    "two spheres on snow at sunset",
    "a green torus on a dark floor",
    "a white cube sliding over stone",
    "a purple ball under a cloudy sky",
    "an orange cylinder on a wooden floor",
    "a camera flying around a red cube",
    "a small blue ball bouncing on sand",
)


def h264(frames: np.ndarray, fps: float, crf: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode_video(frames, fps, path, crf=crf)
        return read_clip(path).frames


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def draw(pipe: Any, call: dict[str, Any], seed: int) -> torch.Tensor:
    """The unmarked final latents of one clip."""
    kept: list[torch.Tensor] = []

    def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        kept[:] = [tensors["latents"].detach().clone()]
        return tensors

    sample(pipe, call, prompt=PROMPTS[seed % len(PROMPTS)], seed=seed, callback=keep)
    return kept[0]


def marked_clip(pipe: Any, call: dict[str, Any], fps: float, seed: int) -> dict[str, Any]:
    payload = Payload(f"{seed:016x}")  # type: ignore[arg-type]
    embedder = LatentEmbedder(payload, KEY)
    embedder.clean = draw(pipe, call, seed)
    twin = decode_latents(pipe, embedder.clean)
    wall, cpu, strength, frames = time.perf_counter(), time.process_time(), 0.0, twin
    for strength in STRENGTHS:
        frames = decode_latents(pipe, embedder.remark(pipe.vae, strength))
        own = extract_frames(h264(frames, fps, OWN_CRF), pipe.vae, KEY)
        if own.payload == payload and comfortable(own):
            break
    row: dict[str, Any] = {
        "seed": seed,
        "strength": strength,
        "psnr": psnr(frames, twin),
        "embed_wall_s": time.perf_counter() - wall,
        "embed_cpu_s": time.process_time() - cpu,
        "read": {},
        "other_keys": [],
    }
    for crf in CRFS:
        seen = h264(frames, fps, crf)
        start = time.perf_counter()
        found = extract_frames(seen, pipe.vae, KEY)
        row["extract_wall_s"] = time.perf_counter() - start
        row["read"][str(crf)] = {"exact": found.payload == payload, "statistic": found.statistic}
        if crf == CRFS[0]:
            for n in range(OTHER_KEYS):
                other = hashlib.sha256(f"another key {seed} {n}".encode()).digest()
                row["other_keys"].append(str(extract_frames(seen, pipe.vae, other).status))
    return row


def unmarked_clip(pipe: Any, call: dict[str, Any], fps: float, seed: int) -> dict[str, Any]:
    frames = h264(decode_latents(pipe, draw(pipe, call, seed)), fps, CRFS[0])
    found = extract_frames(frames, pipe.vae, KEY)
    return {"seed": seed, "status": str(found.status), "statistic": found.statistic}


def summarise(rows: list[dict[str, Any]], unmarked: list[dict[str, Any]]) -> dict[str, Any]:
    other = [s for r in rows for s in r["other_keys"]]
    verified, none = str(MarkStatus.VERIFIED), str(MarkStatus.NONE)
    return {
        "clips": len(rows),
        "exact_payload": {crf: sum(r["read"][crf]["exact"] for r in rows) for crf in rows[0]["read"]},
        "smallest_statistic": {crf: min(r["read"][crf]["statistic"] for r in rows) for crf in rows[0]["read"]},
        "clips_by_strength": {str(s): sum(r["strength"] == s for r in rows) for s in STRENGTHS},
        "psnr_db_median": statistics.median(r["psnr"] for r in rows),
        "psnr_db_smallest": min(r["psnr"] for r in rows),
        "embed_wall_s_median": statistics.median(r["embed_wall_s"] for r in rows),
        "extract_wall_s_median": statistics.median(r["extract_wall_s"] for r in rows),
        "unmarked_trials": len(unmarked),
        "unmarked_verified": sum(r["status"] == verified for r in unmarked),
        "unmarked_present": sum(r["status"] not in (verified, none) for r in unmarked),
        "unmarked_largest_statistic": max((r["statistic"] for r in unmarked), default=0.0),
        "wrong_key_trials": len(other),
        "wrong_key_verified": sum(s == verified for s in other),
        "wrong_key_present": sum(s not in (verified, none) for s in other),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def markdown(report: dict[str, Any]) -> str:
    s = report["summary"]
    lines = ["# In-latent mark, read back after H.264", "", f"`{report['command']}`, {report['date']}", ""]
    lines += ["| CRF | exact payload | smallest statistic |", "|---|---|---|"]
    lines += [
        f"| {c} | {n} of {s['clips']} | {s['smallest_statistic'][c]:.1f} |" for c, n in s["exact_payload"].items()
    ]
    lines += ["", "| figure | value |", "|---|---|"]
    for name, value in s.items():
        if not isinstance(value, dict):
            lines.append(f"| {name} | {f'{value:.2f}' if isinstance(value, float) else value} |")
    lines += [f"| clips at strength {k} | {v} |" for k, v in s["clips_by_strength"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--unmarked", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=500)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    ref = resolve(options.model)
    card, pipe = Card.read(ref), load(ref)
    call = card.resolve()
    first = options.first_seed
    rows = []
    for seed in range(first, first + options.clips):
        rows.append(marked_clip(pipe, call, card.fps, seed))
        read = {crf: (r["exact"], round(r["statistic"], 1)) for crf, r in rows[-1]["read"].items()}
        print(f"seed {seed}: {rows[-1]['psnr']:.1f} dB at strength {rows[-1]['strength']}, {read}", flush=True)
    unmarked = [unmarked_clip(pipe, call, card.fps, 10_000 + first + n) for n in range(options.unmarked)]
    report = {
        "command": "python benchmarks/watermark/robustness.py " + " ".join(sys.argv[1:]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, bfloat16 {fast_cpu()}",
        "vae_sha256": vae_digest(pipe.vae),
        "summary": summarise(rows, unmarked),
        "clips": rows,
        "unmarked": unmarked,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "robustness.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.out / "robustness.md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
