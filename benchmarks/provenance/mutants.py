"""Spoilt files by the thousand: does reading ever crash, and does it say what the C2PA library alone says?

    python benchmarks/provenance/mutants.py [--count 10000] [--files DIR] [--out DIR]

Seeds are small MP4, MOV, PNG and JPEG files signed by both writers, and with ``--files`` the media files there. Each
mutant (a flipped bit, anywhere or in a box of a kind drawn first; a cut, anywhere or at a box's edge; a size that lies,
of 32 or 64 bits; bytes deleted, zeroed, appended; a box doubled) is read by ``read_credential`` and by ``c2pa.Reader``
with its defaults but for trust and the network; the two Credentials must be equal, code for code. Every other mutant of
an MP4 or MOV is read as if it were large, with our own hard binding. Mutants are read in processes of their own, so
that a crash of the library is seen and counted. The number of a mutant determines it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from writer import processor  # noqa: E402 - found beside this file

BATCH = 250
SUFFIXES = {".mp4", ".mov", ".m4a", ".heic", ".avif", ".png", ".jpg", ".jpeg", ".webp", ".wav", ".avi", ".gif"}
P99_MS = 250


def child(folder: Path, seeds: list[str], anchors: str, first: int, count: int) -> None:
    """Print one line of JSON per mutant; the number of the present one stands in ``current``."""
    from safegen.provenance import examining, hard_binding
    from safegen.provenance.read import read_credential
    from tests.unit.provenance.reading_samples import mutate, reference

    ordinary = examining.LARGE
    for number in range(first, first + count):
        (folder / "current").write_text(str(number))
        chance = random.Random(number)
        seed = Path(chance.choice(seeds))
        mutant = mutate(seed.read_bytes(), chance)
        path = folder / f"mutant{seed.suffix}"
        path.write_bytes(mutant.content)
        hard_binding.LARGE = examining.LARGE = 0 if number % 2 else ordinary
        start = time.perf_counter()
        found = read_credential(path, trust_anchors_pem=anchors)
        seconds = time.perf_counter() - start
        same = found == reference(path, anchors)
        print(json.dumps([number, seed.name, mutant.how, str(found.state), same, round(seconds, 6)]), flush=True)


def run(count: int, files: Path | None) -> dict[str, Any]:
    from safegen.keys import KeyStore
    from safegen.settings import Home
    from tests.unit.provenance.reading_samples import make_seeds

    lines: list[list[Any]] = []
    crashes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = KeyStore.init(Home(folder / "home"))
        seeds = make_seeds(folder / "seeds", keys)
        own = len(seeds)
        if files is not None:
            seeds += sorted(p for p in files.iterdir() if p.suffix in SUFFIXES)
        number = 0
        while number < count:
            task = [str(folder), [str(s) for s in seeds], keys.root_pem, number, min(BATCH, count - number)]
            done = subprocess.run(
                [sys.executable, __file__, "--child"], input=json.dumps(task), capture_output=True, text=True
            )
            lines += [json.loads(line) for line in done.stdout.splitlines()]
            number = lines[-1][0] + 1 if lines else 0
            if done.returncode:
                crashes.append({"mutant": int((folder / "current").read_text()), "code": done.returncode,
                                "error": done.stderr[-300:]})  # fmt: skip
                number = crashes[-1]["mutant"] + 1
    times = sorted(line[5] for line in lines)
    slowest = max(lines, key=lambda line: line[5])
    return {
        "mutants": count,
        "seeds": {"signed by us": own, "public files": len(seeds) - own},
        "read": len(lines),
        "crashes": crashes,
        "different": [line for line in lines if not line[4]],
        "states": dict(Counter(line[3] for line in lines)),
        "by kind": {how: dict(Counter(x[3] for x in lines if x[2] == how)) for how in sorted({x[2] for x in lines})},
        "milliseconds": {
            "median": round(1e3 * times[len(times) // 2], 2),
            "p99": round(1e3 * times[int(len(times) * 0.99)], 1),
            "most": round(1e3 * times[-1], 1),
            "slowest": slowest[:3],
        },
    }


def markdown(found: dict[str, Any]) -> str:
    ms, states = found["milliseconds"], sorted(found["states"])
    lines = [
        "# Spoilt files",
        "",
        f"`{found['command']}`, {found['date']}, {found['machine']}; load {found['load'][0]:.1f}. c2pa-python "
        f"{found['c2pa-python']}. {found['note']}".rstrip(),
        "",
        "| what | figure | wanted |",
        "|---|---|---|",
        f"| mutants of {sum(found['seeds'].values())} files | {found['mutants']:,} | 10,000 |",
        f"| crashes | {len(found['crashes'])} | 0 |",
        f"| Credentials that differ from what c2pa-python alone reports | {len(found['different'])} | 0 |",
        f"| ms: median, 99th percentile, most | {ms['median']}, {ms['p99']}, {ms['most']} | 99th < {P99_MS} |",
        "",
        "| kind | " + " | ".join(states) + " |",
        "|---|" + "---|" * len(states),
    ]
    for how, counted in found["by kind"].items():
        lines.append(f"| {how} | " + " | ".join(str(counted.get(s, 0)) for s in states) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        folder, seeds, anchors, first, count = json.load(sys.stdin)
        child(Path(folder), seeds, anchors, first, count)
        return
    import importlib.metadata

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", default="")
    arguments = parser.parse_args()
    files = " --files DIR" if arguments.files else ""
    found: dict[str, Any] = {
        "command": f"python benchmarks/provenance/mutants.py --count {arguments.count}{files}",
        "date": dt.date.today().isoformat(),
        "machine": f"{processor()}, {platform.system()}, Python {platform.python_version()}",
        "c2pa-python": importlib.metadata.version("c2pa-python"),
        "load": os.getloadavg(),
        "note": arguments.note,
    }
    found |= run(arguments.count, arguments.files)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "mutants.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "mutants.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
