"""How much of the clip mark is to be seen: ColorVideoVDP (JOD, 10 is unseen), PSNR, and what the reader has to spare.

    python3 -m venv VDP && VDP/bin/pip install cvvdp
    python -m benchmarks.watermark.visibility --vdp VDP/bin/python [--clips 10] [--first-seed 7000]

Clips of the embedded model, even pictures mostly, before any encode: marked in the latents against their unmarked
twins, and the same twins marked in the pixels. At 45 pixels per degree: a television watched from three heights away.
ColorVideoVDP (Mantiuk et al., ACM Trans. Graphics 43(4), 2024) wants torchvision, and so an environment of its own.
Writes results/visibility.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.watermark.codecs import Frames, transcode
from benchmarks.watermark.metrics import psnr
from benchmarks.watermark.schemes import KEY, Studio, content_id
from safegen.calibration.profiles import profile_for
from safegen.settings import Home
from safegen.types import ContentId
from safegen.watermark.clip.extraction import extract_frames
from safegen.watermark.clip.in_pixels import embed_frames
from safegen.watermark.clip.latent_residual import LatentEmbedder
from safegen.watermark.payload import Payload

PIXELS_PER_DEGREE = 45
CRFS = (18, 23, 30)

JUDGE = f"""
import sys, warnings
warnings.filterwarnings("ignore")
import numpy as np, pycvvdp, torch
from pycvvdp.display_model import vvdp_display_geometry
torch.set_num_threads(1)
geometry = vvdp_display_geometry((1920, 1080), ppd={PIXELS_PER_DEGREE}.0)
metric = pycvvdp.cvvdp(display_name="standard_fhd", display_geometry=geometry, device=torch.device("cpu"), quiet=True)
for path in sys.argv[1:]:
    pair = np.load(path)
    quality, _ = metric.predict(
        pair["marked"], pair["twin"], dim_order="FHWC", frames_per_second=float(pair["fps"])
    )
    print(f"JOD {{float(quality):.4f}}")
"""
"""Runs in the other environment: a line for each pair of clips."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vdp", type=Path, required=True, help="the interpreter that has cvvdp")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=7000)
    asked = parser.parse_args()
    studio = Studio()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        profile = profile_for(studio.pipe.vae, Home(Path(folder) / "home"))
        for seed in range(asked.first_seed, asked.first_seed + asked.clips):
            payload, twin = Payload(ContentId(content_id(seed))), studio.draw(seed)[0]
            made = {
                "latents": studio.draw(seed, LatentEmbedder(payload, KEY, profile))[0],
                "pixels": embed_frames(twin, payload, KEY),
            }
            for way, marked in made.items():
                pairs.append(str(Path(folder) / f"{way}-{seed}.npz"))
                np.savez(pairs[-1], marked=marked, twin=twin, fps=studio.fps)
                rows.append({"seed": seed, "drawn_in": way, **measured(marked, twin, payload, studio.fps)})
        said = subprocess.run([asked.vdp, "-c", JUDGE, *pairs], capture_output=True, text=True, check=True).stdout
    jods = [float(line.split()[1]) for line in said.splitlines() if line.startswith("JOD ")]
    for row, jod in zip(rows, jods, strict=True):
        row["jod"] = round(jod, 3)
    ways = {way: summary([r for r in rows if r["drawn_in"] == way]) for way in ("latents", "pixels")}
    result = {
        "command": f"python -m benchmarks.watermark.visibility --vdp PYTHON --clips {asked.clips}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "pixels_per_degree": PIXELS_PER_DEGREE, **ways, "clips": rows,
    }  # fmt: skip
    out = Path(__file__).parent / "results" / "visibility.json"
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(ways, indent=1))


def measured(marked: Frames, twin: Frames, payload: Payload, fps: float) -> dict[str, Any]:
    """Decibels, and what the reader finds after H.264: its statistic, and whether it decodes without the ledger."""
    found = {crf: extract_frames(transcode(marked, fps, "h264", crf), KEY, look=False) for crf in CRFS}
    return {
        "psnr_db": round(psnr(marked, twin), 2),
        "statistic": {str(crf): round(f.statistic, 1) for crf, f in found.items()},
        "decoded": {str(crf): f.payload == payload for crf, f in found.items()},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all clips."""
    jods = [r["jod"] for r in rows]
    return {
        "jod_median": round(statistics.median(jods), 3), "jod_worst": min(jods),
        "psnr_db_median": round(statistics.median(r["psnr_db"] for r in rows), 2),
        **{f"statistic_median_crf{c}": statistics.median(r["statistic"][str(c)] for r in rows) for c in CRFS},
        **{f"decoded_crf{c}": sum(r["decoded"][str(c)] for r in rows) for c in CRFS},
    }  # fmt: skip


if __name__ == "__main__":
    main()
