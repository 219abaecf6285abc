"""Does the clip mark's reader ever speak where there is no mark? Many trials, in three sizes.

    python -m benchmarks.watermark.trials [--windows 2000] [--readings 4000] [--samples 100000] [--clips 40]

*Windows*: real frames (unmarked clips of the embedded model, edited by turns; drawn noise, textures, stripes, shapes;
other keys' marked clips), read in full but for the search of places, which the robustness benchmark's trials make.
*Readings*: samples of such clips against other keys, decoded as the reader does (three placements, lists of eight).
*Samples*: the same, cheaper: the likeliest placement, the best codeword. Writes results/trials.json and .md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark import nulls
from benchmarks.watermark.attacks import ATTACKS, Context
from benchmarks.watermark.codecs import Frames
from benchmarks.watermark.run import NULL_VARIANTS
from benchmarks.watermark.schemes import LatentResidual, Studio
from safegen.types import Clip
from safegen.watermark import base, ecc
from safegen.watermark.clip import alignment, extraction, pattern, reading
from safegen.watermark.payload import Payload, from_bits, unpack

SEEDS = 7000
KEYS = 200
"""Keys of the cheap trials; each is tried on every clip's samples."""


def key_of(number: int) -> bytes:
    """A key that marked nothing."""
    return hashlib.sha256(f"trial key {number}".encode()).digest()


def material(clips: int) -> Iterator[tuple[str, Frames]]:
    """Clips that no key of ``key_of`` marked, without end: the model's own by turns with drawn ones."""
    studio = Studio()
    scheme = LatentResidual(studio)
    made = [scheme.generate(SEEDS + n) for n in range(clips)]
    number = 0
    while True:
        own = made[number % clips]
        variant = NULL_VARIANTS[number // clips % len(NULL_VARIANTS)]
        clip = Clip(own.twin, studio.fps)
        yield f"unmarked, {variant}", ATTACKS[variant](clip, 20_000 + number, Context()).frames
        yield nulls.foreign(5000 + number)
        yield "marked under another key", own.marked
        number += 1


def windows(source: Iterator[tuple[str, Frames]], count: int) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """Read ``count`` windows; return the tally and every clip's samples."""
    found = dict.fromkeys(base.MarkStatus, 0)
    kinds: dict[str, int] = {}
    largest, kept = 0.0, []
    for number in range(count):
        kind, frames = next(source)
        frames = np.ascontiguousarray(frames)
        outcome = extraction.extract_frames(frames, key_of(number), look=False)
        found[outcome.status] += 1
        largest = max(largest, outcome.statistic)
        kinds[kind.split(",")[0]] = kinds.get(kind.split(",")[0], 0) + 1
        samples = reading.samples(reading.moving(reading.to_canvas(frames)), alignment.untouched(len(frames)))
        if np.any(samples):
            kept.append(samples)
        if number % 100 == 99:
            print(f"windows: {number + 1} of {count}, largest statistic {largest:.2f}", flush=True)
    tally = {"trials": count, "kinds": kinds, "largest_statistic": largest, **{str(s): n for s, n in found.items()}}
    return tally, kept


def best_words(sums: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The best codeword of each row of ``sums`` [N, 369], as bits [N, 112], and its score: Viterbi for N at once.

    What ecc.decode(row, list_size=1) gives, several times quicker.
    """
    steps, states = sums.shape[1] // 3, 1 << ecc.MEMORY
    soft = sums.reshape(len(sums), steps, 3).astype(np.float32)
    outputs = ecc._outputs().T.astype(np.float32)
    score = np.full((len(sums), states), -np.inf, np.float32)
    score[:, 0] = 0
    came = np.empty((steps, len(sums), states), np.bool_)
    for step in range(steps):
        # States s and s + states / 2 both come from 2s and 2s + 1 (modulo the number of states).
        gains = (soft[:, step] @ outputs).reshape(len(sums), 2, states // 2, 2)
        both = score.reshape(len(sums), 1, states // 2, 2) + gains
        zero, one = (both[..., n].reshape(len(sums), states) for n in (0, 1))
        came[step] = one > zero
        score = np.maximum(zero, one)
        if step >= steps - ecc.MEMORY:
            score[:, states // 2 :] = -np.inf
    rows, at = np.arange(len(sums)), np.zeros(len(sums), np.int64)
    bits = np.empty((len(sums), steps), np.uint8)
    for step in reversed(range(steps)):
        bits[:, step] = at >> (ecc.MEMORY - 1)
        at = ((at << 1) & (states - 1)) | came[step, rows, at]
    return bits[:, : -ecc.MEMORY], score[:, 0].astype(np.float64)


def full_readings(kept: list[NDArray[np.float32]], count: int) -> dict[str, Any]:
    """Decode ``count`` pairs of samples and keys as the reader does."""
    tally = Tally()
    for number in range(count):
        key = key_of(1_000_000 + number * KEYS // count)  # a key's placements take longer to lay than to decode
        statistic, payload, _ = extraction.decode_samples(kept[number % len(kept)], key)
        tally.add(statistic, payload)
        if number % 1000 == 999:
            print(f"readings: {number + 1} of {count}, largest {tally.largest:.2f}", flush=True)
    return tally.to_json()


def cheap_readings(kept: list[NDArray[np.float32]], count: int) -> dict[str, Any]:
    """The same with the likeliest placement and the best codeword alone, a key's pairs at once."""
    tally = Tally()
    each = -(-count // KEYS)
    for number in range(KEYS):
        key = key_of(2_000_000 + number)
        placement = pattern.place(key)
        chosen = [kept[(number * each + n) % len(kept)] for n in range(min(each, count - number * each))]
        all_sums = [placement.sums(samples) for samples in chosen]
        sums = np.stack([s[(s**2).sum(axis=1).argmax()] for s in all_sums])
        parts = [best_words(sums[n : n + 64]) for n in range(0, len(sums), 64)]
        bits, scores = (np.concatenate([p[n] for p in parts]) for n in (0, 1))
        for word, score, samples in zip(bits, scores, chosen, strict=True):
            tally.add(float(score) / placement.norm(samples), unpack(from_bits(word), key))
        if number % 20 == 19:
            print(f"samples: {tally.trials} of {count}, largest {tally.largest:.2f}", flush=True)
    return tally.to_json()


class Tally:
    """Counts what trials say."""

    def __init__(self) -> None:
        self.trials, self.largest = 0, 0.0
        self.found = dict.fromkeys(base.MarkStatus, 0)

    def add(self, statistic: float, payload: Payload | None) -> None:
        """One more trial."""
        outcome = base.conclude(pattern.SCHEME, statistic, payload, 1, {}, placements=pattern.NONCES)
        self.trials += 1
        self.found[outcome.status] += 1
        self.largest = max(self.largest, statistic)

    def to_json(self) -> dict[str, Any]:
        """The counts."""
        counts = {str(s): n for s, n in self.found.items()}
        return {"trials": self.trials, "keys": KEYS, "largest_statistic": self.largest, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--readings", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=40, help="clips that the model draws")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    tally, kept = windows(material(options.clips), options.windows)
    result = {
        "command": "python -m benchmarks.watermark.trials " + " ".join(sys.argv[1:]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "thresholds": {"present": base.threshold(pattern.NONCES), "verified": base.threshold(1, 64)},
        "windows": tally,
        "readings": full_readings(kept, options.readings),
        "samples": cheap_readings(kept, options.samples),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "trials.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.out / "trials.md").write_text(markdown(result), encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    """trials.md."""
    lines = [
        "# Trials without a mark",
        "",
        f"`{result['command'].strip()}`, {result['date']}, {result['machine']}",
        "",
        "| trials | number | verified | present | largest statistic |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in ("windows", "readings", "samples"):
        tally = result[name]
        lines.append(
            f"| {name} | {tally['trials']} | {tally['verified']} | {tally['present']} | "
            f"{tally['largest_statistic']:.2f} |"
        )
    limits = result["thresholds"]
    lines += [
        "",
        f"PRESENT asks for {limits['present']:.2f} and more, VERIFIED for {limits['verified']:.2f} and a MAC.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
