"""Write README's and the documents' figures from the committed results, so that no figure there is typed by hand.

python benchmarks/figures.py          # rewrites the sections between the markers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


def result(path: str) -> Any:
    return json.loads((ROOT / "benchmarks" / path).read_text("utf-8"))


def pipeline() -> list[str]:
    data = result("pipeline/results/overhead.json")
    s = data["summary"]
    return [
        f"**The whole pipeline** on the embedded model's default clip ({data['machine']}; medians of "
        f"{len(data['rounds'])} rounds; `{data['command'].strip()}`):",
        "",
        "| what | figure |",
        "|---|---|",
        f"| `safegen generate`, whole process | {s['generate_seconds']:.1f} s, peak {s['generate_peak_mb']:.0f} MB |",
        f"| the bare diffusers call, whole process | {s['bare_seconds']:.1f} s |",
        f"| ratio of the two, the mark's own cost taken out | {s['ratio_without_mark']:.2f} |",
        "| the same, up to the bare call's last frame (its process then takes its time to end; ours does not) | "
        f"{s['ratio_without_mark_or_teardown']:.2f} |",
        f"| the mark's own cost: embedding and reading back | {s['mark_embed_and_read_seconds']:.1f} s |",
        f"| `safegen verify` | {s['verify_seconds']:.1f} s |",
        f"| `safegen verify --no-neural` | {s['verify_without_neural_seconds']:.2f} s |",
        f"| `import safegen` | {1000 * s['import_safegen_seconds']:.0f} ms |",
    ]


def watermark() -> list[str]:
    data = result("watermark/results/robustness.json")
    s = data["summary"]
    read = ", ".join(f"{n} at CRF {crf}" for crf, n in s["exact_payload"].items())
    return [
        f"**The mark** on {s['clips']} clips of the embedded model (`{data['command'].strip()}`):",
        "",
        "| what | figure |",
        "|---|---|",
        f"| exact payload after H.264, of {s['clips']} | {read} |",
        f"| VERIFIED on unmarked clips | {s['unmarked_verified']} of {s['unmarked_trials']} |",
        f"| VERIFIED under a wrong key | {s['wrong_key_verified']} of {s['wrong_key_trials']} |",
        f"| PSNR against the unmarked twin, median (smallest) | {s['psnr_db_median']:.1f} dB "
        f"({s['psnr_db_smallest']:.1f} dB) |",
        f"| clips by strength | {', '.join(f'{n} at {k}' for k, n in s['clips_by_strength'].items())} |",
        f"| reading one clip | {s['extract_wall_s_median']:.2f} s |",
    ]


def moderation() -> list[str]:
    text = result("moderation/results/ngram-test-part.json")
    engine = result("moderation/results/engine-default.json")
    stopped = {n: a["review"] + a["block"] for n, a in engine["actions"].items()}
    return [
        f"**Moderation**, held-out part of the training sources (`{engine['command']}`):",
        "",
        "| what | figure |",
        "|---|---|",
        f"| text classifier alone, AUROC unsafe against benign | {text['auroc_unsafe_vs_benign']:.3f} |",
        f"| the same against benign look-alikes | {text['auroc_overt_unsafe_vs_lookalike']:.3f} |",
        f"| benign video prompts (VBench) that the default pack stops | {stopped['VBench/benign']:.1%} |",
        f"| unsafe prompts (OVERT) that it stops | {stopped['OVERT/unsafe']:.1%} |",
        f"| one prompt | {engine['speed']['prompt_median_ms']:.1f} ms |",
    ]


def detector() -> list[str]:
    data = result("detector/results/forensic-v1.json")["by_variant"]["plain"]
    auroc, floor = data["auroc"], data["auroc_bitrate_floor"]
    return [
        f"**The passive detector**, origins held out: AUROC {auroc['value']:.2f} ({auroc['low']:.2f} to "
        f"{auroc['high']:.2f}), where the bit rate alone gives {floor['value']:.2f} ([card](docs/detector.md)).",
    ]


def ledger() -> list[str]:
    data = result("ledger/results.json")
    ratio, verify = data["append_us"]["wall_ratio"], data["verify_us_per_entry"]["cpu"] / 1000
    return [
        f"**The ledger**: one append takes {ratio:.2f}x the wall time of a plain INSERT of the same row, and full "
        f"verification {verify:.2f} ms of CPU an entry (`{data['command']}`).",
    ]


def render() -> str:
    parts = [pipeline(), watermark(), moderation(), detector(), ledger()]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def round_trip() -> str:
    """The part of the round trip's table that the clip mark lives by."""
    data = result("watermark/results/roundtrip.json")
    found, about = data["result"], data["profile"]
    attacks = list(found["natural"])

    def wanted(row: Any) -> bool:
        return row["group"] == "mark" or row["name"].endswith("changing") or row["name"] == "direction 1"

    lines = [
        f"{found['clips']} clips that the embedded model drew (`{data['command']}`, {data['date']}, "
        f"{data['machine']}); gain of its profile {about['gain']:.2f}, share of the energy in the pattern "
        f"{about['notes']['energy_in_the_pattern']:.0%}. Gains, pixels / latents:",
        "",
        "| change | drawn | share | PSNR, dB | " + " | ".join(attacks) + " |",
        "|---|" + "---:|" * (3 + len(attacks)),
    ]
    for row in filter(wanted, found["rows"]):
        drawn = ["", ""] if row["group"] == "white" else [f"{row['drawn']:.2f}", f"{row['share']:.2f}"]
        gains = [f"{row['canvas'][a]:.2f} / {row['latents'][a]:.2f}" for a in attacks]
        name = f"white, {row['name']}" if row["group"] == "white" else row["name"]
        lines.append("| " + " | ".join([name, *drawn, f"{row['psnr']:.1f}", *gains]) + " |")
    own = [f"– / {found['natural'][a]['gain']:.2f}" for a in attacks]
    lines.append("| " + " | ".join(["the clips' own latents", "", "", "", *own]) + " |")
    linear = ", ".join(f"{gain:.3f} at {level}" for level, gain in found["linearity"].items())
    alike = ", ".join(f"{share:.0%} ({name})" for name, share in found["invariance"].items())
    lines += [
        "",
        f"*Linearity*: the mark's gain, relative to the smallest level, is {linear} levels. *Invariance*: of an "
        f"impulse's response {alike} is the same at all places of all clips.",
    ]
    return "\n".join(lines) + "\n"


DOCUMENTS = {"README.md": render, "docs/watermark-calibration.md": round_trip}


def main() -> None:
    for name, figures in DOCUMENTS.items():
        text = (ROOT / name).read_text("utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        (ROOT / name).write_text(f"{before}{BEGIN}\n{figures()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
