"""What the mark costs beside large models: the hook measured on latents of their size, the denoiser computed.

    python -m benchmarks.watermark.scale

The hook (keyed signs, drawing, visibility weights, filter) runs on random latents through a filter of random numbers:
its time does not depend on the values. The denoiser's time on the same processor is computed: twice the parameters per
token and four times tokens x tokens x width per layer of attention, at the rate at which this processor multiplies
large matrices in the same run. On a GPU both get faster; the hook's share of the arithmetic, which is printed too,
stays. Writes results/scale.json and .md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Size:
    """A published model at its usual clip. ``latents`` (C, T, h, w); patches are 1x2x2 latent cells, CFG doubles."""

    name: str
    parameters: float
    layers: int
    width: int
    latents: tuple[int, int, int, int]
    cell: int
    steps: int = 50

    @property
    def tokens(self) -> int:
        _, t, h, w = self.latents
        return t * (h // 2) * (w // 2)

    def step_flops(self) -> float:
        """Of one denoising step with classifier-free guidance."""
        attention = 4 * self.layers * self.tokens**2 * self.width
        return 2 * (2 * self.parameters * self.tokens + attention)

    def hook_flops(self) -> float:
        """Of the mark: the filter's convolution, and two matrix products that draw the pattern."""
        c, t, h, w = self.latents
        drawing = 2 * 3 * t * (24 * 24 * 4 * h + 24 * 4 * h * 4 * w)
        return 2 * 48 * c * 27 * t * h * w + drawing


SIZES = (
    Size("Wan 2.1 1.3B, 480p, 81 frames", 1.3e9, 30, 1536, (16, 21, 60, 104), 8),
    Size("Wan 2.2 TI2V 5B, 704p, 121 frames", 5e9, 30, 3072, (48, 31, 44, 80), 16),
    Size("Wan 2.1 14B, 720p, 81 frames", 14e9, 40, 5120, (16, 21, 90, 160), 8),
    Size("HunyuanVideo 13B, 720p, 129 frames", 13e9, 60, 3072, (16, 33, 90, 160), 8),
)


def median_seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median wall time, one round to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(size: Size, rate: float, rounds: int) -> dict[str, Any]:
    """Time the hook on this processor; ``rate`` is its speed in flops per second."""
    import torch

    from safegen.types import ContentId
    from safegen.watermark.clip.latent_residual import embed_latents
    from safegen.watermark.clip.profile import PATTERN_CHANNELS, Profile
    from safegen.watermark.layouts import Layout
    from safegen.watermark.payload import Payload

    c = size.latents[0]
    generator = torch.Generator().manual_seed(0)
    profile = Profile(
        "0" * 64,
        torch.randn(c, PATTERN_CHANNELS, 3, 3, 3, generator=generator) / 100,
        torch.randn(c, PATTERN_CHANNELS, 2, 3, 3, generator=generator) / 100,
        1.0,
        torch.randn(c + 1, generator=generator),
    )
    latents = torch.randn(1, *size.latents, generator=generator)
    layout = Layout("BCTHW", size.cell, 4)
    key = bytes(range(32))
    seconds = median_seconds(
        lambda: embed_latents(latents, Payload(ContentId("0123456789abcdef")), key, profile, layout), rounds
    )
    step = size.step_flops() / rate
    return {
        "hook_seconds": seconds,
        "step_seconds_computed": step,
        "hook_to_step": seconds / step,
        "hook_to_generation": seconds / (step * size.steps),
        "hook_gflops": size.hook_flops() / 1e9,
        "step_gflops": size.step_flops() / 1e9,
        "flops_hook_to_step": size.hook_flops() / size.step_flops(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    import torch

    n = 2048
    a, b = torch.randn(n, n), torch.randn(n, n)
    rate = 2 * n**3 / median_seconds(lambda: a @ b, options.rounds)
    result = {
        "command": "python -m benchmarks.watermark.scale " + " ".join(sys.argv[1:]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, CPU only",
        "gflops_per_second": rate / 1e9,
        "models": {s.name: measure(s, rate, options.rounds) for s in SIZES},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scale.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = ["# The mark beside large models", "", about(result), "", *table(result)]
    (options.out / "scale.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def about(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    return (
        f"`{result['command'].strip()}`, {result['date']}, {result['machine']}, "
        f"{result['gflops_per_second']:.0f} Gflop/s in matrix products."
    )


def table(result: dict[str, Any]) -> list[str]:
    """One row per model."""
    lines = [
        "| model | hook, measured | one step, computed | hook to step | to 50 steps | arithmetic: hook to step |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, m in result["models"].items():
        lines.append(
            f"| {name} | {m['hook_seconds']:.2f} s | {m['step_seconds_computed']:.0f} s | {m['hook_to_step']:.1e} | "
            f"{m['hook_to_generation']:.1e} | {m['flops_hook_to_step']:.1e} |"
        )
    return lines


if __name__ == "__main__":
    main()
