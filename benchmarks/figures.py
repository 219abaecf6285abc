"""Write README's and the documents' figures from the committed results, so that no figure there is typed by hand.

python benchmarks/figures.py          # rewrites the sections between the markers
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.watermark import scale, tradeoff  # noqa: E402 - found from the repository's root

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
    data = result("watermark/results/benchmark.json")
    trials = result("watermark/results/trials.json")
    mark = data["schemes"]["latent-residual"]

    def survived(name: str) -> str:
        found = mark["attacks"][name]
        return f"{found['exact']:.0%} ({found['blind']:.0%})"

    quality, costs = mark["quality"], mark["costs"]
    trial = {n: f"{trials[n]['verified']} of {trials[n]['trials']}" for n in ("windows", "readings", "samples")}
    return [
        f"**The mark** on {data['clips']} clips of the embedded model (`{data['command'].strip()}`; payloads named "
        "exactly with the ledger's help, in brackets blindly; [all of it](watermark.md)):",
        "",
        "| what | figure |",
        "|---|---|",
        f"| exact payload: untouched, H.264 CRF 23, 30, 40 | {survived('identity')}, {survived('h264_crf23')}, "
        f"{survived('h264_crf30')}, {survived('h264_crf40')} |",
        f"| cropped to 71 %, to 55 %; rotated by 10°; half of the frames dropped | {survived('crop_0.71')}, "
        f"{survived('crop_0.55')}; {survived('rotate_10')}; {survived('drop_0.5')} |",
        f"| average of {mark['overall']['attacks']} attacks | {mark['overall']['exact']:.1%} "
        f"({mark['overall']['blind']:.1%}) |",
        f"| VERIFIED without a mark: real windows, full readings, cheap readings | {trial['windows']}, "
        f"{trial['readings']}, {trial['samples']} |",
        f"| PSNR against the unmarked twin, median (smallest) | {quality['psnr_db']:.1f} dB "
        f"({quality['psnr_db_smallest']:.1f} dB) |",
        f"| embedding, share of generation | {costs['embed_to_generation']['cpu_s']:.1%} |",
        f"| reading an untouched clip | {costs['extract']['cpu_s']:.2f} s |",
    ]


def moderation() -> list[str]:
    apart = result("moderation/results/source-disjoint.json")
    whole = result("moderation/results/prompts-default.json")
    stopped = {n: a["review"] + a["block"] for n, a in whole["engine"].items()}
    written = whole["hand_written"]["test"]

    def interval(value: list[float]) -> str:
        return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"

    return [
        f"**Moderation** (`{whole['command']}`; AUROC with 95 % intervals; [model card](moderation-model-card.md)):",
        "",
        "| what | figure |",
        "|---|---|",
        "| prompt classifier, unsafe prompts of sources that it never saw against benign video prompts | "
        f"{interval(apart['auroc_unsafe_against_benign_video'])} |",
        f"| the same model, unsafe against look-alikes (OVERT) | "
        f"{interval(apart['auroc_overt_unsafe_against_lookalikes'])} |",
        f"| shipped model, {written['n']} hand-written prompts that nothing was tuned on | "
        f"{interval(written['auroc'])} |",
        f"| benign video prompts (VBench) that the default pack stops | {stopped['VBench/benign']:.1%} |",
        f"| unsafe prompts (OVERT) that it stops | {stopped['OVERT/unsafe']:.1%} |",
        f"| one prompt through all text classifiers, one core | {whole['speed']['engine_ms']['cpu_median']:.1f} ms |",
    ]


def detector() -> list[str]:
    data = result("detector/results/forensic-v1.json")["by_variant"]["plain"]
    auroc, floor = data["auroc"], data["auroc_bitrate_floor"]
    return [
        f"**The passive detector**, origins held out: AUROC {auroc['value']:.2f} ({auroc['low']:.2f} to "
        f"{auroc['high']:.2f}), where the bit rate alone gives {floor['value']:.2f} ([card](detector.md)).",
    ]


def ledger() -> list[str]:
    data = result("ledger/results/bench.json")
    one, many = (data["append"][f"sqlite, {batch}"] for batch in (1, 1000))
    size, grown = max(data["growth"].items(), key=lambda item: int(item[0]))
    writers = data["writers"]
    slowest = writers["sqlite, 8 writers, inline"]["max_ms"]
    eight, plain = (writers[f"postgresql, 8 writers, {mode}"]["per_s"] for mode in ("sequenced", "plain"))
    return [
        f"**The ledger**: in batches of 1000 SQLite takes {many['cpu_ratio']:.2f}x the CPU and "
        f"{many['wall_ratio']:.2f}x the time of plain INSERTs of the same rows "
        f"({many['ledger_per_s']:,} entries a second), and {many['cpu_ratio_lookups']:.2f}x the CPU "
        f"where the plain writer fills the same look-ups; one by one {one['cpu_ratio']:.2f}x and "
        f"{one['cpu_ratio_lookups']:.2f}x. Of eight writers none waited longer than "
        f"{slowest:.0f} ms; eight on PostgreSQL write {eight:,} entries a second, plain ones {plain:,}. With "
        f"{int(size):,} entries a proof takes {grown['prove_p99_ms']:.1f} ms (99 of 100); full verification takes "
        f"{data['growth']['1000000']['fsck_cpu_s']:.0f} µs of CPU an entry "
        f"([all of it](../benchmarks/ledger/results/bench.md); `{data['command']}`).",
    ]


def in_figures_document() -> str:
    parts = [pipeline(), watermark(), moderation(), detector(), ledger()]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def in_readme() -> str:
    """The dozen figures that a reader wants first; docs/figures.md has the others, with commands and intervals."""
    run = result("pipeline/results/overhead.json")["summary"]
    mark = result("watermark/results/benchmark.json")["schemes"]["latent-residual"]
    trials = result("watermark/results/trials.json")
    apart = result("moderation/results/source-disjoint.json")["auroc_unsafe_against_benign_video"]
    stopped = {
        name: judged["review"] + judged["block"]
        for name, judged in result("moderation/results/prompts-default.json")["engine"].items()
    }
    passive = result("detector/results/forensic-v1.json")["by_variant"]["plain"]
    written = result("ledger/results/bench.json")
    one, many = (written["append"][f"sqlite, {batch}"]["cpu_ratio"] for batch in (1, 1000))
    eight, plain = (written["writers"][f"postgresql, 8 writers, {mode}"]["per_s"] for mode in ("sequenced", "plain"))

    def exact(*names: str) -> str:
        return ", ".join(f"{mark['attacks'][name]['exact']:.0%}" for name in names)

    overall, auroc, floor = mark["overall"], passive["auroc"]["value"], passive["auroc_bitrate_floor"]["value"]
    verified, windows = trials["windows"]["verified"], trials["windows"]["trials"]
    verify = f"{run['verify_seconds']:.1f} s; {run['verify_without_neural_seconds']:.1f} s"
    rows = {
        "`safegen generate`; the bare diffusers call": f"{run['generate_seconds']:.1f} s; {run['bare_seconds']:.1f} s",
        "`safegen verify`; with `--no-neural`": verify,
        "clips named exactly after H.264 at CRF 23, 30, 40": exact("h264_crf23", "h264_crf30", "h264_crf40"),
        "... cropped to 55 %, rotated by 10°, half of the frames dropped": exact("crop_0.55", "rotate_10", "drop_0.5"),
        f"... over {overall['attacks']} attacks; without the ledger's help": f"{overall['exact']:.1%}; "
        f"{overall['blind']:.1%}",
        "windows of unmarked clips that verify as marked": f"{verified} of {windows}",
        "marked against unmarked twin, median PSNR": f"{mark['quality']['psnr_db']:.1f} dB",
        "unsafe prompts of unseen sources against benign ones, AUROC": f"{apart[0]:.3f}",
        "prompts that the default policy stops: unsafe (OVERT); benign (VBench)": f"{stopped['OVERT/unsafe']:.1%}; "
        f"{stopped['VBench/benign']:.1%}",
        "passive detector, AUROC; what the bit rate alone gives": f"{auroc:.2f}; {floor:.2f}",
        "ledger in SQLite, processor time against plain INSERTs, one by one; by 1000": f"{one:.2f}x; {many:.2f}x",
        "ledger in PostgreSQL, eight writers, entries a second; plain INSERTs": f"{eight:,}; {plain:,}",
    }
    return (
        "\n".join(["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows.items())])
        + "\n"
    )


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


def in_watermark_document() -> str:
    """Survival by list and family, the weakest attacks, strength, trials, costs."""
    data = result("watermark/results/benchmark.json")
    mark, peers = data["schemes"]["latent-residual"], [n for n in data["schemes"] if n != "latent-residual"]

    heads = [f"{n} ({data['schemes'][n]['attacks']['identity']['n']})" for n in peers]

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}"

    lines = [
        "## Survival",
        "",
        f"{data['clips']} clips of the embedded model, for the other schemes as many as stand beside their names "
        f"(`{data['command'].strip()}`, {data['date']}, {data['machine']}). Exact payloads in %; for the clip mark "
        "also *blind*, without the ledger's list of a thousand issued ids.",
        "",
        "| attacks | number | latent-residual | blind | " + " | ".join(heads) + " |",
        "|---|---:|---:|---:|" + "---:|" * len(peers),
    ]
    groups = [("all", "overall", "")]
    groups += [(f"list {n}", "by_list", n) for n in data["lists"]]
    groups += [(f"family {n}", "by_family", n) for n in mark["by_family"]]
    for title, part, name in groups:
        rows = [s[part][name] if name else s[part] for s in data["schemes"].values()]
        lines.append(
            f"| {title} | {rows[0]['attacks']} | {share(rows[0]['exact'])} | {share(rows[0]['blind'])} | "
            + " | ".join(share(r["exact"]) for r in rows[1:])
            + " |"
        )
    weakest = ", ".join(f"{n} {share(mark['attacks'][n]['exact'])}" for n in mark["worst"])
    lines += ["", f"The weakest: {weakest}. [Every attack](../benchmarks/watermark/results/benchmark.md).", ""]
    strength = result("watermark/results/tradeoff.json")
    lines += [
        "## Strength",
        "",
        f"{strength['clips']} clips (`{strength['command'].strip()}`, {strength['date']}); payloads read blindly / "
        "with the ledger's help. Strength 1 is what safegen uses unless its own read-back asks for more.",
        "",
        *tradeoff.table(strength),
        "",
    ]
    trials = result("watermark/results/trials.json")
    lines += ["## Without a mark", "", f"`{trials['command'].strip()}`, {trials['date']}:", ""]
    lines += ["| trials | number | verified | present | largest statistic |", "|---|---:|---:|---:|---:|"]
    for name in ("windows", "readings", "samples"):
        t = trials[name]
        lines.append(f"| {name} | {t['trials']} | {t['verified']} | {t['present']} | {t['largest_statistic']:.2f} |")
    for name, t in mark["null"].items():
        lines.append(
            f"| {name.replace('_', ' ')}, with search | {t['trials']} | {t['verified']} | {t['present']} | "
            f"{t['largest_statistic']:.2f} |"
        )
    lines += [
        "",
        "*Forged by averaging* is no trial without a mark but an attack: the mean difference of 16 marked clips to "
        "their twins, pasted onto an unmarked clip. What still reads is one of the 16, a copy, which the "
        "[fingerprint](fingerprint.md) is there for.",
    ]
    beside = result("watermark/results/scale.json")
    costs = mark["costs"]
    lines += [
        "",
        "## Cost",
        "",
        f"On the embedded model, time of one core: embedding takes {1000 * costs['embed']['cpu_s']:.1f} ms, "
        f"{costs['embed_to_generation']['cpu_s']:.2%} of generating; reading an untouched clip "
        f"{1000 * costs['extract']['cpu_s']:.0f} ms, {costs['extract_to_vae_encode']['cpu_s']:.2f} times one VAE "
        f"encode; a search {costs['search_cpu_s']:.1f} s at the median, {costs['search_cpu_s_95']:.1f} s at the 95th "
        "percentile.",
        "",
        f"Beside large models: {scale.about(beside)}",
        "",
        *scale.table(beside),
    ]
    return "\n".join(lines) + "\n"


def in_probes_document() -> str:
    """What the shipped probes find on prompts and seeds that they never saw, and what a stop saves."""
    data = result("moderation/results/probe.json")
    looks_at = {"text_states": "hidden states", "latents": "predicted latents, after steps 1 and 4 of 16"}

    def percent(value: float) -> str:
        return f"{100 * value:.1f}%"

    lines = [
        f"Measured on {data['date']} by `{data['command']}`, {data['machine']}, other work beside it. 70 % of "
        f"{data['prompts']} captions trained, the others, each with a seed of its own, were held out.",
        "",
        "| shipped probe | held out (on water) | AUROC | stopped | false stops (wanted: 1 %) |",
        "|---|---:|---:|---:|---:|",
    ]
    for source, card in data["shipped"].items():
        f = card["held_out"]
        shares = f"{f['auroc']:.3f} | {percent(f['stopped'])} | {percent(f['false_stops'])}"
        lines.append(f"| {looks_at[source]} | {f['prompts']} ({f['with_concept']}) | {shares} |")
    concepts = data["concepts_on_held_out_prompts_and_seeds"]
    wheres = list(next(iter(concepts.values())))
    lines += [
        "",
        "| AUROC for | " + " | ".join(w.replace("text_states", "hidden states") for w in wheres) + " |",
        "|---|" + "---:|" * len(wheres),
    ]
    lines += [f"| {n} | " + " | ".join(f"{f[w]['auroc']:.2f}" for w in wheres) + " |" for n, f in concepts.items()]
    other = data["water_in_wordings_not_trained_on"].values()
    text, latents = ([f[w] for f in other] for w in ("text_states", "after step 1"))
    medians = data["time"]["medians"]
    by_text, by_latents = medians["stopped by the text probe"], medians["stopped by the latent probe"]
    lines += [
        "",
        f"Water in a wording that training never saw (each of {len(text)} in turn): AUROC at least "
        f"{min(f['auroc'] for f in text):.3f} from hidden states and {min(f['auroc'] for f in latents):.3f} after "
        f"step 1, stopped at least {percent(min(f['stopped'] for f in text))} and "
        f"{percent(min(f['stopped'] for f in latents))}.",
        "",
        f"A stop by the text probe saves {percent(by_text['share_of_cpu_time_saved'])} of a run's processor time (all "
        f"steps), one by the latent probe {percent(by_latents['share_of_cpu_time_saved'])} (after step "
        f"{by_latents['steps']:.0f} of 16), model loaded, median of {data['time']['runs_each']} runs. Where they stop "
        "nothing, both together, with the comparison of weights, take "
        f"{100 * medians['not stopped, both probes asked']['share_of_time_for_probes']:.2f}% of it.",
    ]
    return "\n".join(lines) + "\n"


def in_model_document() -> str:
    data = result("model/probe.json")
    judge = data["judge"]["through_vae"]
    rows = (
        ("shape", data["shape"], judge["shape"]),
        ("colour", data["color"], judge["color"]),
        ("ground", data["ground"], judge["ground"]),
        ("sky", data["sky"], judge["sky"]),
        ("a solid in the frame, of all frames", data["present"], None),
        ("the motion, where the solid's place tells it", data["motion"], None),
    )
    return "\n".join(
        [
            f"What {data['prompts']} held-back prompts state and the clips show, said by a classifier of drawn scenes "
            f"(`{data['command']}`, {data['date']}, {data['machine']}); beside it, what that classifier gets right of "
            f"{data['judge']['pictures']} drawn scenes that went through the VAE:",
            "",
            "| as asked | clips | the judge |",
            "|---|---|---|",
            *(f"| {name} | {found:.0%} | {'' if right is None else f'{right:.0%}'} |" for name, found, right in rows),
        ]
    )


DOCUMENTS = {
    "README.md": in_readme,
    "docs/figures.md": in_figures_document,
    "docs/watermark-calibration.md": round_trip,
    "docs/watermark.md": in_watermark_document,
    "docs/probes.md": in_probes_document,
    "docs/embedded-model.md": in_model_document,
}


def main() -> None:
    for name, figures in DOCUMENTS.items():
        text = (ROOT / name).read_text("utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        (ROOT / name).write_text(f"{before}{BEGIN}\n{figures()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
