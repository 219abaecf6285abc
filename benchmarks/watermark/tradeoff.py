"""What strength buys: the mark's survival against its visibility, on the same clips at several strengths.

    python -m benchmarks.watermark.tradeoff [--clips 12] [--first-seed 8000]

VMAF is given twice: of the clips as they are (192x192), and, as libvmaf's authors advise for small pictures, of both
clips enlarged to 1080 lines. For comparison, what H.264 at the product's own CRF does to the unmarked clip. Writes
results/tradeoff.json and .md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.watermark.attacks import ATTACKS, Context
from benchmarks.watermark.codecs import Frames, transcode
from benchmarks.watermark.metrics import psnr, ssim, vmaf
from benchmarks.watermark.schemes import KEY, OWN_CRF, LatentResidual, Studio, content_id
from safegen.types import Clip, ContentId

STRENGTHS = (0.5, 0.75, 1.0, 1.4)
TRIED = ("identity", "h264_crf30", "h264_own_fps_crf36", "h264_crf40", "h265_crf30", "crop_0.71",
         "crop_0.71+drop_0.2+h264_crf30")  # fmt: skip
LINES = 1080


def enlarge(frames: Frames) -> Frames:
    """To LINES lines, bicubic."""
    height, width = frames.shape[1:3]
    size = (round(width * LINES / height), LINES)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in frames])


def quality(frames: Frames, twin: Frames, fps: float, *, large: bool) -> dict[str, float]:
    """How far ``frames`` are from their unmarked twin."""
    found = {"psnr_db": psnr(frames, twin), "ssim": ssim(frames, twin), "vmaf": vmaf(frames, twin, fps)}
    return {**found, "vmaf_1080": vmaf(enlarge(frames), enlarge(twin), fps)} if large else found


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of those rows that have a figure."""
    names = dict.fromkeys(n for r in rows for n in r)
    return {n: round(statistics.fmean(r[n] for r in rows if n in r), 3) for n in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--large", type=int, default=4, help="clips that are scored at 1080 lines too")
    parser.add_argument("--first-seed", type=int, default=8000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    from safegen.watermark.clip.latent_residual import LatentEmbedder
    from safegen.watermark.clip.profile import find, weights_digest
    from safegen.watermark.payload import Payload

    studio = Studio()
    scheme = LatentResidual(studio)
    profile = find(weights_digest(studio.pipe.vae))
    if profile is None:
        raise SystemExit("The embedded model's profile is missing.")
    rows: dict[str, list[dict[str, float]]] = {}
    reads: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}
    for number in range(options.clips):
        seed = options.first_seed + number
        embedder = LatentEmbedder(Payload(ContentId(content_id(seed))), KEY, profile, studio.shape)
        studio.draw(seed, embedder)
        twin, large = studio.decode(embedder.clean), number < options.large
        encoded = transcode(twin, studio.fps, "h264", OWN_CRF)
        rows.setdefault("encoding", []).append(quality(encoded, twin, studio.fps, large=large))
        for strength in STRENGTHS:
            marked = studio.decode(embedder.remark(strength))
            rows.setdefault(str(strength), []).append(quality(marked, twin, studio.fps, large=large))
            for name in TRIED:
                attacked = ATTACKS[name](Clip(marked, studio.fps), seed, Context()).frames
                found = scheme.read(np.ascontiguousarray(attacked), issued=[*scheme.issued, content_id(seed)])
                exact = found.payload == content_id(seed)
                reads.setdefault((str(strength), name), []).append(
                    (exact and found.decoded, exact, found.statistic or 0.0)
                )
        print(f"{number + 1} of {options.clips}", flush=True)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.watermark.tradeoff " + " ".join(sys.argv[1:]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "clips": options.clips,
        "own_crf": OWN_CRF,
        "encoding_alone": mean(rows.pop("encoding")),
        "strengths": {
            s: {
                **mean(found),
                "attacks": {
                    name: {
                        "decoded": sum(d for d, _, _ in reads[s, name]),
                        "with_ledger": sum(e for _, e, _ in reads[s, name]),
                        "mean_statistic": round(statistics.fmean(t for _, _, t in reads[s, name]), 1),
                    }
                    for name in TRIED
                },
            }
            for s, found in rows.items()
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "tradeoff.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.out / "tradeoff.md").write_text(markdown(result), encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    """tradeoff.md."""
    lines = [
        "# Strength, visibility, survival",
        "",
        f"`{result['command'].strip()}`, {result['date']}, {result['machine']}, {result['clips']} clips.",
        "",
        *table(result),
        "",
        "Payloads: decoded blindly / named with the help of a ledger of a thousand ids.",
    ]
    return "\n".join(lines) + "\n"


def table(result: dict[str, Any]) -> list[str]:
    """The rows of the trade-off, one per strength."""
    lines = ["| strength | PSNR, dB | SSIM | VMAF | VMAF at 1080 lines | " + " | ".join(TRIED) + " |"]
    lines += ["|---|" + "---:|" * (4 + len(TRIED))]
    about = result["encoding_alone"]
    lines.append(f"| none, H.264 CRF {result['own_crf']} | {_figures(about)} | " + " | ".join("" for _ in TRIED) + " |")
    for strength, found in result["strengths"].items():
        read = [f"{a['decoded']} / {a['with_ledger']}" for a in (found["attacks"][name] for name in TRIED)]
        lines.append(f"| {strength} | {_figures(found)} | " + " | ".join(read) + " |")
    return lines


def _figures(found: dict[str, float]) -> str:
    return f"{found['psnr_db']:.1f} | {found['ssim']:.4f} | {found['vmaf']:.1f} | {found['vmaf_1080']:.1f}"


if __name__ == "__main__":
    main()
