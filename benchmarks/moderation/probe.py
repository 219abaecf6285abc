"""Train the probes that ship for the embedded model, and measure what probes can see of its little world.

    python benchmarks/moderation/probe.py [--prompts 1000] [--output benchmarks/moderation/results/probe.json]

The embedded model draws solids on grounds under skies and nothing that a policy is about, so the shipped probes find a
stand-in: scenes on water. Others of its concepts are measured beside it and not shipped. Every prompt is drawn with a
seed of its own; figures are of prompts and seeds that a probe never saw.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import safegen
from safegen.errors import BlockedError
from safegen.generators import Card, load, resolve
from safegen.generators.observing import part_digest
from safegen.generators.training.probe import Labelled, Plan, circumstances, collect, train
from safegen.generators.training.probe_fit import figures, fit, is_held_out
from safegen.keys import KeyStore
from safegen.policies.probes.probe_set import LATENTS, SHIPPED, STOP_SCORE, TEXT_STATES
from safegen.settings import Home
from safegen.tinymodel.training.vocabulary import COLORS, GROUNDS, SHAPES, SKIES
from safegen.tinymodel.training.world import captions

RESULTS = Path(__file__).parent / "results" / "probe.json"
STEPS = (1, 2, 3, 4)
SHIPPED_STEPS = (1, 4)
CATEGORY = "stand_in_water"
NOTE = "A stand-in: scenes on water, for the embedded model draws nothing that a policy is about."
FALSE_STOPS = 0.01
SEED = 5
CONCEPTS: Mapping[str, Sequence[str]] = {
    "water (ground)": GROUNDS["water"].words,
    "snow (ground)": GROUNDS["snow"].words,
    "night (sky)": SKIES["night"].words,
    "red (colour of a thing)": COLORS["red"][1],
    "ball (shape of a thing)": SHAPES["ball"],
}
TIMED = 5


def holds(prompt: str, words: Sequence[str]) -> bool:
    return any(re.search(rf"\b{re.escape(w)}\b", prompt.lower()) for w in words)


def measured(
    features: NDArray[np.float32], labels: NDArray[np.bool_], train_on: NDArray[np.bool_], test_on: NDArray[np.bool_]
) -> dict[str, Any]:
    """Fit one row on some prompts and return its figures on others."""
    row = fit(features[train_on], labels[train_on], FALSE_STOPS)
    scores = 1 / (1 + np.exp(-(features[test_on].astype(np.float64) @ row.weight + row.bias).clip(-60, 60)))
    return figures(scores, labels[test_on], STOP_SCORE)


def concepts(prompts: Sequence[str], text: NDArray[np.float32], latents: NDArray[np.float32]) -> dict[str, Any]:
    """How well each concept is seen in the hidden states and after each step."""
    held_out = np.array([is_held_out(p, 0.3) for p in prompts])
    report: dict[str, Any] = {}
    for name, words in CONCEPTS.items():
        labels = np.array([holds(p, words) for p in prompts])
        rows = {TEXT_STATES: text[:, 0]} | {f"after step {s}": latents[:, i] for i, s in enumerate(STEPS)}
        report[name] = {where: measured(f, labels, ~held_out, held_out) for where, f in rows.items()}
    return report


def other_wordings(prompts: Sequence[str], text: NDArray[np.float32], latents: NDArray[np.float32]) -> dict[str, Any]:
    """Water, trained without one of its wordings and tested on that one."""
    words = GROUNDS["water"].words
    held_out = np.array([is_held_out(p, 0.3) for p in prompts])
    labels = np.array([holds(p, words) for p in prompts])
    report: dict[str, Any] = {}
    for wording in words:
        new = np.array([holds(p, [wording]) for p in prompts])
        train_on, test_on = ~held_out & ~new, (held_out & ~labels) | new
        report[wording] = {
            TEXT_STATES: measured(text[:, 0], labels, train_on, test_on),
            "after step 1": measured(latents[:, 0], labels, train_on, test_on),
        }
    return report


def run_once(pipe: Any, call: Mapping[str, Any], prompt: str, probes: Sequence[Path], home: Home) -> dict[str, float]:
    """Generate once: the processors' seconds, the encoder's among them; steps spent; milliseconds of the probes.

    Not the clock's seconds: other work may run beside this.
    """

    def clock() -> float:
        return sum(os.times()[:4])

    with tempfile.TemporaryDirectory() as folder:
        safe = safegen.protect(pipe, home=home, probes=probes)
        start = clock()
        try:
            made = safe(prompt, output=Path(folder) / "clip.mp4", seed=1, **call)
        except BlockedError as stopped:
            seconds = clock() - start
            asked = stopped.decision.milliseconds
            where = next(r.view for r in stopped.decision.reasons).split()
            return {
                "cpu_seconds": seconds,
                "steps": float(where[2]) if where[0] == "after" else 0.0,
                "probes_ms": asked,
            }
        decision = made.probes_decision
        return {
            "cpu_seconds": clock() - start,
            "steps": float(call["num_inference_steps"]),
            "probes_ms": 0.0 if decision is None else decision.milliseconds,
        }


def saved(pipe: Any, call: Mapping[str, Any], prompts: Sequence[str], text: Path, latents: Path) -> dict[str, Any]:
    """What whole runs take, runs that a probe stops, and what asking costs where it stops nothing."""
    wet = [p for p in prompts if holds(p, GROUNDS["water"].words) and is_held_out(p, 0.3)][:TIMED]
    dry = [p for p in prompts if not holds(p, GROUNDS["water"].words) and is_held_out(p, 0.3)][:TIMED]
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        KeyStore.init(home)
        run_once(pipe, call, dry[0], (), home)  # the first run loads what later ones share
        kinds: dict[str, tuple[Sequence[str], tuple[Path, ...]]] = {
            "not stopped, without probes": (dry, ()),
            "not stopped, both probes asked": (dry, (text, latents)),
            "stopped by the text probe": (wet, (text, latents)),
            "stopped by the latent probe": (wet, (latents,)),
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
        for i in range(TIMED):  # in turn, for other work may run beside it
            for name, (asked_of, probes) in kinds.items():
                runs[name].append(run_once(pipe, call, asked_of[i], probes, home))
    middle = {
        name: {k: round(statistics.median(r[k] for r in found), 3) for k in found[0]} for name, found in runs.items()
    }
    whole = middle["not stopped, without probes"]["cpu_seconds"]
    for name, figure in middle.items():
        if name.startswith("stopped"):
            figure["share_of_cpu_time_saved"] = round(1 - figure["cpu_seconds"] / whole, 3)
            figure["share_of_steps_saved"] = round(1 - figure["steps"] / call["num_inference_steps"], 3)
    asked = middle["not stopped, both probes asked"]
    start = time.process_time()
    for part in ("text_encoder", "transformer", "vae"):
        part_digest(getattr(pipe, part))
    asked["compare_weights_ms"] = round(1000 * (time.process_time() - start), 3)
    spent = (asked["probes_ms"] + asked["compare_weights_ms"]) / 1000
    asked["share_of_time_for_probes"] = round(spent / asked["cpu_seconds"], 5)
    return {"runs_each": TIMED, "medians": middle}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    options = parser.parse_args()
    ref = resolve("tiny")
    pipe, call = load(ref), Card.read(ref).resolve()
    prompts = list(dict.fromkeys(captions(options.prompts, SEED)))
    rows = [Labelled(p, holds(p, GROUNDS["water"].words)) for p in prompts]

    def progress(done: int, total: int) -> None:
        if done % 100 == 0:
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    plans = {
        TEXT_STATES: Plan("tiny-water-text", CATEGORY, TEXT_STATES, false_stops=FALSE_STOPS, notes={"note": NOTE}),
        LATENTS: Plan(
            "tiny-water-latents", CATEGORY, LATENTS, steps=SHIPPED_STEPS, false_stops=FALSE_STOPS, notes={"note": NOTE}
        ),
    }
    about = circumstances(["benchmarks/moderation/probe.py", f"--prompts {options.prompts}"])
    text, _ = collect(pipe, call, rows, plans[TEXT_STATES])
    latents, levels = collect(pipe, call, rows, Plan("all", CATEGORY, LATENTS, steps=STEPS), progress)
    kept = [STEPS.index(s) for s in SHIPPED_STEPS]
    paths, cards = {}, {}
    for source, (features, noise) in {
        TEXT_STATES: (text, ()),
        LATENTS: (latents[:, kept], tuple(levels[i] for i in kept)),
    }.items():
        probe, report = train(pipe, features, noise, rows, plans[source])
        cards[source] = {"category": CATEGORY, "source": source, "model": ref.name, "note": NOTE, **report}
        paths[source] = probe.save(options.weights, about | cards[source])
    report = about | {
        "model": ref.name,
        "prompts": len(prompts),
        "noise_levels": dict(zip(map(str, STEPS), (round(v, 4) for v in levels), strict=True)),
        "shipped": cards,
        "concepts_on_held_out_prompts_and_seeds": concepts(prompts, text, latents),
        "water_in_wordings_not_trained_on": other_wordings(prompts, text, latents),
        "time": saved(pipe, call, prompts, paths[TEXT_STATES], paths[LATENTS]),
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
