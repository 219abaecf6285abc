"""How long auditors wait for a page of 100 entries out of a million, on SQLite and on PostgreSQL.

    nice -n 5 python -m benchmarks.ledger.queries --rows 1000000

Builds a ledger in each (a PostgreSQL server is started as by the tests), with leaves, hashes, facts and counts as
appends write them, put in directly: a million signed checkpoints would take hours. Then it asks each question for
things drawn at random, as ``safegen audit`` does: a page of the view, and every row of it compared with its leaf. The
plan of each query is asked for as well; ``scans`` counts the tables that it reads from end to end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import platform
import random
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.ledger import Event, Ledger
from safegen.ledger.audit_queries import AuditLedger, Query, by_fact
from safegen.ledger.entry import COLUMNS, SCHEMA, encode_leaf
from safegen.ledger.facts import day_of, facts_of
from safegen.ledger.merkle import leaf_hash
from tests.postgres import database

RESULTS = Path(__file__).parent / "results"
BATCH = 20_000
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STEP = dt.timedelta(days=365) / 1_000_000
MODELS, POLICIES, CERTIFICATES, CONSENTS = 4, 4, 12, 500
TARGET_MS = 50.0
ENTRIES = ("idx", *COLUMNS, "leaf", "leaf_hash")


def number(seed: int, bits: int = 256) -> str:
    """A hex number that is random, and the same in every run."""
    return f"{random.Random(seed).getrandbits(bits):0{bits // 4}x}"


def asset(index: int) -> str:
    return f"{index * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4


def content_id(index: int) -> str:
    return asset(index)[:16]


def policy(index: int, rows: int) -> str:
    """Policies have a version a quarter."""
    return number(1000 * (index * POLICIES // rows) + index % 2)


def consent(n: int) -> str:
    digits = number(77 * n, 128)
    return f"urn:uuid:{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def event(index: int, rows: int) -> Event:
    draw = random.Random(index)
    sort, model, cert = draw.random(), f"model-{draw.randrange(MODELS)}", number(draw.randrange(CERTIFICATES))
    signature = {"algorithm": "es256", "leaf_sha256": cert, "signer": "store:", "timestamp": None, "ocsp": None}
    if sort < 0.04 and index > 100:
        earlier = draw.randrange(index)
        if sort < 0.03:
            body = {"manifest_id": f"urn:c2pa:{index}", "previous_entry": earlier, "signature": signature}
            return Event("resigned", content_id(earlier), body, asset(index), asset(index))
        body = {"manifest_id": f"urn:c2pa:{index}", "recovered_entry": earlier, "signature": signature}
        return Event("recovered", content_id(earlier), body, asset(index), asset(index))
    action = draw.choices(("allow", "flag", "review", "block"), (95, 2, 1, 2))[0]
    decision = {"action": action, "policy_id": f"pack-{index % 2}", "policy_sha256": policy(index, rows), "reasons": []}
    body: dict[str, Any] = {
        "call": {"guidance_scale": 3, "height": 192, "num_frames": 25, "num_inference_steps": 16, "width": 192},
        "decision": decision, "mode": "text", "seed": index, "model": {"id": model, "license": "", "version": "1"},
        "prompt_commitment": {"alg": "hmac-sha256", "salt": asset(index)[:32], "value": asset(index + 1)},
    }  # fmt: skip
    if draw.random() < 0.02:
        body["consents"] = [{"id": consent(draw.randrange(CONSENTS)), "sha256": cert, "signer": "a", "state": "valid"}]
    if action in ("review", "block"):
        return Event("blocked", content_id(index), body, None, None, model, policy(index, rows), action)
    if draw.random() < 0.1 and index > 100:
        body |= {"inputs": [{"role": "video", "sha256": asset(draw.randrange(index))}], "mode": "video"}
    mark = {
        "content_id": content_id(index),
        "scheme": "latent-residual",
        "fingerprint": asset(index) * 2,
        "strength": 1,
    }
    body |= {
        "mark": mark if draw.random() > 0.001 else None,
        "manifest_id": f"urn:c2pa:{index}",
        "signature": signature,
    }
    body["frames_decision"] = decision | {"action": "allow"}
    return Event("generated", content_id(index), body, asset(index), asset(index), model, policy(index, rows), action)


def rows(count: int) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], Counter[tuple[str, ...]]]]:
    """Rows of entries and of facts, and the counts of their days, some at a time."""
    for start in range(0, count, BATCH):
        entries, facts, days = [], [], Counter[tuple[str, ...]]()
        for index in range(start, min(start + BATCH, count)):
            when = (START + index * STEP).isoformat(timespec="microseconds").replace("+00:00", "Z")
            one = event(index, count)
            columns = [when, *(getattr(one, name) for name in COLUMNS[1:])]
            fields = dict(zip(COLUMNS, columns, strict=True)) | {"schema": SCHEMA, "index": index, "body": one.body}
            leaf = json.dumps(fields, sort_keys=True, separators=(",", ":"))  # canonical: ASCII, and whole numbers only
            entries.append((index, *columns, leaf, leaf_hash(leaf.encode()).hex()))
            facts += [(index, name, value) for name, value in sorted(facts_of(one))]
            days[day_of(when, one)] += 1
        assert encode_leaf(one, index, when) == leaf.encode()
        yield entries, facts, days


def build(urls: dict[str, str], count: int) -> dict[str, float]:
    """Fill new ledgers; the seconds that it took."""
    start = time.perf_counter()
    for url in urls.values():
        Ledger.open(url, key=Ed25519PrivateKey.generate()).close()
    lite = sqlite3.connect(sqlalchemy.make_url(urls["sqlite"]).database or "")
    engine = sqlalchemy.create_engine(urls["postgresql"])
    raw = engine.raw_connection()
    post: Any = raw.driver_connection
    lite.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -200000;")
    kept = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND (type = 'trigger' OR name LIKE 'ix_%')"
    later = lite.execute(kept).fetchall()
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE 'ix\\_%'"
    later_post = post.execute(indexes).fetchall()
    for kind, name, _ in later:
        lite.execute(f"DROP {kind} {name}")
    for name, _ in later_post:
        post.execute(f"DROP INDEX {name}")
    days: Counter[tuple[str, ...]] = Counter()
    for entries, facts, counted in rows(count):
        days.update(counted)
        lite.executemany(f"INSERT INTO entries ({','.join(ENTRIES)}) VALUES ({','.join('?' * len(ENTRIES))})", entries)
        lite.executemany("INSERT INTO entry_facts VALUES (?, ?, ?)", facts)
        for table, names, made in (("entries", ENTRIES, entries), ("entry_facts", ("entry", "name", "value"), facts)):
            with post.cursor() as cursor, cursor.copy(f"COPY {table} ({','.join(names)}) FROM STDIN") as copy:
                for row in made:
                    copy.write_row(row)
    daily = [(*key, n) for key, n in days.items()]
    lite.executemany("INSERT INTO daily_counts VALUES (?, ?, ?, ?, ?, ?)", daily)
    with post.cursor() as cursor:
        cursor.executemany("INSERT INTO daily_counts VALUES (%s, %s, %s, %s, %s, %s)", daily)
        cursor.execute("UPDATE head SET size = %s", (count,))
    lite.execute("UPDATE head SET size = ?", (count,))
    filled = time.perf_counter()
    for _, _, sql in later:
        lite.execute(sql)
    lite.commit()
    lite.execute("PRAGMA journal_mode = WAL")
    lite.close()
    for _, sql in later_post:
        post.execute(sql)
    post.commit()
    post.autocommit = True
    post.execute("VACUUM ANALYZE")  # as autovacuum does it
    raw.close()
    engine.dispose()
    return {"rows_s": round(filled - start, 1), "indexes_s": round(time.perf_counter() - filled, 1)}


def questions(count: int) -> dict[str, Callable[[random.Random], Query]]:
    def one_day(draw: random.Random) -> Query:
        first = START + draw.randrange(max(1, count - 1)) * STEP
        return Query(begin=first.isoformat(), end=(first + dt.timedelta(days=1)).isoformat(), limit=100)

    def page(query: Query) -> Query:
        return Query(query.view, query.equal, limit=100)

    return {
        "by asset": lambda d: page(Query(equal={"asset_sha256": asset(d.randrange(count))})),
        "by mark id": lambda d: page(Query(equal={"content_id": content_id(d.randrange(count))})),
        "by consent": lambda d: page(Query("audit_consents", {"consent": consent(d.randrange(CONSENTS))})),
        "by policy": lambda d: page(by_fact("policy", f"pack-{d.randrange(2)}")),
        "by policy and decision": lambda d: page(by_fact("policy.block", f"pack-{d.randrange(2)}")),
        "by policy's version and decision": lambda d: page(
            Query(equal={"policy_sha256": policy(d.randrange(count), count), "decision": "review"})
        ),
        "by model": lambda d: page(Query(equal={"model": f"model-{d.randrange(MODELS)}"})),
        "by model, from the middle on": lambda d: Query(
            equal={"model": f"model-{d.randrange(MODELS)}"}, after=count // 2, limit=100
        ),
        "by time, a day": one_day,
        "by certificate": lambda d: page(by_fact("certificate", number(d.randrange(CERTIFICATES)))),
        "unmarked": lambda d: Query("audit_unmarked", after=d.randrange(count), limit=100),
        "copies of unmarked": lambda d: Query("audit_unmarked_copies", after=d.randrange(count), limit=100),
    }


def scans(url: str, query: Query) -> int:
    """How many tables the plan reads from end to end."""
    statement, given = query.statement()
    engine = sqlalchemy.create_engine(url)
    lite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        text = sqlalchemy.text(f"EXPLAIN {'QUERY PLAN ' if lite else ''}{statement}")
        lines = [str(row[-1]) for row in connection.execute(text, given)]
    engine.dispose()
    return sum(bool(re.match(r"SCAN (?!.*(VIRTUAL|CONSTANT))", one) if lite else "Seq Scan" in one) for one in lines)


def timed(action: Callable[[], Any], draws: int) -> dict[str, Any]:
    found, taken = 0, []
    for _ in range(draws):
        start = time.perf_counter()
        found += len(action())
        taken.append((time.perf_counter() - start) * 1e3)
    return {
        "median_ms": round(statistics.median(taken), 2),
        "worst_ms": round(max(taken), 2),
        "rows": round(found / draws, 1),
    }


def measure(url: str, count: int, draws: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    with AuditLedger.open(url, create=False, read_only=True) as ledger:
        for name, make in questions(count).items():
            draw = random.Random(name)
            out[name] = timed(lambda make=make, draw=draw: ledger.page(make(draw)), draws)
            out[name]["scans"] = scans(url, make(draw))
        draw = random.Random(5)
        out["chain of derivations"] = timed(lambda: ledger.chain([draw.randrange(count)]).rows, draws)
        out["counts of a month"] = timed(lambda: ledger.daily("2026-06-01", "2026-06-30"), draws)
        out["counts of the year"] = timed(lambda: ledger.daily(), draws)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--name", default="queries", help="Name of the files under results/.")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        database("sqlite", Path(folder)) as lite,
        database("postgresql", Path(folder)) as post,
    ):
        urls = {"sqlite": lite, "postgresql": post}
        filled = build(urls, args.rows)
        gc.collect()
        found = {name: measure(url, args.rows, args.draws) for name, url in urls.items()}
        engine = sqlalchemy.create_engine(post)
        with engine.connect() as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar()
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar()
        engine.dispose()
        bytes_ = {"sqlite": Path(folder, "ledger.db").stat().st_size, "postgresql": size}
    results = {
        "command": f"python -m benchmarks.ledger.queries {' '.join(sys.argv[1:])}".strip(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "versions": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, PostgreSQL {version}",
        "rows": args.rows, "draws": args.draws, "filling": filled, "bytes": bytes_, "target_ms": TARGET_MS,
        "queries": found,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / f"{args.name}.md").write_text(table(results))
    print(table(results))


def table(results: dict[str, Any]) -> str:
    lite, post = results["queries"]["sqlite"], results["queries"]["postgresql"]
    lines = [
        f"# Questions to a ledger of {results['rows']:,} entries",
        "",
        f"`{results['command']}`, {results['date']}; {results['machine']}, load {results['load_average'][0]}; "
        f"{results['versions']}. Milliseconds for a page of up to 100 rows, each compared with its leaf; median and "
        f"worst of {results['draws']} draws. Target: {results['target_ms']:.0f} ms. "
        "No plan reads a table from end to end.",
        "",
        "| question | rows | SQLite | worst | PostgreSQL | worst |",
        "|---|---|---|---|---|---|",
    ]
    for name, a in lite.items():
        b = post[name]
        lines.append(
            f"| {name} | {a['rows']:g} | {a['median_ms']} | {a['worst_ms']} | {b['median_ms']} | {b['worst_ms']} |"
        )
    total = sum(q.get("scans", 0) for q in (*lite.values(), *post.values()))
    text = "\n".join(lines) + "\n"
    return text if total == 0 else text.replace("No plan reads a table", f"{total} plans read tables")


if __name__ == "__main__":
    main()
