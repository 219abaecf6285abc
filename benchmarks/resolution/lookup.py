"""How long it takes to find a manifest by its soft binding among a million: SQLite, one process.

    nice -n 5 python benchmarks/resolution/lookup.py --rows 1000000

Builds a ledger database in a temporary folder (rows of the form that appends write, put in directly, for a million
signed checkpoints would take hours), then looks up bindings drawn at random, each through ``Ledger.find_binding`` as
the service does: index row, entry, comparison of the two. The same look-ups in a ledger of a thousand rows are the
yardstick: the ratio says what size costs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.ledger import Event, Ledger
from safegen.ledger.bindings import binding_of
from safegen.ledger.entry import encode_leaf
from safegen.ledger.merkle import leaf_hash
from safegen.types import soft_binding_alg

ALG = soft_binding_alg("latent-residual")
RESULTS = Path(__file__).parent / "results"
SMALL = 1000
BATCH = 10_000


def content_id(number: int) -> str:
    """The content id of an entry: random, and the same in every run."""
    return f"{random.Random(number).getrandbits(64):016x}"


def build(path: Path, rows: int) -> None:
    """A ledger of ``rows`` generated entries, and their bindings, without tree and checkpoints."""
    url = f"sqlite:///{path}"
    Ledger.open(url, key=Ed25519PrivateKey.generate()).close()
    time_ = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).isoformat()
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("DROP TRIGGER entries_only_append")  # it looks for the last entry at every insert
        for start in range(0, rows, BATCH):
            entries, bindings = [], []
            for index in range(start, min(start + BATCH, rows)):
                body = {"mark": {"scheme": "latent-residual"}, "manifest_id": f"urn:c2pa:{index:036d}"}
                event = Event("generated", content_id(index), body)
                leaf = encode_leaf(event, index, time_)
                entries.append((index, time_, "generated", event.content_id, leaf.decode(), leaf_hash(leaf).hex()))
                binding = binding_of(index, event)
                assert binding is not None
                bindings.append((binding.entry, binding.alg, binding.value, binding.manifest_id))
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO entries (idx, time, kind, content_id, leaf, leaf_hash) VALUES (?, ?, ?, ?, ?, ?)", entries
            )
            db.executemany("INSERT INTO soft_bindings (entry, alg, value, manifest_id) VALUES (?, ?, ?, ?)", bindings)
            db.execute("COMMIT")


def timed(look_up: Callable[[int], int], rows: int, times: int) -> list[float]:
    """Milliseconds of each of ``times`` look-ups of entries drawn at random; every answer is checked."""
    draw = random.Random(1)
    wanted = [draw.randrange(rows) for _ in range(times)]
    took = []
    for number in wanted:
        start = time.perf_counter()
        found = look_up(number)
        took.append(1000 * (time.perf_counter() - start))
        assert found == 1
    return took


def measure(path: Path, rows: int, times: int) -> dict[str, dict[str, float]]:
    """Look-ups by binding, by manifest, and of a binding that is not there."""
    with Ledger.open(f"sqlite:///{path}", create=False, read_only=True) as ledger:

        def by_binding(number: int) -> int:
            found = ledger.find_binding(ALG, content_id(number), limit=10)
            return len([b for b in found if b.entry == number])

        def by_manifest(number: int) -> int:
            found = ledger.find_manifest(f"urn:c2pa:{number:036d}")
            return int(found is not None and found.entry == number)

        def absent(number: int) -> int:
            return 1 - len(ledger.find_binding(ALG, content_id(rows + 1 + number), limit=10))

        by_binding(0)  # the statement is compiled once
        looks = {"by binding": by_binding, "by manifest id": by_manifest, "a binding that is not there": absent}
        return {name: summary(timed(look, rows, times)) for name, look in looks.items()}


def summary(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        "median_ms": round(statistics.median(ordered), 4),
        "p99_ms": round(ordered[int(0.99 * len(ordered))], 4),
        "max_ms": round(ordered[-1], 4),
    }


def report(result: dict[str, object]) -> str:
    rows: int = result["rows"]  # type: ignore[assignment]
    lines = [
        "# Look-up of soft bindings",
        "",
        f"`{result['command']}`, {result['date']}, {result['machine']}; niceness"
        f" {result['nice']}, load {result['load']}, page cache warm.",
        f"{rows:,} bindings in {result['database_mb']} MB of SQLite, {result['times']} look-ups each, drawn at random.",
        "",
        f"| look-up | median | p99 | slowest | median among {SMALL:,} | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, large in result["large"].items():  # type: ignore[attr-defined]
        small = result["small"][name]  # type: ignore[index]
        lines.append(
            f"| {name} | {large['median_ms']:.2f} ms | {large['p99_ms']:.2f} ms | {large['max_ms']:.2f} ms"
            f" | {small['median_ms']:.2f} ms | {large['median_ms'] / small['median_ms']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="safegen-lookup-") as folder:
        large, small = Path(folder) / "large.db", Path(folder) / "small.db"
        start = time.perf_counter()
        build(large, chosen.rows)
        built = time.perf_counter() - start
        build(small, SMALL)
        measure(small, SMALL, 200)  # warm up
        result: dict[str, object] = {
            "command": f"python benchmarks/resolution/lookup.py --rows {chosen.rows} --times {chosen.times}",
            "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
            f" SQLite {sqlite3.sqlite_version}",
            "nice": os.nice(0),
            "load": round(os.getloadavg()[0], 1),
            "rows": chosen.rows,
            "times": chosen.times,
            "database_mb": round(sum(p.stat().st_size for p in Path(folder).glob("large.db*")) / 1e6),
            "build_seconds": round(built, 1),
            "small": measure(small, SMALL, chosen.times),
            "large": measure(large, chosen.rows, chosen.times),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "lookup.json").write_text(json.dumps(result, indent=1) + "\n")
    (chosen.out / "lookup.md").write_text(report(result))
    sys.stdout.write(report(result))


if __name__ == "__main__":
    main()
