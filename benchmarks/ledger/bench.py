"""What the ledger costs: appends against a plain INSERT of the same row, proofs, verification.

Run: python benchmarks/ledger/bench.py [--entries 2000] [--rounds 5] [--json benchmarks/ledger/results.json]
Plain and ledger rounds alternate and the best round of each counts, so that a busy machine spoils the ratio little.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, insert

from safegen.ledger import Event, Ledger, verify_inclusion
from safegen.ledger.database import connect, parse_url, use_wal, writing

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
plain = Table(
    "plain",
    MetaData(),
    Column("idx", Integer, primary_key=True),
    Column("time", String(32)),
    Column("kind", String(32)),
    Column("content_id", String(16), index=True),
    Column("asset_sha256", String(64), index=True),
    Column("leaf", Text),
)


def event(i: int) -> Event:
    digest = f"{i * 2654435761 % 2**64:016x}" * 4
    body = {"prompt_sha256": digest, "seed": i, "frames": 25, "fps": 16.0, "watermark": {"scheme": "x", "bits": 64}}
    return Event("generated", digest[:16], body, digest, digest, "tiny", digest, "allow")


def measure(action, count: int) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Return wall and CPU microseconds per item."""
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(count):
        action(i)
    return (time.perf_counter() - wall) / count * 1e6, (time.process_time() - cpu) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), args.entries, args.rounds)
    results |= {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }
    text = json.dumps(results, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


def run(folder: Path, entries: int, rounds: int) -> dict[str, object]:
    engine = connect(parse_url(f"sqlite:///{folder / 'plain.db'}"), create=True, read_only=False, busy_seconds=30)
    use_wal(engine)
    with writing(engine) as connection:
        plain.metadata.create_all(connection)
    start = time.perf_counter()
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", key=KEY)
    created = time.perf_counter() - start

    def insert_plain(i: int) -> None:
        e = event(i)
        leaf = rfc8785.dumps({"kind": e.kind, "content_id": e.content_id, "body": dict(e.body)}).decode()
        row = {"time": "2026-01-01", "kind": e.kind, "content_id": e.content_id, "asset_sha256": e.asset_sha256}
        with writing(engine) as connection:
            connection.execute(insert(plain), {**row, "leaf": leaf})

    per_round = entries // rounds
    plain_rounds, ledger_rounds = [], []
    for r in range(rounds):
        first = r * per_round
        plain_rounds.append(measure(lambda i, first=first: insert_plain(first + i), per_round))
        ledger_rounds.append(measure(lambda i, first=first: ledger.append(event(first + i)), per_round))
    best = [[min(column) for column in zip(*rows, strict=True)] for rows in (plain_rounds, ledger_rounds)]

    proofs, checks = [], []
    for i in range(0, entries, max(1, entries // 50)):
        start = time.perf_counter()
        proof = ledger.prove(i)
        proofs.append((time.perf_counter() - start) * 1e3)
        leaf = ledger.get(i).leaf
        start = time.perf_counter()
        assert verify_inclusion(proof, leaf, KEY.public_key())
        checks.append((time.perf_counter() - start) * 1e3)
    wall, cpu = time.perf_counter(), time.process_time()
    report = ledger.verify()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert report.ok
    assert report.size == per_round * rounds
    ledger.close()
    engine.dispose()  # the write-ahead logs are merged into the files
    sizes = [(folder / name).stat().st_size / (per_round * rounds) for name in ("plain.db", "ledger.db")]
    return {
        "entries": per_round * rounds,
        "create_ms": round(created * 1e3, 1),
        "append_us": {
            "plain_wall": round(best[0][0]),
            "ledger_wall": round(best[1][0]),
            "wall_ratio": round(best[1][0] / best[0][0], 2),
            "plain_cpu": round(best[0][1]),
            "ledger_cpu": round(best[1][1]),
            "cpu_ratio": round(best[1][1] / best[0][1], 2),
        },
        "prove_ms": {"median": round(statistics.median(proofs), 2), "max": round(max(proofs), 2)},
        "verify_inclusion_ms": {"median": round(statistics.median(checks), 3)},
        "verify_us_per_entry": {
            "wall": round(wall / report.size * 1e6, 1),
            "cpu": round(cpu / report.size * 1e6, 1),
        },
        "bytes_per_entry": {"plain": round(sizes[0]), "ledger": round(sizes[1])},
    }


if __name__ == "__main__":
    main()
