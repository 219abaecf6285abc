"""Train a probe (docs/probes.md) for any pipeline from labelled prompts.

    python -m safegen.generators.training.probe --prompts prompts.jsonl --category NAME --name NAME --source latents

``prompts.jsonl`` has one ``{"prompt": text, "label": 0 or 1}`` per line: 1 where the clip would show what the category
means. Each prompt is given to the model with a seed of its own: for a text probe only its text encoder runs, for a
latent probe the first denoising steps. The probe and its card are written; the held-out part of the prompts, which it
never saw, says how good it is. Needs scikit-learn (the ``train`` extra).
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.errors import ConfigError, InputError, SafegenError
from safegen.generators import Card, load, resolve
from safegen.generators.loading import autocast, quiet
from safegen.generators.observing import Observer, bound_parts, latent_features, part_digest, text_features
from safegen.generators.training.probe_fit import check_labels, figures, fit, is_held_out
from safegen.policies.probes.probe_set import LATENTS, STOP_SCORE, TEXT_STATES, Probe, check_words
from safegen.types import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from safegen.watermark.layouts import ClipShape

# Imported where they are used: torch, and what loads it.

MAX_PROMPTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """One prompt, and whether its clip would show what the probe is to find."""

    prompt: str
    label: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train. ``steps`` are the numbers of denoising steps after which a latent probe is asked."""

    name: str
    category: str
    source: str
    part: str = "text_encoder"  # of a text probe
    steps: tuple[int, ...] = ()
    version: str = "1"
    false_stops: float = 0.01  # share of prompts with label 0 that may be stopped, over all steps
    held_out: float = 0.3  # share of the prompts
    notes: Mapping[str, Json] = field(default_factory=dict)

    @property
    def looks_at(self) -> str:
        """The part that the features come from."""
        return self.part if self.source == TEXT_STATES else "latents"


def read_prompts(path: Path) -> list[Labelled]:
    """Read labelled prompts, each once; InputError names the line at fault."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", remedy="Give a UTF-8 file of JSON lines.") from error
    rows: dict[str, Labelled] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
            prompt, label = entry["prompt"], entry["label"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f'{path.name}, line {number}: not {{"prompt": text, "label": 0 or 1}}') from error
        if not isinstance(prompt, str) or not prompt.strip() or label not in (0, 1):
            raise InputError(f"{path.name}, line {number}: a text and a label of 0 or 1 are needed")
        rows.setdefault(prompt, Labelled(prompt, bool(label)))
    if not 0 < len(rows) <= MAX_PROMPTS:
        raise InputError(f"{path.name} holds {len(rows)} prompts", remedy=f"Give 1 to {MAX_PROMPTS}.")
    return list(rows.values())


class _EnoughError(Exception):
    """All that was wanted has been seen; the rest of the run would be wasted."""


class Recorder(Observer):
    """Takes down the features of one run and then ends it."""

    def __init__(self, pipe: Any, shape: ClipShape, looks_at: str, steps: Sequence[int]) -> None:
        super().__init__(pipe, shape, (looks_at,))
        self._wanted = tuple(steps)
        self.features: list[Tensor] = []  # each [B, F]
        self.levels: list[float] = []

    def saw_text(self, part: str, states: Tensor, mask: Tensor) -> None:
        """Take down the text's features."""
        self.features.append(text_features(states, mask))
        raise _EnoughError

    def saw_step(self, step: int) -> None:
        """Take down the clean latents' features at the wanted steps."""
        if step in self._wanted:
            self.features.append(latent_features(self.clean(step)))
            self.levels.append(self.steps()[self.position(step)].level)
        if step >= max(self._wanted, default=0):
            raise _EnoughError


def record(pipe: Any, call: Mapping[str, Any], prompt: str, seed: int, plan: Plan) -> Recorder:
    """Run ``pipe`` on one prompt for as long as the plan's features need, and return them. Raises InputError."""
    import torch

    from safegen.watermark.layouts import call_shape

    recorder = Recorder(pipe, call_shape(pipe, call), plan.looks_at, plan.steps)

    def on_step_end(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        recorder.on_step_end(step)
        return tensors

    generator = torch.Generator("cpu").manual_seed(seed)
    try:
        with quiet(), torch.no_grad(), autocast(pipe), recorder.attached():
            pipe(prompt=prompt, generator=generator, callback_on_step_end=on_step_end, output_type="latent", **call)
    except _EnoughError:
        return recorder
    raise InputError(
        f"{type(pipe).__name__} never came to what the probe looks at",
        remedy="Name a text encoder that it has, or steps that the call takes.",
    )


def collect(
    pipe: Any,
    call: Mapping[str, Any],
    rows: Sequence[Labelled],
    plan: Plan,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Return float32 features [prompts, rows of the probe, F], and the noise levels of the plan's steps.

    The i-th prompt is drawn with seed i. Raises InputError or GeneratorError where the model does not fit the plan.
    """
    import torch

    if not bound_parts(pipe, plan.looks_at):
        raise InputError(f"{type(pipe).__name__} has no {plan.looks_at}", remedy="Name one of its text encoders.")
    found = []
    levels: tuple[float, ...] = ()
    for seed, row in enumerate(rows):
        recorder = record(pipe, call, row.prompt, seed, plan)
        levels = tuple(recorder.levels)
        found.append(torch.cat(recorder.features).cpu().numpy())
        progress(seed + 1, len(rows))
    return np.stack(found).astype(np.float32), levels


def train(
    pipe: Any, features: NDArray[np.float32], levels: tuple[float, ...], rows: Sequence[Labelled], plan: Plan
) -> tuple[Probe, dict[str, Json]]:
    """Fit and calibrate a probe, and return it with its figures on the held-out prompts. Raises InputError."""
    labels = np.array([row.label for row in rows])
    kept = np.array([is_held_out(row.prompt, plan.held_out) for row in rows])
    check_labels(labels[~kept].tolist(), "training")
    check_labels(labels[kept].tolist(), "held-out")
    per_step = plan.false_stops / features.shape[1]  # so that all steps together stop no more than allowed
    fits = [fit(features[~kept, row], labels[~kept], per_step) for row in range(features.shape[1])]
    probe = Probe(
        name=plan.name, version=plan.version, source=plan.source, part=plan.looks_at, category=plan.category,
        threshold=STOP_SCORE, steps=plan.steps, levels=levels,
        binds={name: part_digest(getattr(pipe, name)) for name in bound_parts(pipe, plan.looks_at)},
        weight=np.stack([f.weight for f in fits]), bias=np.array([f.bias for f in fits], np.float32),
        notes=dict(plan.notes),
    )  # fmt: skip
    scores = np.stack([probe.scores(features[:, row], row) for row in range(len(fits))], axis=1)
    report: dict[str, Json] = {
        "training": {"prompts": int((~kept).sum()), "with_concept": int(labels[~kept].sum())},
        "calibrated_for_false_stops": plan.false_stops,
        "held_out": figures(scores[kept].max(axis=1), labels[kept], probe.threshold),
        "per_row": [
            {
                **({"step": plan.steps[row], "noise_level": round(levels[row], 4)} if plan.steps else {}),
                "strength": f.strength,
                "cross_validated_auroc": round(f.auroc, 4),
                "held_out": figures(scores[kept, row], labels[kept], probe.threshold),
            }
            for row, f in enumerate(fits)
        ],
    }
    return probe, report


def circumstances(arguments: Sequence[str]) -> dict[str, Json]:
    """Return the command, machine and date of a measurement."""
    import torch

    return {
        "command": " ".join(["python", *arguments]),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        check_words(options.name, options.category)
        if importlib.util.find_spec("sklearn") is None:
            raise ConfigError("training needs scikit-learn", remedy='Install it: pip install "safegen[train]".')
        rows = read_prompts(options.prompts)
        ref = resolve(options.model)
        call = Card.read(ref).resolve(steps=options.of_steps)
        steps = tuple(sorted(set(options.steps))) if options.source == LATENTS else ()
        if steps and not 1 <= steps[0] <= steps[-1] <= call["num_inference_steps"]:
            raise InputError(f"steps {steps} are not among the call's {call['num_inference_steps']}")
        if not 0 < options.false_stops < 0.5:
            raise InputError(f"a share of {options.false_stops} false stops is not possible")
        plan = Plan(options.name, options.category, options.source, options.part, steps, options.version,
                    options.false_stops, notes={"model": ref.name, "note": options.note})  # fmt: skip
        pipe = load(ref, device=options.device)
        start = perf_counter()
        features, levels = collect(pipe, call, rows, plan, _progress)
        seconds = perf_counter() - start
        probe, report = train(pipe, features, levels, rows, plan)
        about = circumstances(["-m", "safegen.generators.training.probe", *given]) | {
            "model": ref.name, "call": {k: v for k, v in call.items() if isinstance(v, int | float | str)},
            "category": plan.category, "source": plan.source, "note": options.note,
            "seconds_of_sampling": round(seconds, 1), **report,
        }  # fmt: skip
        path = probe.save(options.output, about)
        sys.stdout.write(json.dumps({"probe": str(path), **about}, indent=1) + "\n")
    except SafegenError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return error.exit_code
    except ValueError as error:  # a name or category that the file format refuses
        sys.stderr.write(f"{error}\n")
        return InputError.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m safegen.generators.training.probe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--prompts", type=Path, required=True, help="JSON Lines: prompt, label (0 or 1)")
    parser.add_argument("--name", required=True, help="what the probe is called: lower-case letters, digits, hyphens")
    parser.add_argument("--category", required=True, help="the policy's category that label 1 stands for")
    parser.add_argument("--source", choices=(TEXT_STATES, LATENTS), required=True, help="what the probe looks at")
    parser.add_argument("--model", default="tiny", help="tiny, a diffusers folder, or a hub id")
    parser.add_argument("--part", default="text_encoder", help="text encoder of a text probe")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[2, 4], help="steps after which a latent probe is asked"
    )
    parser.add_argument("--of-steps", type=int, help="steps of a whole run; the model's card decides if not given")
    parser.add_argument("--false-stops", type=float, default=0.01, help="share of harmless prompts that may be stopped")
    parser.add_argument("--version", default="1", help="version of the probe")
    parser.add_argument("--note", default="", help="one sentence about what the probe is, for its card")
    parser.add_argument("--device", help="cpu, cuda; chosen if not given")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the probe and its card")
    return parser


def _progress(done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        sys.stderr.write(f"{done} of {total} prompts\n")


if __name__ == "__main__":
    raise SystemExit(main())
