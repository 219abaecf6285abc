"""The benchmark's figures from its rows, and the tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.watermark.attacks import ATTACKS, FAMILIES, SPLICES

Rows = Sequence[dict[str, Any]]


SEARCHED = ("crop_0.55", "crop_0.71", "rotate_10", "rotate_45", "perspective_0.5", "h264_crf50")
"""Attacks after which our reader has to look for the picture's place, in vain after some of them."""


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    kept = list(values)
    return statistics.fmean(kept) if kept else None


def interval(successes: int, trials: int) -> list[float]:
    """Wilson's 95 % confidence interval of a rate."""
    if not trials:
        return [0.0, 1.0]
    z, p = 1.96, successes / trials
    centre, half = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return [
        round(max(0.0, (centre - half) / (1 + z * z / trials)), 4),
        round((centre + half) / (1 + z * z / trials), 4),
    ]


def summarise(
    rows: Rows,
    trials: Rows,
    clips: dict[str, list[dict[str, Any]]],
    twins: list[dict[str, Any]],
    encode: dict[str, float],
    lists: dict[str, list[str]],
) -> dict[str, Any]:
    """One entry per scheme, in the order of ``clips``."""
    generate = _median([t["generate"] for t in twins])
    return {
        "lists": lists,
        "generation": generate,
        "vae_encode": encode,
        "schemes": {
            name: {
                **_survival([r for r in rows if r["scheme"] == name], lists),
                "quality": _quality(known),
                "costs": _costs(known, [r for r in rows if r["scheme"] == name], generate, encode),
                "strengths": _count([i["timings"].get("strength") for i in known]),
                "null": _null([t for t in trials if t["scheme"] == name]),
            }
            for name, known in clips.items()
        },
    }


def _survival(rows: Rows, lists: dict[str, list[str]]) -> dict[str, Any]:
    attacks = {name: _attack([r for r in rows if r["attack"] == name]) for name in ATTACKS}
    attacks = {name: figures for name, figures in attacks.items() if figures["n"]}

    def averages(names: Iterable[str]) -> dict[str, Any]:
        seen = [attacks[n] for n in names if n in attacks]
        return {
            "attacks": len(seen),
            **{k: mean(a[k] for a in seen) for k in ("exact", "blind", "tpr", "bit_accuracy")},
        }

    return {
        "overall": averages(attacks),
        "by_list": {name: averages(names) for name, names in lists.items()},
        "by_family": {f: averages(n for n in attacks if ATTACKS[n].family == f) for f in FAMILIES},
        "worst": sorted(attacks, key=lambda n: (attacks[n]["exact"], attacks[n]["bit_accuracy"]))[:10],
        "splices": {n: attacks[n] for n in SPLICES if n in attacks},
        "attacks": attacks,
    }


def _attack(rows: Rows) -> dict[str, Any]:
    exact = sum(r["exact"] for r in rows)
    figures: dict[str, Any] = {
        "n": len(rows),
        "exact": mean(r["exact"] for r in rows),
        "exact_95": interval(exact, len(rows)),
        "blind": mean(r["blind"] for r in rows),
        "tpr": mean(r["verified"] for r in rows),
        "present": mean(r["status"] in ("verified", "present") for r in rows),
        "bit_accuracy": mean(r["bit_accuracy"] for r in rows),
        "smallest_statistic": min((r["statistic"] for r in rows if r["statistic"] is not None), default=None),
        "errors": sum("error" in r for r in rows),
    }
    if any("other_found" in r for r in rows):
        figures["other_found"] = mean(r["other_found"] for r in rows)
        figures["both_found"] = mean(r["other_found"] and r["exact"] for r in rows)
    return figures


def _null(trials: Rows) -> dict[str, Any]:
    out = {}
    for kind in dict.fromkeys(t["kind"] for t in trials):
        of_kind = [t for t in trials if t["kind"] == kind]
        verified = sum(t["verified"] for t in of_kind)
        out[kind] = {
            "trials": len(of_kind),
            "verified": verified,
            "verified_rate_95": interval(verified, len(of_kind)),
            "present": sum(t["status"] == "present" for t in of_kind),
            "largest_statistic": max((t["statistic"] for t in of_kind if t["statistic"] is not None), default=None),
            "errors": sum("error" in t for t in of_kind),
        }
    return out


def _quality(known: list[dict[str, Any]]) -> dict[str, float]:
    names = list(known[0]["quality"]) if known else []
    out = {n: statistics.median(i["quality"][n] for i in known) for n in names}
    return {**out, **({"psnr_db_smallest": min(i["quality"]["psnr_db"] for i in known)} if known else {})}


def _median(costs: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(n for c in costs for n in c)
    return {n: statistics.median(c[n] for c in costs if n in c) for n in names}


def _costs(
    known: list[dict[str, Any]], rows: Rows, generate: dict[str, float], encode: dict[str, float]
) -> dict[str, Any]:
    """Medians of embedding and of extraction from the untouched clip, and as shares of generation and VAE encode."""
    embed = _median([i["timings"]["embed"] for i in known])
    extract = _median([r["read"] for r in rows if r["attack"] == "identity"])
    searched = sorted(r["read"]["cpu_s"] for r in rows if r["attack"] in SEARCHED)
    shares = {"search_cpu_s": 50, "search_cpu_s_95": 95} if searched else {}
    return {
        **{name: searched[len(searched) * share // 100] for name, share in shares.items()},
        "embed": embed,
        "extract": extract,
        "embed_to_generation": _ratios(embed, generate),
        "extract_to_generation": _ratios(extract, generate),
        "extract_to_vae_encode": _ratios(extract, encode),
    }


def _ratios(costs: dict[str, float], unit: dict[str, float]) -> dict[str, float]:
    return {n: costs[n] / unit[n] for n in costs if unit.get(n)}


def _count(values: list[Any]) -> dict[str, int]:
    kept = [str(v) for v in values if v is not None]
    return {v: kept.count(v) for v in sorted(set(kept))}


# Tables


def markdown(results: dict[str, Any]) -> str:
    """benchmark.md."""
    schemes = results["schemes"]
    lines = ["# Robustness of the watermark", "", f"`{results['command']}`", ""]
    state = "" if results.get("finished", True) else " The run was stopped before its end."
    clips = f"{results['clips']} clips of {results['model']} ({results['peer_clips']} for the other schemes)"
    lines += [f"{results['date']}, {results['machine']}, {clips}.{state}", ""]
    lines += [
        "Exact: the whole payload is right; for latent-residual with the help of a ledger of a thousand issued ids",
        "(docs/watermark.md has the blind figures beside it). TPR: detected at a global false positive rate of 1e-6:",
        "for keyed schemes their own verdict VERIFIED; for the others (32 bits, given back whether there is a mark or",
        "not, held against the known payload) as many right bits as chance reaches that rarely. Bits: share of right",
        "payload bits; a reader that gives no payload counts as half.",
        "",
        "## Averages over attacks",
        "",
    ]
    groups = [("all", "overall", "")]
    groups += [(f"list {n}", "by_list", n) for n in results["lists"]]
    groups += [(f"family {n}", "by_family", n) for n in FAMILIES]
    lines += _table(
        ["attacks", *schemes],
        ([title, *(_three(s[part][n] if n else s[part]) for s in schemes.values())] for title, part, n in groups),
    )
    lines += ["", "Exact / TPR / bits in %.", "", "## Quality against the unmarked twin (medians)", ""]
    qualities = list(dict.fromkeys(q for s in schemes.values() for q in s["quality"]))
    lines += _table(
        ["figure", *schemes], ([q, *(_number(s["quality"].get(q)) for s in schemes.values())] for q in qualities)
    )
    lines += ["", "## Costs (medians)", ""]
    lines += [f"Generation: {_cost(results['generation'])}. One VAE encode: {_cost(results['vae_encode'])}.", ""]
    costs = ("embed", "extract", "embed_to_generation", "extract_to_generation", "extract_to_vae_encode")
    lines += _table(["stage", *schemes], ([c, *(_cost(s["costs"][c]) for s in schemes.values())] for c in costs))
    lines += ["", "## Trials without a mark: verified / present / trials (largest statistic)", ""]
    kinds = list(dict.fromkeys(k for s in schemes.values() for k in s["null"]))
    lines += _table(["material", *schemes], ([k, *(_trial(s["null"].get(k)) for s in schemes.values())] for k in kinds))
    lines += ["", "## Splices: clip found / other clip found / both, in %", ""]
    lines += _table(
        ["splice", *schemes], ([n, *(_splice(s["splices"].get(n)) for s in schemes.values())] for n in SPLICES)
    )
    lines += ["", "## Every attack: exact / TPR / bits in %", ""]
    names = [n for n in ATTACKS if any(n in s["attacks"] for s in schemes.values())]
    lines += _table(
        ["attack", "family", *schemes],
        ([n, ATTACKS[n].family, *(_three(s["attacks"].get(n)) for s in schemes.values())] for n in names),
    )
    if results["not_run"]:
        lines += ["", "## Not run", "", *(f"- {name}: {why}" for name, why in results["not_run"].items())]
    return "\n".join(lines) + "\n"


def _table(head: list[str], body: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in body)]


def _three(figures: dict[str, Any] | None) -> str:
    if not figures or figures["exact"] is None:
        return "-"
    return " / ".join(f"{100 * figures[k]:.1f}" for k in ("exact", "tpr", "bit_accuracy"))


def _splice(figures: dict[str, Any] | None) -> str:
    if not figures:
        return "-"
    return " / ".join(
        "-" if (v := figures.get(k)) is None else f"{100 * v:.0f}" for k in ("exact", "other_found", "both_found")
    )


def _trial(figures: dict[str, Any] | None) -> str:
    if not figures:
        return "-"
    return (
        f"{figures['verified']} / {figures['present']} / {figures['trials']} ({_number(figures['largest_statistic'])})"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cost(costs: dict[str, float]) -> str:
    units = {"wall_s": "wall", "cpu_s": "processor", "peak_mb": "memory"}
    return ", ".join(f"{units[n]} {v:.3g}" for n, v in costs.items()) or "-"
