"""Measure the embedded model: what its VAE keeps, how long a clip takes, and what bfloat16 changes.

    python benchmarks/model/measure.py [--model tiny] [--out benchmarks/model/tiny.json]

Reconstruction is measured on freshly drawn scenes that training never saw (seeds from 9,000,000). Times are given as
wall clock and as CPU time over all threads: the second hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safegen.generators import Card, decode_latents, load, model_facts, resolve, sample, sampling
from safegen.tinymodel.training.render import draw
from safegen.tinymodel.training.vae import to_video
from safegen.watermark import fastvae
from safegen.watermark.layouts import call_shape

PROMPT = "a red ball bouncing on grass under a clear blue sky"
FIRST_SEED = 9_000_000


def psnr(a: Any, b: Any) -> float:
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def scene(call: dict[str, Any], seed: int) -> torch.Tensor:
    """A drawn scene of the call's size, uint8 [1, T, H, W, 4]."""
    return draw(random.Random(seed), 1, call["num_frames"], call["height"])[0]


def timed(work: Callable[[], Any], repeats: int = 3) -> dict[str, float]:
    """The quickest of several runs after one that warms up: seconds of wall clock and of CPU."""
    work()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), os.times()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(sum(os.times()[:2]) - sum(cpu[:2]))
    return {"wall_s": round(min(walls), 3), "cpu_s": round(min(cpus), 3)}


def reconstruction(pipe: Any, call: dict[str, Any], clips: int) -> dict[str, Any]:
    """PSNR of VAE encode and decode on unseen scenes, by clip, and the latents' effective rank."""
    values, latents = [], []
    for i in range(clips):
        drawn = scene(call, FIRST_SEED + i)
        with torch.no_grad():
            latents.append(fastvae.encode(pipe.vae, to_video(drawn)))
        values.append(psnr(decode_latents(pipe, latents[-1], call_shape(pipe, call)), drawn[0, ..., :3].numpy()))
    channels = torch.cat([v[0].flatten(1) for v in latents], 1)
    share = torch.linalg.eigvalsh(torch.corrcoef(channels)).clamp_min(1e-9)
    share = share / share.sum()
    return {
        "clips": clips,
        "psnr_db": {"mean": round(float(np.mean(values)), 2), "each": [round(v, 2) for v in values]},
        "latent_effective_rank": round(float(torch.exp(-(share * share.log()).sum())), 1),
        "latent_channels": channels.shape[0],
    }


def decoding(pipe: Any, exact: Any, latents: torch.Tensor, call: dict[str, Any]) -> dict[str, Any]:
    """Times of the decode, whole-clip and by chunks, with and without autocast."""
    limit, times = sampling.WHOLE_CLIP_BYTES, {}
    for name, which in (("autocast", pipe), ("float32", exact)):
        for way, size in (("whole_clip", limit), ("by_chunks", 0)):
            sampling.WHOLE_CLIP_BYTES = size
            times[f"{way}_{name}"] = timed(lambda which=which: decode_latents(which, latents, call_shape(which, call)))
    sampling.WHOLE_CLIP_BYTES = limit
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("tiny.json"))
    options = parser.parse_args()
    ref = resolve(options.model)
    call = Card.read(ref).resolve()
    pipe, exact = load(ref), load(ref, dtype="float32")
    shape = Card.read(ref).geometry.latent_shape(call["height"], call["width"], call["num_frames"])
    latents = torch.randn(1, pipe.vae.config.z_dim, *shape, generator=torch.Generator().manual_seed(0))
    quick, slow = (sample(p, call, prompt=PROMPT, seed=3) for p in (pipe, exact))
    drawn = scene(call, FIRST_SEED)[0, ..., :3]
    started = sample(load(ref, mode="image"), call, prompt=PROMPT, seed=3, image=drawn[0].numpy())
    again = load(ref, mode="video")
    redrawn = {}
    for strength in (0.3, 0.6, 1.0):
        made = sample(again, call, prompt=PROMPT, seed=3, video=drawn.numpy(), strength=strength)
        redrawn[str(strength)] = round(psnr(made, drawn), 2)
    result = {
        "model": model_facts(ref),
        "call": call,
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "native_bf16": fastvae.fast_cpu(),
            "torch": torch.__version__,
            "load_average": [round(v, 1) for v in os.getloadavg()],
        },
        "parameters": {
            n: sum(p.numel() for p in getattr(pipe, n).parameters()) for n in ("vae", "transformer", "text_encoder")
        },
        "reconstruction": reconstruction(pipe, call, options.clips),
        "sampling": {
            "autocast": timed(lambda: sample(pipe, call, prompt=PROMPT, seed=3), 2),
            "float32": timed(lambda: sample(exact, call, prompt=PROMPT, seed=3), 2),
            "psnr_autocast_against_float32_db": round(psnr(quick, slow), 2),
        },
        "decoding": decoding(pipe, exact, latents, call),
        "image_to_video_first_frame_psnr_db": round(psnr(started[0], drawn[0]), 2),
        "video_to_video_psnr_by_strength_db": redrawn,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
