"""Measure moderation of prompts: the classifier that ships alone, and the whole engine under a pack, and their speed.

    python benchmarks/moderation/run.py --data FOLDER [--pack default]

FOLDER is the one that ``python -m safegen.policies.training.train`` was given: the same rows are held out, and only
those are judged, beside ``hand_written.jsonl``. Reports hold figures, never prompts. Figures come with 95 % bootstrap
intervals [value, low, high].
"""

from __future__ import annotations

import argparse
import base64
import codecs
import datetime
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.policies.engine.engine import Engine, Request
from safegen.policies.text.encoder import FLAG, WEIGHTS, EncoderClassifier
from safegen.policies.text.views import fold, views_of
from safegen.policies.training.measure import auroc, figures, share
from safegen.policies.training.rows import Row, collection, origin, read_rows, split
from safegen.policies.training.templates import read_grammar
from safegen.policies.training.train import role
from safegen.types import Action, Decision

HERE = Path(__file__).parent
DISGUISED = 60  # prompts of each kind that are disguised in every way
JUDGED = 150  # prompts of each collection that go through the whole engine
BATCHES = (1, 4, 16, 64, 256)


def disguises() -> dict[str, Callable[[str], str]]:
    """Return ways to write a text so that a careless guard misses it."""
    cyrillic = str.maketrans("aceopxy", "асеорху")
    leet = str.maketrans("aeios", "43105")
    wide = {ord(c): chr(ord(c) + 0xFEE0) for c in "abcdefghijklmnopqrstuvwxyz"}
    return {
        "leet": lambda t: t.translate(leet),
        "homoglyph": lambda t: t.translate(cyrillic),
        "zero_width": "\u200b".join,
        "spaced": lambda t: "  ".join(" ".join(word) for word in t.split()),
        "dotted": lambda t: " ".join(".".join(word) for word in t.split()),
        "full_width": lambda t: t.translate(wide),
        "combining": lambda t: "".join(c + "\u0336" for c in t),
        "base64": lambda t: base64.b64encode(t.encode()).decode(),
        "rot13": lambda t: codecs.encode(t, "rot13"),
        "reversed": lambda t: t[::-1],
    }


def actions(decisions: Sequence[Decision]) -> dict[str, float]:
    """Return which share of the decisions took each action."""
    number = Counter(d.action for d in decisions)
    return {"n": len(decisions), **{str(a): round(number[a] / max(len(decisions), 1), 4) for a in Action}}


def top(encoder: EncoderClassifier, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return each text's highest score of any category, over all its views, as the engine would see it."""
    found = encoder.score([views_of(t) for t in texts])
    return np.array([max((h.score for h in hits), default=0.0) for hits in found], np.float32)


def hand_written_rows() -> list[dict[str, Any]]:
    """Return the prompts written by hand for this benchmark. No training saw any.

    Those of the set "development" were looked at while the templates grew; those of "test" were not.
    """
    return [json.loads(line) for line in (HERE / "hand_written.jsonl").read_text(encoding="utf-8").splitlines()]


def hand_written(encoder: EncoderClassifier, engine: Engine, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return figures on prompts written by hand."""
    scores = top(encoder, [r["text"] for r in rows])
    unsafe, kind = np.array([r["label"] == 1 for r in rows]), np.array([r["category"] for r in rows])
    decided = engine.judge_many([r["text"] for r in rows])
    per_kind = {
        name: {"reach_flag": share(scores[kind == name] >= FLAG), "engine": actions([
            d for d, k in zip(decided, kind, strict=True) if k == name
        ])}
        for name in sorted(set(kind))
    }  # fmt: skip
    recalls = [v["reach_flag"][0] for name, v in per_kind.items() if not name.startswith("benign")]
    return {
        "n": len(rows),
        "auroc": auroc(scores[unsafe], scores[~unsafe]),
        "benign_that_reach_flag": share(scores[~unsafe] >= FLAG),
        "macro_recall_at_flag": round(float(np.mean(recalls)), 4),
        "kinds": per_kind,
    }


def disguised(encoder: EncoderClassifier, engine: Engine, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what is left of recall, and what comes of benign prompts, after each disguise."""
    written = [r["text"] for r in hand_written_rows() if r["label"] == 1]
    unsafe = [*written, *(r.text for r in rows if r.unsafe and r.source == "OVERT")]
    unsafe = unsafe[:: max(1, len(unsafe) // DISGUISED)][:DISGUISED]
    benign = [r.text for r in rows if collection(r) == "VBench"][::11][:DISGUISED]
    report = {}
    for name, change in {"plain": str, **disguises()}.items():
        bad, good = [change(t) for t in unsafe], [change(t) for t in benign]
        report[name] = {
            "unsafe_reach_flag": round(float((top(encoder, bad) >= FLAG).mean()), 4),
            "benign_reach_flag": round(float((top(encoder, good) >= FLAG).mean()), 4),
            "engine_unsafe": actions(engine.judge_many(bad)),
            "engine_benign": actions(engine.judge_many(good)),
        }
    return report


def engine_actions(engine: Engine, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the actions that the engine takes per collection."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        kind = "unsafe" if row.unsafe else "look-alike" if row.lookalike else "benign"
        groups.setdefault(f"{collection(row)}/{kind}", []).append(row.text)
    picked = {name: texts[:: max(1, len(texts) // JUDGED)][:JUDGED] for name, texts in sorted(groups.items())}
    return {name: actions(engine.judge_many(texts)) for name, texts in picked.items()}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return milliseconds on the clock and of this process's processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000


def clock(work: Callable[[], object]) -> dict[str, float]:
    """Return milliseconds as an entry of the report."""
    wall, cpu = timed(work)
    return {"wall": round(wall, 2), "cpu": round(cpu, 2)}


def speed(encoder: EncoderClassifier, engine: Engine, rows: Sequence[Row]) -> dict[str, Any]:
    """Return milliseconds: one prompt through encoder and engine, the longest prompt, batches, one clip."""
    texts = [r.text for r in rows[:: max(1, len(rows) // 150)]][:150]
    engine.judge(Request(texts[0]))
    alone = np.array([timed(lambda t=t: encoder.score([views_of(t)])) for t in texts])  # type: ignore[misc]
    chain = np.array([timed(lambda t=t: engine.judge(Request(t))) for t in texts])  # type: ignore[misc]
    longest = " ".join(r.text for r in rows)[:10_000]
    clip = np.random.default_rng(0).integers(0, 256, (25, 192, 192, 3), dtype=np.uint8)
    engine.judge_frames(clip, 16.0)
    curve = {}
    for size in BATCHES:
        batch = (texts * (1 + size // len(texts)))[:size]
        wall, cpu = timed(lambda b=batch: engine.judge_many(b))  # type: ignore[misc]
        curve[str(size)] = {"wall_ms_a_prompt": round(wall / size, 2), "cpu_ms_a_prompt": round(cpu / size, 2)}

    def spread(times: NDArray[np.float64]) -> dict[str, float]:
        return {
            "wall_median": round(float(np.median(times[:, 0])), 2),
            "wall_p95": round(float(np.quantile(times[:, 0], 0.95)), 2),
            "cpu_median": round(float(np.median(times[:, 1])), 2),
            "cpu_p95": round(float(np.quantile(times[:, 1], 0.95)), 2),
        }

    return {
        "words_median": float(np.median([len(t.split()) for t in texts])),
        "encoder_ms": spread(alone),
        "engine_ms": spread(chain),
        "prompt_of_10000_characters_ms": clock(lambda: engine.judge(Request(longest))),
        "clip_of_25_frames_ms": clock(lambda: engine.judge_frames(clip, 16.0)),
        "batches": curve,
        "load_avg": os.getloadavg()[0],
    }  # fmt: skip


def pair(value: Sequence[float] | None) -> str:
    """Return a figure with its interval as text."""
    return "-" if value is None else f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


def _written(name: str, part: dict[str, Any]) -> list[str]:
    """Return the tables of one set of hand-written prompts."""
    lines = [
        "",
        f"## Prompts written by hand: {name}",
        "",
        f"AUROC {pair(part['auroc'])}; benign that reach a flag {pair(part['benign_that_reach_flag'])}; "
        f"macro recall {part['macro_recall_at_flag']:.3f}.",
        "",
        "| kind | n | reach flag | engine: flag | review | block |",
        "|---|---|---|---|---|---|",
    ]
    for kind, entry in part["kinds"].items():
        done = entry["engine"]
        cells = " | ".join(f"{done[a]:.2f}" for a in ("flag", "review", "block"))
        lines.append(f"| {kind} | {done['n']} | {pair(entry['reach_flag'])} | {cells} |")
    return lines


def markdown(report: dict[str, Any]) -> str:
    """Return the report as tables for people."""
    own, written, fast = report["classifier"], report["hand_written"], report["speed"]
    lines = [
        "# Moderation of prompts, measured",
        "",
        f"{report['date']}, {report['machine']}. `{report['command']}`. In brackets: 95 % bootstrap intervals.",
        "",
        "## The classifier alone, rows held out of training",
        "",
        "| collection | n | reach flag | review | block |",
        "|---|---|---|---|---|",
    ]
    for title, part in (("benign", own["benign"]), ("unsafe", own["unsafe"])):
        for name, entry in part.items():
            cells = " | ".join(pair(entry[f"reach_{level}"]) for level in ("flag", "review", "block"))
            lines.append(f"| {title}: {name} | {entry['n']} | {cells} |")
    lines += ["", "| unsafe prompts of | AUROC against benign video prompts |", "|---|---|"]
    lines += [f"| {name} | {pair(e['auroc_against_benign_video'])} |" for name, e in own["unsafe"].items()]
    lines += [
        f"| all | {pair(own['auroc_unsafe_against_benign_video'])} |",
        f"| OVERT, against its look-alikes | {pair(own['auroc_overt_unsafe_against_lookalikes'])} |",
    ]
    for name, part in written.items():
        lines += _written(name, part)
    lines += [
        "",
        "## Disguises",
        "",
        "| disguise | unsafe reach flag | benign reach flag | engine stops unsafe | benign |",
    ]
    lines.append("|---|---|---|---|---|")
    for name, entry in report["disguises"].items():
        stops = [entry[k]["review"] + entry[k]["block"] for k in ("engine_unsafe", "engine_benign")]
        lines.append(
            f"| {name} | {entry['unsafe_reach_flag']:.3f} | {entry['benign_reach_flag']:.3f} "
            f"| {stops[0]:.3f} | {stops[1]:.3f} |"
        )
    lines += [
        "",
        "## The whole engine, held-out rows",
        "",
        "| prompts | n | flag | review | block |",
        "|---|---|---|---|---|",
    ]
    for name, done in report["engine"].items():
        lines.append(f"| {name} | {done['n']} | {done['flag']:.3f} | {done['review']:.3f} | {done['block']:.3f} |")
    lines += [
        "",
        "## Speed",
        "",
        f"Encoder {fast['encoder_ms']['cpu_median']} ms, whole engine {fast['engine_ms']['cpu_median']} ms of one "
        f"core's time a prompt (95 %: {fast['encoder_ms']['cpu_p95']}, {fast['engine_ms']['cpu_p95']}); on the clock, "
        f"other work running beside it (load {fast['load_avg']:.1f}): {fast['engine_ms']['wall_median']} ms.",
        "",
        "| prompts at once | ms of one core a prompt |",
        "|---|---|",
        *(f"| {size} | {entry['cpu_ms_a_prompt']} |" for size, entry in fast["batches"].items()),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", default="default")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the encoder's weights")
    parser.add_argument("--output", type=Path, help="folder of the reports")
    options = parser.parse_args()
    rows = read_rows(options.data)
    grammar = read_grammar()
    card = json.loads((options.weights / "encoder.json").read_text(encoding="utf-8"))
    roles = [role(r, p, card["left_out"]) for r, p in zip(rows, split(rows), strict=True)]
    test = [r for r, use in zip(rows, roles, strict=True) if use == "test"]
    load_ms = clock(lambda: EncoderClassifier.load(options.weights))
    encoder, engine = EncoderClassifier.load(options.weights), Engine.load(options.pack)
    scores = encoder.probabilities([fold(r.text).text for r in test])
    report: dict[str, Any] = {
        "command": f"python benchmarks/moderation/run.py --data FOLDER --pack {options.pack}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}",
        "policy": {"id": engine.pack.id, "version": engine.pack.version, "sha256": engine.pack.sha256},
        "weights": {"version": encoder.version, "sha256": encoder.weights_sha256},
        "test_rows": len(test),
        "load_ms": load_ms,
        "classifier": figures(test, scores, card["heads"], [origin(r, grammar) for r in test]),
        "hand_written": {
            name: hand_written(encoder, engine, [r for r in hand_written_rows() if r["set"] == name])
            for name in ("test", "development")
        },
        "disguises": disguised(encoder, engine, test),
        "engine": engine_actions(engine, test),
        "speed": speed(encoder, engine, test),
    }
    folder = options.output or HERE / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"prompts-{options.pack}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    (folder / f"prompts-{options.pack}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
