"""What the ledger costs, against plain INSERTs of the same rows into the same table with the same indexes.

Run: python benchmarks/ledger/bench.py [--quick] [--entries 1000000] [--json FILE] [--md FILE]

Plain and ledger rounds alternate, and the best round of each counts (of several writers at once the median, and the
longest wait of all), so that a busy machine spoils the ratio little.
The plain table has the columns and indexes of ``entries``, and leaves written by ``json.dumps``; it has no hash, tree,
checkpoint or trigger, and looks for no earlier entry. Its writer commits as often as the ledger's. A second baseline
("look-ups") also fills the tables that the ledger answers auditors and recovery from: facts, daily counts, soft
bindings and pieces of video hashes; against it stands what being provable costs, and nothing else.

An entry is about 700 bytes, with three facts; "clips" are entries as a generated, marked and signed clip has them:
about 1.5 kB, with a soft binding, 40 pieces of video hashes and four facts.
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
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Column, Index, MetaData, Table, insert, text

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from safegen.ledger import Event, Ledger, bindings, facts, likeness_index, verify_inclusion
from safegen.ledger.database import connect, parse_url, use_wal, writing
from safegen.ledger.entry import COLUMNS
from safegen.ledger.models import entries, hash_bands, soft_bindings
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
once = plain.c.kind == "generated"
Index("uq_plain", plain.c.content_id, unique=True, sqlite_where=once, postgresql_where=once)
lookups = MetaData()
for table in (facts.entry_facts, facts.daily_counts, soft_bindings, hash_bands):
    table.to_metadata(lookups)
count = text(str(facts.COUNT))


def event(i: int) -> Event:
    digest = f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4
    same = f"{7:064x}"
    body = {
        "prompt_sha256": digest, "seed": i, "frames": 25, "fps": 16.0, "watermark": {"scheme": "x", "bits": 64},
        "decision": {"policy_id": "default", "scores": {"a": 0.0125, "b": 0.5, "c": 0.25}, "milliseconds": 12.5},
    }  # fmt: skip
    return Event("generated", digest[:16], body, digest, digest, "tiny", same, "allow")


def clip(i: int) -> Event:
    """What the pipeline records of a clip, in shape and size."""
    made = event(i)
    windows = [f"{(i * 4 + n) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" * 2 for n in range(4)]
    mark = {"scheme": "latent-residual", "content_id": made.content_id, "bits": 112, "p_value": 1e-9, "psnr": 40.5,
            "fingerprint": windows[0] * 4, "video_hash": windows}  # fmt: skip
    signature = {"signer": "file:/srv/keys/signer.pem", "leaf_sha256": f"{9:064x}", "alg": "es256"}
    body = {**made.body, "mark": mark, "signature": signature, "manifest_id": f"urn:c2pa:{windows[1][:32]}"}
    return replace(made, body=body)


def refusal(i: int) -> Event:
    """What the pipeline records of a prompt that it refused: no asset, and so nothing at a random place of an index."""
    decision = {"policy_id": "default", "scores": {"a": 0.0125, "b": 0.5}, "milliseconds": 12.5}
    return Event("blocked", body={"seed": i, "decision": decision}, policy_sha256=f"{7:064x}", action="block")


def plain_row(i: int, e: Event) -> dict[str, object]:
    columns = {name: getattr(e, name) for name in COLUMNS[1:]}
    leaf = json.dumps({"schema": "plain", "index": i, "time": TIME, **columns, "body": e.body}, sort_keys=True)
    return {"idx": i, "time": TIME, **columns, "leaf": leaf}


class Plain:
    """Plain INSERTs, by SQLAlchemy, into a database of their own."""

    def __init__(self, url: str, make: Callable[[int], Event] = event, *, more: bool = False) -> None:
        self._make = make
        self._more = more  # the look-ups too
        self.engine = connect(parse_url(url), create=True, read_only=False, busy_seconds=30)
        if url.startswith("sqlite"):
            use_wal(self.engine)
        with writing(self.engine) as connection:
            plain.metadata.create_all(connection)
            if more:
                lookups.create_all(connection)

    def append(self, first: int, number: int) -> None:
        made = [(i, self._make(i)) for i in range(first, first + number)]
        rows = [plain_row(i, e) for i, e in made]
        found = self._looked_by(made) if self._more else {}
        with writing(self.engine) as connection:
            connection.execute(insert(plain), rows)
            for name, those in found.items():
                columns = lookups.tables[name].c.keys()
                if those:
                    given = [dict(zip(columns, row, strict=True)) for row in those]
                    connection.execute(insert(lookups.tables[name]), given)
            if self._more:
                connection.execute(count, facts.counts_of(facts.day_of(TIME, e) for _, e in made))

    def _looked_by(self, made: list[tuple[int, Event]]) -> dict[str, list[tuple[object, ...]]]:
        bound = [bindings.binding_of(i, e) for i, e in made]
        return {
            "entry_facts": [row for i, e in made for row in facts.rows_of(i, e)],
            "soft_bindings": [one.row() for one in bound if one is not None],
            "hash_bands": [row for i, e in made for row in likeness_index.rows_of(i, e)],
        }


APPENDS = ((1, 400, event), (100, 5_000, event), (1000, 20_000, event), (1, 400, clip), (1000, 8_000, clip))


def measure(action: Callable[[int], object], places: range) -> tuple[float, float]:
    """Return wall and CPU microseconds per item of these steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    for i in places:
        action(i)
    return (time.perf_counter() - wall) / len(places) * 1e6, (time.process_time() - cpu) / len(places) * 1e6


def compare(
    url: Callable[[str], str], batch: int, entries: int, rounds: int, make: Callable[[int], Event] = event
) -> dict[str, float]:
    """Best rounds of plain and ledger appends, ``batch`` entries a transaction."""
    tag, places = f"{make.__name__}{batch}", entries // rounds // batch
    plains = {"plain": Plain(url(f"plain-{tag}"), make), "lookups": Plain(url(f"lookups-{tag}"), make, more=True)}
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "lookups": [], "ledger": []}
    with Ledger.open(url(f"ledger-{tag}"), key=KEY) as ledger:
        ledger.append(Event("failed"))
        for one in plains.values():
            one.append(10**9, 1)
        for r in range(rounds):
            steps = range(r * places * batch, (r + 1) * places * batch, batch)
            for name, one in plains.items():
                taken[name].append(measure(lambda i, one=one: one.append(i, batch), steps))  # type: ignore[misc]
            taken["ledger"].append(measure(lambda i: ledger.append_many(make(n) for n in range(i, i + batch)), steps))
    for one in plains.values():
        one.engine.dispose()
    best = {name: [min(t[k] for t in those) / batch for k in (0, 1)] for name, those in taken.items()}
    found: dict[str, float] = {}
    for k, what in enumerate(("wall", "cpu")):
        found |= {f"{name}_{what}_us": round(best[name][k], 1) for name in best}
        found |= {f"{what}_ratio": round(best["ledger"][k] / best["plain"][k], 2)}
        found |= {f"{what}_ratio_lookups": round(best["ledger"][k] / best["lookups"][k], 2)}
    return found | {f"{name}_per_s": round(1e6 / best[name][0]) for name in ("plain", "ledger")}


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
    """A ledger of 1e4, 1e5 ... entries: proofs and verification at each size.

    Beyond a million they are refusals, whose indexes grow at their ends: proofs and verification are what is measured.
    """
    url, size, found = f"sqlite:///{folder / 'grown.db'}", 0, {}
    with Ledger.open(url, key=KEY) as ledger:
        step = 10_000
        while step <= most:
            begun, cpu, before = time.perf_counter(), time.process_time(), size
            make = event if step <= 1_000_000 else refusal
            while size < step:
                number = min(5000, step - size)
                ledger.append_many(make(n) for n in range(size, size + number))
                size += number
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
                "filled_with": f"{make.__name__}s", "append_per_s": round((size - before) / filled[0]),
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

    scale, seconds = (1, 1.0) if quick else (3, 3.0)
    results: dict[str, object] = {"append": {}, "writers": {}}
    with postgres(folder) as server:
        for kind, url in {"sqlite": sqlite, "postgresql": server}.items():
            if url is None:
                continue
            for batch, number, make in APPENDS:
                name = f"{kind}, {batch}" + (", clips" if make is clip else "")
                results["append"][name] = compare(url, batch, number * scale, 4, make)  # type: ignore[index]
                print(name, results["append"][name], file=sys.stderr)  # type: ignore[index]
            modes = ("plain", "inline") if kind == "sqlite" else ("plain", "inline", "sequenced")
            told: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
            for r in range(3):
                for mode in modes:
                    told[mode].append(writers(mode, url(f"eight-{mode}-{r}"), 8, seconds))
            for mode in modes:
                figures = {name: statistics.median(one[name] for one in told[mode]) for name in told[mode][0]}
                figures["max_ms"] = max(one["max_ms"] for one in told[mode])
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
