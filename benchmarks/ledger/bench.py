"""What the ledger costs, against plain INSERTs of the same rows into the same table with the same indexes.

Run: python benchmarks/ledger/bench.py [--quick] [--entries 1000000] [--json FILE] [--md FILE]

Plain and ledger rounds alternate, and the best round of each counts, so that a busy machine spoils the ratio little.
The plain table has the columns and indexes of ``entries``, and leaves written by ``json.dumps``; it has no hash, tree,
checkpoint, trigger, idempotency key or index of facts. Its writer commits as often as the ledger's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Column, Index, MetaData, Table, insert

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from safegen.ledger import Event, Ledger, verify_inclusion
from safegen.ledger.database import connect, parse_url, use_wal, writing
from safegen.ledger.entry import COLUMNS
from safegen.ledger.models import entries
from tests.postgres import database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TIME = "2026-01-01T00:00:00.000000Z"

plain = Table(
    "plain",
    MetaData(),
    *(
        Column(c.name, c.type, primary_key=c.primary_key, autoincrement=False)
        for c in entries.c
        if c.name != "leaf_hash"
    ),
)
for index in entries.indexes:
    Index(f"{index.name}_plain", *(plain.c[c.name] for c in index.columns))


def event(i: int) -> Event:
    digest = f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4
    same = f"{7:064x}"
    body = {
        "prompt_sha256": digest, "seed": i, "frames": 25, "fps": 16.0, "watermark": {"scheme": "x", "bits": 64},
        "decision": {"policy_id": "default", "scores": {"a": 0.0125, "b": 0.5, "c": 0.25}, "milliseconds": 12.5},
    }  # fmt: skip
    return Event("generated", digest[:16], body, digest, digest, "tiny", same, "allow")


def plain_row(i: int) -> dict[str, object]:
    e = event(i)
    columns = {name: getattr(e, name) for name in COLUMNS[1:]}
    leaf = json.dumps({"schema": "plain", "index": i, "time": TIME, **columns, "body": e.body}, sort_keys=True)
    return {"idx": i, "time": TIME, **columns, "leaf": leaf}


class Plain:
    """Plain INSERTs, by SQLAlchemy, into a database of their own."""

    def __init__(self, url: str) -> None:
        self.engine = connect(parse_url(url), create=True, read_only=False, busy_seconds=30)
        if url.startswith("sqlite"):
            use_wal(self.engine)
        with writing(self.engine) as connection:
            plain.metadata.create_all(connection)

    def append(self, first: int, count: int) -> None:
        rows = [plain_row(i) for i in range(first, first + count)]
        with writing(self.engine) as connection:
            connection.execute(insert(plain), rows)


def measure(action: Callable[[int], object], places: range) -> tuple[float, float]:
    """Return wall and CPU microseconds per item of these steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    for i in places:
        action(i)
    return (time.perf_counter() - wall) / len(places) * 1e6, (time.process_time() - cpu) / len(places) * 1e6


def compare(url: Callable[[str], str], batch: int, entries: int, rounds: int) -> dict[str, float]:
    """Best rounds of plain and ledger appends, ``batch`` entries a transaction."""
    baseline, places = Plain(url(f"plain{batch}")), entries // rounds // batch
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "ledger": []}
    with Ledger.open(url(f"ledger{batch}"), key=KEY) as ledger:
        ledger.append(Event("failed"))
        baseline.append(10**9, 1)
        for r in range(rounds):
            steps = range(r * places * batch, (r + 1) * places * batch, batch)
            taken["plain"].append(measure(lambda i: baseline.append(i, batch), steps))
            taken["ledger"].append(measure(lambda i: ledger.append_many(event(n) for n in range(i, i + batch)), steps))
    baseline.engine.dispose()
    wall, cpu = ([min(t[k] for t in taken[name]) / batch for name in ("plain", "ledger")] for k in (0, 1))
    return {
        "plain_wall_us": round(wall[0], 1), "ledger_wall_us": round(wall[1], 1),
        "wall_ratio": round(wall[1] / wall[0], 2),
        "plain_cpu_us": round(cpu[0], 1), "ledger_cpu_us": round(cpu[1], 1), "cpu_ratio": round(cpu[1] / cpu[0], 2),
        "plain_per_s": round(1e6 / wall[0]), "ledger_per_s": round(1e6 / wall[1]),
    }  # fmt: skip


def _write(kind: str, url: str, number: int, count: int, batch: int, seconds: float, told: object) -> None:
    """One writer process: appends until its time is up, and tells how long each took."""
    waits, first = [], (number + 1) * 10_000_000
    if kind == "plain":
        baseline = Plain(url)
        append: Callable[[int], object] = lambda i: baseline.append(i, batch)  # noqa: E731
    else:
        ledger = Ledger.open(url, key=KEY, mode="" if kind == "ledger" else kind)
        append = lambda i: ledger.append_many(event(n) for n in range(i, i + batch))  # noqa: E731
    append(first)
    told.wait()  # type: ignore[attr-defined]
    until = time.monotonic() + seconds
    while time.monotonic() < until and len(waits) < count:
        first += batch
        begun = time.perf_counter()
        append(first)
        waits.append(time.perf_counter() - begun)
    told.put(waits)  # type: ignore[attr-defined]


class _Told:
    """What writer processes share: a barrier to begin together, and a queue for their figures."""

    def __init__(self, parties: int) -> None:
        context = multiprocessing.get_context("fork")
        self.barrier, self.queue = context.Barrier(parties), context.Queue()
        self.wait, self.put = self.barrier.wait, self.queue.put


def writers(kind: str, url: str, number: int, seconds: float, batch: int = 1) -> dict[str, float]:
    """Several processes append one entry at a time."""
    if kind == "plain":
        Plain(url).engine.dispose()
    else:
        Ledger.open(url, key=KEY).close()
    told = _Told(number + 1)
    context = multiprocessing.get_context("fork")
    made = [context.Process(target=_write, args=(kind, url, n, 10**9, batch, seconds, told)) for n in range(number)]
    for one in made:
        one.start()
    told.wait()
    begun = time.perf_counter()
    waits = [w for _ in made for w in told.queue.get()]
    wall = time.perf_counter() - begun
    for one in made:
        one.join()
    cuts = statistics.quantiles(waits, n=100)
    return {
        "per_s": round(len(waits) * batch / wall), "p50_ms": round(cuts[49] * 1e3, 1),
        "p99_ms": round(cuts[98] * 1e3, 1), "max_ms": round(max(waits) * 1e3, 1),
    }  # fmt: skip


def grown(folder: Path, most: int) -> dict[str, object]:
    """A ledger of 1e4, 1e5 ... entries: proofs and verification at each size."""
    url, size, found = f"sqlite:///{folder / 'grown.db'}", 0, {}
    with Ledger.open(url, key=KEY) as ledger:
        step = 10_000
        while step <= most:
            begun, cpu, before = time.perf_counter(), time.process_time(), size
            while size < step:
                count = min(5000, step - size)
                ledger.append_many(event(n) for n in range(size, size + count))
                size += count
            filled = time.perf_counter() - begun, time.process_time() - cpu
            proofs = []
            for n in range(200):
                at = n * 7919 * 131 % size
                begun = time.perf_counter()
                proof = ledger.prove(at)
                proofs.append(time.perf_counter() - begun)
            assert verify_inclusion(proof, ledger.get(at).leaf, KEY.public_key())
            begun, cpu = time.perf_counter(), time.process_time()
            report = ledger.verify()
            assert report.ok, report.problems[:3]
            cuts = statistics.quantiles(proofs, n=100)
            found[str(size)] = {
                "append_per_s": round((size - before) / filled[0]),
                "append_cpu_us": round(filled[1] / (size - before) * 1e6, 1),
                "prove_p50_ms": round(cuts[49] * 1e3, 2), "prove_p99_ms": round(cuts[98] * 1e3, 2),
                "fsck_cpu_s": round(time.process_time() - cpu, 2), "fsck_wall_s": round(time.perf_counter() - begun, 2),
                "bytes_per_entry": round((folder / "grown.db").stat().st_size / size),
            }  # fmt: skip
            print(f"{size}: {found[str(size)]}", file=sys.stderr)
            step *= 10
    return found


@contextmanager
def postgres(folder: Path) -> Iterator[Callable[[str], str] | None]:
    """A database per name on a server that runs for this; None where there is none."""
    import contextlib

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(database("postgresql", folder))
        except BaseException as error:  # pytest's skip
            print(f"without PostgreSQL: {error}", file=sys.stderr)
            yield None
            return
        made: dict[str, str] = {}

        def url(name: str) -> str:
            return made.setdefault(name, stack.enter_context(database("postgresql", folder)))

        yield url


def run(folder: Path, quick: bool, most: int) -> dict[str, object]:
    def sqlite(name: str) -> str:
        return f"sqlite:///{folder / name}.db"

    scale, seconds = (1, 2.0) if quick else (3, 6.0)
    results: dict[str, object] = {"append": {}, "writers": {}}
    with postgres(folder) as server:
        for kind, url in {"sqlite": sqlite, "postgresql": server}.items():
            if url is None:
                continue
            for batch, count in {1: 400, 100: 5_000, 1000: 20_000}.items():
                results["append"][f"{kind}, {batch}"] = compare(url, batch, count * scale, 4)  # type: ignore[index]
                print(kind, batch, results["append"][f"{kind}, {batch}"], file=sys.stderr)  # type: ignore[index]
            modes = ("plain", "inline") if kind == "sqlite" else ("plain", "inline", "sequenced")
            for mode in modes:
                figures = writers(mode, url(f"eight-{mode}"), 8, seconds)
                results["writers"][f"{kind}, 8 writers, {mode}"] = figures  # type: ignore[index]
                print(kind, mode, figures, file=sys.stderr)
    results["growth"] = grown(folder, most)
    return results


def as_markdown(results: dict[str, object]) -> str:
    lines = [f"# What the ledger costs\n\n`{results['command']}`, {results['date']}, {results['machine']}, "
             f"{results['versions']}, load average {results['load_average']}\n"]  # fmt: skip
    for title, part in (("database, entries a transaction", "append"), ("writers", "writers"), ("entries", "growth")):
        table: dict[str, dict[str, object]] = results[part]  # type: ignore[assignment]
        names = list(next(iter(table.values())))
        lines.append(f"| {title} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
        lines += [f"| {row} | {' | '.join(str(v) for v in cells.values())} |" for row, cells in table.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    os.environ["SAFEGEN_TEST_POSTGRES_DURABLE"] = "1"  # a server that waits for its disk
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="shorter rounds")
    parser.add_argument("--entries", type=int, default=1_000_000, help="the largest ledger for proofs and verification")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--md", type=Path)
    args = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), args.quick, args.entries)
    results |= {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "load_average": [round(load, 1) for load in (*before, *os.getloadavg())],
    }
    text = json.dumps(results, indent=2)
    print(text)
    print(as_markdown(results))
    if args.json:
        args.json.write_text(text + "\n")
    if args.md:
        args.md.write_text(as_markdown(results) + "\n")


if __name__ == "__main__":
    main()
