"""What decode, attack and encode give back of small changes of the embedded model's latents.

    python benchmarks/watermark/roundtrip.py [--clips 3] [--first-seed 700] [--attacks 7] [--model tiny]

The clips are drawn by the model itself, one prompt each; the changes go into their final latents. What is measured:
safegen/calibration/roundtrip.py. Writes results/roundtrip.json and results/roundtrip.md; with ``--output FOLDER``
elsewhere.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from safegen.calibration.profiles import describe
from safegen.calibration.roundtrip import measure
from safegen.calibration.roundtrip_attacks import attacks
from safegen.generators import Card, autocast, load, resolve
from safegen.generators.loading import quiet
from safegen.watermark import fastvae
from safegen.watermark.calibration import calibrate
from safegen.watermark.clip.profile import find, weights_digest
from safegen.watermark.layouts import Layout, call_shape

PROMPTS = (
    "a red ball rolling on a green field",
    "a blue cube on sand under a clear sky",
    "a yellow cone spinning on grass",
    "two spheres on snow at sunset",
)


def hosts(pipe: Any, call: dict[str, Any], seeds: range) -> torch.Tensor:
    """Final latents [N, C, T, h, w], normalised, of one clip per seed."""
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        prompt = PROMPTS[(seed - seeds.start) % len(PROMPTS)]
        with quiet(), torch.no_grad(), autocast(pipe):
            final = pipe(prompt=prompt, generator=generator, output_type="latent", **call).frames
        drawn.append(Layout.of(pipe.vae, final, call_shape(pipe, call)).unify(final).float().cpu())
    return torch.cat(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=700)
    parser.add_argument("--attacks", type=int, default=len(attacks()), help="only the first so many")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    ref = resolve(arguments.model)
    pipe = load(ref)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.clips)
    latents = hosts(pipe, Card.read(ref).resolve(), seeds)
    vae = fastvae.prepare(pipe.vae)
    profile = find(weights_digest(vae)) or calibrate(vae, latents=latents)
    start = time.perf_counter()
    found = measure(vae, profile, latents, tried=attacks()[: arguments.attacks], progress=_report)
    report = {
        "command": " ".join(["python benchmarks/watermark/roundtrip.py", *sys.argv[1:]]),
        "date": dt.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "model": arguments.model,
        "latents": list(latents.shape),
        "profile": describe(profile),
        "measure_wall_s": round(time.perf_counter() - start, 1),
        "result": found.to_json(),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "roundtrip.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    head = (
        f"# Round trip of the latents of `{arguments.model}`\n\n{found.clips} clip(s), `{report['command']}`, "
        f"{report['date']}, {report['machine']}. Columns: docs/watermark-calibration.md.\n\n"
    )
    (arguments.output / "roundtrip.md").write_text(head + found.to_markdown(), "utf-8")
    print(found.to_markdown())


def _report(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
