"""How well does the mark survive? Every attack on every clip, for our schemes and others, and trials without a mark.

    python -m benchmarks.watermark.run --work FOLDER [--clips 100] [--peer-clips 10] [--first-seed 2000]
        [--schemes latent-residual pixel dwtDct dwtDctSvd rivaGan] [--lists seal temporal bench vidsig ours]
        [--null 200] [--redraw] [--other-vae FOLDER] [--minutes M]

Run it from the repository's root. It can be stopped at any time and continues where it was: clips, their twins and one
line per (clip, scheme, attack) lie in ``--work``. Results of other versions of a scheme's reader are made again, unless
--accept-older; clips are not, so take another work folder after a change to an embedder or to the model. Writes
benchmark.json, benchmark.md and two plots to ``--out``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.watermark import edits, nulls, plots, report
from benchmarks.watermark.attacks import ATTACKS, LISTS, Attack, Context, UnavailableError, chosen
from benchmarks.watermark.codecs import Frames
from benchmarks.watermark.meter import Meter
from benchmarks.watermark.schemes import KEY, SCHEMES, Reading, Scheme, Studio, content_id, make_scheme
from benchmarks.watermark.store import Store
from safegen.types import Clip
from safegen.watermark.schemes import DEFAULT_SCHEME

NULL_VARIANTS = (
    "identity",
    "h264_crf30",
    "crop_0.71",
    "filmed_screen",
    "noise_0.05",
    "trim_50",
    "av1_crf50",
    "speed_2",
)
"""What happens to our own unmarked clips before they are read; clips take turns, then variants."""
FORGERY_CLIPS = 16
MOST_CLIPS_AVERAGED = 64


def read(scheme: Scheme, frames: Frames, key: bytes = KEY) -> tuple[Reading, dict[str, Any]]:
    """Read a mark; a reader that fails has found none, and the row says why."""
    with Meter() as meter:
        try:
            found, error = scheme.read(np.array(frames), key), {}
        except Exception as exc:  # a crash on attacked frames is a result of this benchmark, not its end
            found, error = Reading(None, "error"), {"error": f"{type(exc).__name__}: {exc}"[:300]}
    return found, {"read": meter.costs, **error}


class Bench:
    """One run: the schemes that are there, the clips, the attacks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.studio = Studio(options.model)
        self.store = Store(options.work, self.studio)
        self.seeds = range(options.first_seed, options.first_seed + options.clips)
        self.attacks = chosen(options.lists)
        self.deadline = time.monotonic() + 60 * options.minutes
        self.schemes: list[Scheme] = []
        self.missing: dict[str, str] = {}  # scheme or attack: why it did not run
        for name in options.schemes:
            try:
                self.schemes.append(make_scheme(name, self.studio))
            except (ImportError, FileNotFoundError) as error:
                self.missing[name] = f"not available: {error}"
        self.code = {s.name: s.fingerprint() for s in self.schemes}

    def current(self, scheme: Scheme) -> str | None:
        """The code that a result must come from to count."""
        return None if self.options.accept_older else self.code[scheme.name]

    def seeds_of(self, scheme: Scheme) -> range:
        """The clips that this scheme marks: those that ours is compared with, one of which is slow, mark fewer."""
        return self.seeds if scheme.name == DEFAULT_SCHEME else self.seeds[: self.options.peer_clips]

    def work(self) -> bool:
        """Do all that is not done yet; False if the time ran out first."""
        for job in (*self._attacks(), *self._nulls()):
            if time.monotonic() > self.deadline:
                return False
            job()
        return True

    def _attacks(self) -> Iterator[Callable[[], None]]:
        for seed in self.seeds:
            for scheme in self.schemes:
                if seed in self.seeds_of(scheme):
                    yield partial(self._attack_clip, scheme, seed)

    def _attack_clip(self, scheme: Scheme, seed: int) -> None:
        done = partial(self.store.rows.has, code=self.current(scheme))
        waiting = [a for a in self.attacks if not done(seed, scheme.name, a.name)]
        context = self._context(scheme, seed) if waiting else Context()
        exact, began = 0, time.perf_counter()
        for attack in waiting:
            if time.monotonic() > self.deadline:
                return
            exact += self._attack(scheme, seed, attack, context)
        if waiting:
            spent = time.perf_counter() - began
            print(f"seed {seed} {scheme.name}: {exact} of {len(waiting)} exact, {spent:.1f} s", flush=True)

    def _attack(self, scheme: Scheme, seed: int, attack: Attack, context: Context) -> bool:
        marked, info = self.store.marked(scheme, seed)
        start = time.perf_counter()
        try:
            attacked = attack(Clip(marked, self.studio.fps), seed, context)
        except UnavailableError as error:
            self.missing[attack.name] = str(error)
            return False
        spent = time.perf_counter() - start
        found, costs = read(scheme, attacked.frames)
        row = {"seed": seed, "scheme": scheme.name, "attack": attack.name, "code": self.code[scheme.name]}
        judged = found.judged(info["payload"])
        if "other" in attack.name:
            judged["other_found"] = scheme.payload(self._neighbour(scheme, seed, 1)) in judged["found"]
        self.store.rows.add({**row, **judged, "attack_s": round(spent, 4), **costs})
        return bool(judged["exact"])

    def _neighbour(self, scheme: Scheme, seed: int, step: int) -> int:
        """Another clip of the run; where there are too few, one beyond them."""
        seeds = self.seeds_of(scheme)
        return seeds[(seed - seeds[0] + step) % len(seeds)] if len(seeds) > step else seed + step

    def _pairs(self, scheme: Scheme, seed: int, count: int) -> list[tuple[Frames, Frames]]:
        others = [s for s in self.seeds_of(scheme) if s != seed][:count]
        return [(self.store.marked(scheme, s)[0], self.store.twin(s)) for s in others]

    def _context(self, scheme: Scheme, seed: int) -> Context:
        names = {a.name for a in self.attacks}
        context = Context(mark_again=scheme.mark_again)
        if any("other" in n or "unmarked" in n for n in names):
            other, unmarked = (self._neighbour(scheme, seed, step) for step in (1, 2))
            context = dataclasses.replace(
                context, other=self.store.marked(scheme, other)[0], unmarked=self.store.twin(unmarked)
            )
        if any(n.startswith("averaged_") for n in names):
            context = dataclasses.replace(context, pairs=self._pairs(scheme, seed, MOST_CLIPS_AVERAGED))
        if self.options.redraw:
            context = dataclasses.replace(context, redraw=self.studio.redraw, own_vae=self.studio.through_vae)
        if self.options.other_vae:
            context = dataclasses.replace(context, other_vae=self._other_vae)
        return context

    def _other_vae(self, frames: Frames) -> Frames:
        from safegen.watermark.fastvae import load_vae

        if not hasattr(self, "_vae"):
            self._vae = load_vae(self.options.other_vae)
        return self.studio.through_vae(frames, self._vae)

    def _nulls(self) -> Iterator[Callable[[], None]]:
        for number in range(self.options.null):
            for scheme in self.schemes:
                if scheme.name != DEFAULT_SCHEME and number >= self.options.peer_clips:
                    continue  # peers always answer; these trials only confirm the binomial law of chance
                yield partial(self._null, scheme, "unmarked", number, self._unmarked)
                yield partial(self._null, scheme, "foreign", number, lambda _s, n: (*nulls.foreign(n), KEY))
                if scheme.keyed:
                    yield partial(self._null, scheme, "wrong_key", number, self._wrong_key)
                    if number < len(self.seeds_of(scheme)) > 2:
                        yield partial(self._null, scheme, "forged_by_averaging", number, self._forged)

    def _null(
        self, scheme: Scheme, kind: str, number: int, material: Callable[[Scheme, int], tuple[str, Frames, bytes]]
    ) -> None:
        if self.store.nulls.has(kind, number, scheme.name, code=self.current(scheme)):
            return
        detail, frames, key = material(scheme, number)
        found, costs = read(scheme, frames, key)
        # Readers without a key always answer; the payload that they are held against is drawn anew for every trial.
        judged = found.judged(content_id(1_000_000 + number)[: len(scheme.payload(0))])
        row = {"kind": kind, "number": number, "scheme": scheme.name, "code": self.code[scheme.name], "detail": detail}
        self.store.nulls.add({**row, **judged, **costs})

    def _unmarked(self, _scheme: Scheme, number: int) -> tuple[str, Frames, bytes]:
        seed = self.seeds[number % len(self.seeds)]
        variant = NULL_VARIANTS[number // len(self.seeds) % len(NULL_VARIANTS)]
        clip = ATTACKS[variant](Clip(self.store.twin(seed), self.studio.fps), 10_000 + number)
        return variant, clip.frames, KEY

    def _wrong_key(self, scheme: Scheme, number: int) -> tuple[str, Frames, bytes]:
        seeds = self.seeds_of(scheme)
        seed = seeds[number % len(seeds)]
        return "", self.store.marked(scheme, seed)[0], hashlib.sha256(f"another key {number}".encode()).digest()

    def _forged(self, scheme: Scheme, number: int) -> tuple[str, Frames, bytes]:
        """The average of other clips' marks put onto an unmarked clip: does it pass for marked?"""
        seed = self.seeds[number]
        pairs = self._pairs(scheme, seed, FORGERY_CLIPS)
        residue = edits.mean_residue(pairs, len(pairs))
        return f"{len(pairs)} clips", edits.subtract(self.store.twin(seed), -residue), KEY

    def results(self) -> dict[str, Any]:
        """Everything that benchmark.json says."""
        names = {a.name for a in self.attacks}
        rows = [
            r
            for r in self.store.rows.rows.values()
            if r["seed"] in self.seeds and r["attack"] in names and self._counts(r)
        ]
        trials = [r for r in self.store.nulls.rows.values() if r["number"] < self.options.null and self._counts(r)]
        clips = {
            s.name: [i for seed in self.seeds_of(s) if (i := self._known(f"{s.name}-{seed}")) is not None]
            for s in self.schemes
        }
        twins = [i for seed in self.seeds if (i := self._known(f"twin-{seed}")) is not None]
        head = {
            "command": "python -m benchmarks.watermark.run " + " ".join(sys.argv[1:]),
            "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "model": self.options.model,
            "clips": len(self.seeds),
            "peer_clips": min(len(self.seeds), self.options.peer_clips),
            "first_seed": self.seeds[0],
            "code": self.code,
            "not_run": self.missing,
        }
        encode = self.store.encode_costs(self.seeds[0])
        lists = {name: [a.name for a in LISTS[name]] for name in self.options.lists}
        return {**head, **report.summarise(rows, trials, clips, twins, encode, lists)}

    def _known(self, name: str) -> dict[str, Any] | None:
        return self.store.info(name) if (self.store.folder / f"{name}.npy").is_file() else None

    def _counts(self, row: dict[str, Any]) -> bool:
        """Whether a row belongs to a scheme of this run and to its present code."""
        return row["scheme"] in self.code and (self.options.accept_older or row["code"] == self.code[row["scheme"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for clips and rows")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--peer-clips", type=int, default=10, help="clips, and trials, of the other schemes")
    parser.add_argument("--first-seed", type=int, default=2000)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--lists", nargs="+", choices=list(LISTS), default=list(LISTS))
    parser.add_argument("--null", type=int, default=200, help="trials without a mark, of each kind and scheme")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--redraw", action="store_true", help="also redraw clips with the model and its VAE (slow)")
    parser.add_argument("--other-vae", help="folder of another VAE to send clips through")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after that long; run again to go on")
    parser.add_argument("--accept-older", action="store_true", help="count results of other versions of the readers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    bench = Bench(options)
    finished = bench.work()
    results = {"finished": finished, **bench.results()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmark.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (options.out / "benchmark.md").write_text(report.markdown(results), encoding="utf-8")
    plots.write(results, options.out)
    print(f"{'finished' if finished else 'stopped, run again to go on'}: {options.out / 'benchmark.md'}")


if __name__ == "__main__":
    main()
