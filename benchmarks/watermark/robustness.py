"""Measures the in-latent watermark on the embedded model: does it read after H.264, and what does it cost?

    python benchmarks/watermark/robustness.py [--clips 20] [--out benchmarks/watermark/results]

Writes robustness.json and robustness.md. Needs nothing but the package. Times are wall and CPU seconds of this process
(CPU seconds count all threads and are the fairer figure on a busy machine).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch

import safegen.tinymodel
from safegen.types import ContentId
from safegen.watermark import base, carrier, fastvae
from safegen.watermark.latent_residual import LatentEmbedder, extract_frames, vae_digest
from safegen.watermark.payload import Payload

PIPE = Path(safegen.tinymodel.__file__).parent / "pipe"
KEY = bytes(range(32))
CRFS = (23, 30, 36)
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


def h264(frames: np.ndarray, crf: int, fps: int, folder: Path) -> np.ndarray:
    """Encode uint8 [T, H, W, 3] with libx264 yuv420p and decode again."""
    t, h, w, _ = frames.shape
    ffmpeg, path = imageio_ffmpeg.get_ffmpeg_exe(), folder / "clip.mp4"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    encode = [*raw, "-s", f"{w}x{h}", "-r", str(fps), "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    quiet = [ffmpeg, "-y", "-loglevel", "error"]
    subprocess.run([*quiet, *encode, "-crf", str(crf), str(path)], input=frames.tobytes(), check=True)
    out = subprocess.run([*quiet, "-i", str(path), *raw, "-"], stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(out, np.uint8).reshape(t, h, w, 3)


def frames_of(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Decode latents to uint8 [T, H, W, 3]."""
    with torch.inference_mode():
        video = fastvae.decode(vae, latents).clamp(-1, 1)[0]
    return ((video + 1) * 127.5).round().byte().permute(1, 2, 3, 0).contiguous().numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def measure(pipe: Any, call: dict[str, Any], fps: int, seed: int, folder: Path) -> dict[str, Any]:
    """One clip: generate with the hook, decode with and without the mark, attack, read."""
    payload = Payload(ContentId(f"{seed:016x}"))
    hook = LatentEmbedder(payload, KEY)
    inner, spent = hook.remark, {}

    def timed(vae: Any, strength: float) -> torch.Tensor:
        wall, cpu = time.perf_counter(), time.process_time()
        marked = inner(vae, strength)
        spent.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        return marked

    hook.remark = timed  # type: ignore[method-assign]
    with torch.no_grad(), fastvae.autocast(pipe.vae):
        latents = pipe(
            PROMPTS[seed % len(PROMPTS)],
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            callback_on_step_end=hook,
            callback_on_step_end_tensor_inputs=["latents"],
            **call,
        ).frames
    marked, clean = frames_of(pipe.vae, latents), frames_of(pipe.vae, hook.clean)
    row: dict[str, Any] = {"seed": seed, "psnr": psnr(marked, clean), "embed": dict(spent), "read": {}}
    for crf in (0, *CRFS):
        seen = h264(marked, crf, fps, folder) if crf else marked
        wall, cpu = time.perf_counter(), time.process_time()
        found = extract_frames(seen, pipe.vae, KEY)
        row["extract"] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        row["read"][f"crf{crf}" if crf else "clean"] = {
            "exact": found.payload == payload,
            "status": str(found.status),
            "statistic": found.statistic,
            "bit_agreement": found.evidence["bit_agreement"],
        }
    row["null"] = nulls(pipe.vae, h264(clean, 23, fps, folder), h264(marked, 23, fps, folder), seed)
    return row


def nulls(vae: Any, clean: np.ndarray, marked: np.ndarray, seed: int, trials: int = 10) -> dict[str, Any]:
    """Unmarked windows (spatial mirror images and shifts of the unmarked twin) and wrong keys on the marked clip."""
    with torch.inference_mode():
        views = [clean, clean[:, :, ::-1]]
        unmarked = [fastvae.encode(vae, _video(v))[0] for v in views]
        back = fastvae.encode(vae, _video(marked))[0]
    unmarked += [torch.roll(unmarked[i % 2], (i // 2, i), (2, 3)) for i in range(2, trials)]
    result: dict[str, Any] = {"unmarked_verified": 0, "wrong_key_verified": 0, "largest": 0.0, "trials": trials}
    for trial in range(trials):
        other = (1000 * seed + trial).to_bytes(32, "big")
        for name, latents, key in (("unmarked", unmarked[trial], KEY), ("wrong_key", back, other)):
            read = carrier.read(carrier.whiten(latents), carrier.place(key, tuple(latents.shape)), key, base.LIST_SIZE)
            found = base.conclude("latent-residual", read[0], read[1], 1, {})
            result["largest"] = max(result["largest"], read[0])
            result[f"{name}_verified"] += found.status is not base.MarkStatus.NONE
    return result


def _video(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    exact = {k: sum(r["read"][k]["exact"] for r in rows) for k in rows[0]["read"]}
    trials = sum(r["null"]["trials"] for r in rows)
    return {
        "clips": len(rows),
        "exact_payload": exact,
        "smallest_statistic": {k: min(r["read"][k]["statistic"] for r in rows) for k in exact},
        "psnr_median_db": statistics.median(r["psnr"] for r in rows),
        "psnr_min_db": min(r["psnr"] for r in rows),
        "embed_cpu_s_median": statistics.median(r["embed"]["cpu"] for r in rows),
        "embed_wall_s_median": statistics.median(r["embed"]["wall"] for r in rows),
        "extract_cpu_s_median": statistics.median(r["extract"]["cpu"] for r in rows),
        "extract_wall_s_median": statistics.median(r["extract"]["wall"] for r in rows),
        "unmarked_not_none": f"{sum(r['null']['unmarked_verified'] for r in rows)} of {trials}",
        "wrong_key_not_none": f"{sum(r['null']['wrong_key_verified'] for r in rows)} of {trials}",
        "largest_null_statistic": max(r["null"]["largest"] for r in rows),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def report(summary: dict[str, Any], machine: dict[str, Any]) -> str:
    lines = ["# In-latent watermark on the embedded model", "", "`python benchmarks/watermark/robustness.py`", ""]
    lines += [
        "| H.264 (libx264, yuv420p) | exact payload | smallest statistic (VERIFIED needs 10.8) |",
        "|---|---|---|",
    ]
    for name, count in summary["exact_payload"].items():
        lines.append(f"| {name} | {count} of {summary['clips']} | {summary['smallest_statistic'][name]:.1f} |")
    lines += ["", "| figure | value |", "|---|---|"]
    for name, value in {**summary, **machine}.items():
        if not isinstance(value, dict):
            lines.append(f"| {name} | {value:.2f} |" if isinstance(value, float) else f"| {name} | {value} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    from diffusers import DiffusionPipeline

    torch.set_num_threads(os.cpu_count() or 1)
    pipe = DiffusionPipeline.from_pretrained(PIPE, torch_dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    fastvae.prepare(pipe.vae)
    card = json.loads((PIPE / "card.json").read_text(encoding="utf-8"))
    machine = {"cpu_count": os.cpu_count(), "bfloat16": fastvae.fast_cpu(), "python": platform.python_version()}
    machine |= {"torch": torch.__version__, "vae_sha256": vae_digest(PIPE)}
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first_seed, args.first_seed + args.clips):
            rows.append(measure(pipe, card["call"], int(card["fps"]), seed, Path(folder)))
            summary = summarise(rows)
            text = json.dumps({"summary": summary, "machine": machine, "clips": rows}, indent=1)
            (args.out / "robustness.json").write_text(text + "\n", encoding="utf-8")
            (args.out / "robustness.md").write_text(report(summary, machine), encoding="utf-8")
            last = rows[-1]
            marks = {k: (v["exact"], round(v["statistic"], 1)) for k, v in last["read"].items()}
            cost = f"embed cpu {last['embed']['cpu']:.1f} s, wall {last['embed']['wall']:.1f} s"
            print(f"seed {seed}: {last['psnr']:.1f} dB, {marks}, {cost}", flush=True)


if __name__ == "__main__":
    main()
