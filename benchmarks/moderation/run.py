"""Measure the moderation engine on the held-out part of a folder of labelled prompts, and its speed.

    python benchmarks/moderation/run.py --data FOLDER [--pack default] [--output results/FILE.json]

FOLDER is the one that ``python -m safegen.policies.train`` was given: the same split is made, and only its test part
is judged. The report holds figures, never prompts.
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

import numpy as np

from safegen.policies.engine import Engine, Request
from safegen.policies.train import Row, read_rows, split
from safegen.types import Action, Decision

RESULTS = Path(__file__).parent / "results"


def shares(decisions: Sequence[Decision]) -> dict[str, float]:
    """Return which share of the decisions took each action."""
    number = Counter(d.action for d in decisions)
    return {"n": len(decisions), **{str(a): round(number[a] / max(len(decisions), 1), 4) for a in Action}}


def disguises() -> dict[str, Callable[[str], str]]:
    """Return ways to write a text so that a careless word filter misses it."""
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


def accuracy(engine: Engine, rows: Sequence[Row]) -> dict[str, object]:
    """Return the actions taken per source and category, and after each disguise."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        kind = "unsafe" if row.unsafe else "look-alike" if row.lookalike else "benign"
        groups.setdefault(f"{row.source}/{kind}", []).append(row.text)
        if row.unsafe or row.lookalike:
            groups.setdefault(f"{row.source}/{kind}/{row.category.split('/')[-1]}", []).append(row.text)
    report: dict[str, object] = {"actions": {k: shares(engine.judge_many(v)) for k, v in sorted(groups.items())}}
    unsafe = [row.text for row in rows if row.unsafe and row.source == "OVERT"]
    held = [t for t, d in zip(unsafe, engine.judge_many(unsafe), strict=True) if d.action.stops][:150]
    benign = [row.text for row in rows if row.source == "VBench"][:300]
    report["stopped_after_disguise"] = {
        name: {
            "unsafe_that_were_stopped_plain": shares(engine.judge_many([change(t) for t in held])),
            "benign_video": shares(engine.judge_many([change(t) for t in benign])),
        }
        for name, change in disguises().items()
    }
    return report


def speed(engine: Engine, rows: Sequence[Row]) -> dict[str, float]:
    """Return milliseconds: one prompt, the longest prompt, a batch, one clip."""
    singles = []
    for row in rows[:300]:
        began = time.perf_counter()
        engine.judge(Request(row.text))
        singles.append((time.perf_counter() - began) * 1000)
    longest = " ".join(row.text for row in rows)[:10_000]
    began = time.perf_counter()
    engine.judge(Request(longest))
    long_ms = (time.perf_counter() - began) * 1000
    batch = [row.text for row in rows] * (1 + 10_000 // len(rows))
    began = time.perf_counter()
    engine.judge_many(batch[:10_000])
    batch_s = time.perf_counter() - began
    clip = np.random.default_rng(0).integers(0, 256, (25, 192, 192, 3), dtype=np.uint8)
    began = time.perf_counter()
    engine.judge_frames(clip, 16.0)
    first = time.perf_counter() - began
    began = time.perf_counter()
    decision = engine.judge_frames(clip, 16.0)
    return {
        "prompt_median_ms": float(np.median(singles)),
        "prompt_p95_ms": float(np.quantile(singles, 0.95)),
        "prompt_of_10000_characters_ms": long_ms,
        "batch_of_10000_prompts_s": batch_s,
        "clip_25_frames_first_time_ms": first * 1000,
        "clip_25_frames_ms": (time.perf_counter() - began) * 1000,
        "frames_looked_at": float(decision.classifiers[0].detail.split(" ")[0]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", default="default")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = read_rows(options.data)
    test = [row for row, part in zip(rows, split(rows), strict=True) if part == 0]
    began = time.perf_counter()
    engine = Engine.load(options.pack)
    load_ms = (time.perf_counter() - began) * 1000
    report = {
        "command": f"python benchmarks/moderation/run.py --data FOLDER --pack {options.pack}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}",
        "policy": {"id": engine.pack.id, "version": engine.pack.version, "sha256": engine.pack.sha256},
        "test_rows": len(test),
        "load_ms": load_ms,
        **accuracy(engine, test),
        "speed": speed(engine, test),
    }
    text = json.dumps(report, indent=2)
    (options.output or RESULTS / f"engine-{options.pack}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
