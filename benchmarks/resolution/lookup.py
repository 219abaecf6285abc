"""How long it takes to find a manifest among a million clips: by soft binding, by id, and by what a clip looks like.

    nice -n 5 python -m benchmarks.resolution.lookup --rows 1000000

Builds a ledger in SQLite and one on a PostgreSQL server that it starts (as the tests do), with rows of the form that
appends write, put in directly, for a million signed checkpoints would take hours. Then it looks up clips drawn at
random, each through ``Ledger`` as the service does: index rows, entries, comparison of the two. The same look-ups among
a thousand are the yardstick: the ratio says what size costs.

The looks are drawn as in a world of one style: any two clips share as many bits of their hashes as clips of the
embedded model do (57 %), and a suspect differs from its clip in about 40 of 256, as after H.264 at CRF 30.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from safegen.ledger import Event, Ledger
from safegen.ledger.bindings import binding_of
from safegen.ledger.entry import encode_leaf
from safegen.ledger.likeness_index import BANDS, POSITIONS, WIDTH, rows_of
from safegen.ledger.merkle import leaf_hash
from safegen.likeness import near
from safegen.media.video_hash import Look
from safegen.types import soft_binding_alg
from tests.postgres import database

ALG = soft_binding_alg("latent-residual")
RESULTS = Path(__file__).parent / "results"
SMALL = 1000
BATCH = 10_000
WINDOWS = 3
COMMON, STEADY, SUSPECT = 0.22, 0.94, 0.876  # correlations: of any two clips, within a clip, of a suspect with its clip
TABLES = {
    "entries": ("idx", "time", "kind", "content_id", "leaf", "leaf_hash"),
    "soft_bindings": ("entry", "alg", "value", "manifest_id"),
}


def content_id(number: int) -> str:
    """The content id of an entry: random, and the same in every run."""
    return f"{random.Random(number).getrandbits(64):016x}"


@lru_cache(maxsize=2)
def batch(number: int) -> NDArray[np.float32]:
    """The cosines of BATCH clips without the noise that differs each time, [BATCH, 256]."""
    world = np.random.default_rng(0).standard_normal(256, np.float32)
    own = np.random.default_rng([1, number]).standard_normal((BATCH, 256), np.float32)
    shown: NDArray[np.float32] = np.float32(COMMON**0.5) * world + np.float32((1 - COMMON) ** 0.5) * own
    return shown


def noisy(clips: NDArray[np.float32], correlation: float, count: int, seed: int) -> NDArray[np.float32]:
    """``count`` looks at each of the clips [..., 256], which correlate with it so much; [..., count, 256]."""
    fresh = np.random.default_rng([2, seed]).standard_normal((*clips.shape[:-1], count, 256), np.float32)
    looks: NDArray[np.float32] = correlation * clips[..., None, :] + (1 - correlation**2) ** 0.5 * fresh
    return looks


def suspect(number: int, count: int) -> Look:
    """A clip as it looks after compression."""
    seen = noisy(batch(number // BATCH)[number % BATCH], SUSPECT, count, number)
    return Look(seen.reshape(count, 16, 16).astype(np.float32))


def rows(count: int) -> Iterator[tuple[dict[str, list[tuple[Any, ...]]], NDArray[np.int64]]]:
    """Rows of entries and soft bindings, some at a time, and of the index of looks: key << 32 | entry."""
    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).isoformat()
    places, weights = np.array(POSITIONS), 1 << np.arange(WIDTH - 1, -1, -1, dtype=np.int64)
    for start in range(0, count, BATCH):
        looks = noisy(batch(start // BATCH), STEADY, WINDOWS, start)[: count - start, :, ::-1]
        shown = looks > np.median(looks, axis=-1, keepdims=True)
        keys = (shown[..., places] * weights).sum(axis=-1) + (np.arange(BANDS, dtype=np.int64) << WIDTH)
        indices = np.arange(start, start + len(shown), dtype=np.int64)
        digests = np.packbits(shown, axis=-1)
        made: dict[str, list[tuple[Any, ...]]] = {"entries": [], "soft_bindings": []}
        for index, hashes in zip(indices.tolist(), digests, strict=True):
            mark = {"scheme": "latent-residual", "video_hash": [h.tobytes().hex() for h in hashes]}
            event = Event("generated", content_id(index), {"mark": mark, "manifest_id": f"urn:c2pa:{index:036d}"})
            leaf, binding = encode_leaf(event, index, when), binding_of(index, event)
            assert binding is not None
            digest = leaf_hash(leaf).hex()
            made["entries"].append((index, when, "generated", event.content_id, leaf.decode(), digest))
            made["soft_bindings"].append((index, binding.alg, binding.value, binding.manifest_id))
        # This quick way to the keys is the ledger's own way.
        assert set(keys[-1].ravel().tolist()) == {row["key"] for row in rows_of(0, again(made["entries"][-1][4]))}
        yield made, np.unique(keys.reshape(len(keys), -1) << 32 | indices[:, None])


def again(leaf: str) -> Event:
    fields = json.loads(leaf)
    return Event("generated", fields["content_id"], fields["body"])


def build(urls: list[str], count: int) -> float:
    """Fill new ledgers with ``count`` generated entries, without tree and checkpoints; the seconds it took."""
    start = time.perf_counter()
    engines = [sqlalchemy.create_engine(url) for url in urls]
    for url, engine in zip(urls, engines, strict=True):
        Ledger.open(url, key=Ed25519PrivateKey.generate()).close()
        with engine.begin() as connection:
            for statement in SETUP[engine.dialect.name]:
                connection.exec_driver_sql(statement)
    looks = []
    for made, found in rows(count):
        looks.append(found)
        for engine in engines:
            insert(engine, made)
    ordered = np.concatenate(looks)
    ordered.sort()  # in the order of the index: a million appends would come one by one
    for at in range(0, len(ordered), 100 * BATCH):
        some = ordered[at : at + 100 * BATCH]
        pairs = np.stack([some >> 32, some & 0xFFFFFFFF], axis=1)
        for engine in engines:
            insert_looks(engine, pairs)
    for engine in engines:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in FINISH[engine.dialect.name]:
                connection.exec_driver_sql(statement)
        engine.dispose()
    return time.perf_counter() - start


SETUP = {
    "sqlite": ("DROP TRIGGER entries_only_append",),  # it looks for the last entry at every insert
    "postgresql": ("ALTER TABLE hash_bands DROP CONSTRAINT hash_bands_pkey",),
}
FINISH = {
    "sqlite": ("ANALYZE",),
    "postgresql": ("ALTER TABLE hash_bands ADD PRIMARY KEY (key, entry)", "VACUUM ANALYZE"),
}


def insert(engine: sqlalchemy.Engine, made: dict[str, list[tuple[Any, ...]]]) -> None:
    raw = engine.raw_connection()
    try:
        for table, found in made.items():
            columns = ", ".join(TABLES[table])
            if engine.dialect.name == "sqlite":
                marks = ", ".join("?" * len(TABLES[table]))
                raw.cursor().executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", found)
            else:
                with raw.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                    for row in found:
                        copy.write_row(row)
        raw.commit()
    finally:
        raw.close()


def insert_looks(engine: sqlalchemy.Engine, pairs: NDArray[np.int64]) -> None:
    raw = engine.raw_connection()
    try:
        if engine.dialect.name == "sqlite":
            raw.cursor().executemany("INSERT INTO hash_bands (key, entry) VALUES (?, ?)", pairs.tolist())
        else:  # in COPY's binary form: two fields, of 4 and of 8 bytes
            form = np.dtype([("fields", ">i2"), ("four", ">i4"), ("key", ">i4"), ("eight", ">i4"), ("entry", ">i8")])
            packed = np.empty(len(pairs), form)
            packed["fields"], packed["four"], packed["eight"] = 2, 4, 8
            packed["key"], packed["entry"] = pairs[:, 0], pairs[:, 1]
            with raw.cursor().copy("COPY hash_bands (key, entry) FROM STDIN (FORMAT binary)") as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + packed.tobytes() + b"\xff\xff")
        raw.commit()
    finally:
        raw.close()


def timed(prepare: Callable[[int], Any], look_up: Callable[[int, Any], bool], numbers: list[int]) -> dict[str, float]:
    """Milliseconds of the look-ups, and the share that found what it should. What is looked for is made untimed."""
    took, right = [], 0
    for number in sorted(numbers):
        wanted = prepare(number)
        start = time.perf_counter()
        right += look_up(number, wanted)
        took.append(1000 * (time.perf_counter() - start))
    took.sort()
    return {
        "median_ms": round(statistics.median(took), 4),
        "p99_ms": round(took[int(0.99 * len(took))], 4),
        "max_ms": round(took[-1], 4),
        "right": right / len(took),
    }


def measure(url: str, count: int, times: int) -> dict[str, dict[str, float]]:
    """Look-ups of each kind, of clips that are there and of some that are not."""
    with Ledger.open(url, create=False, read_only=True) as ledger:

        def by_binding(number: int, value: str) -> bool:
            return [b.entry for b in ledger.find_binding(ALG, value, limit=10)] == [number]

        def by_manifest(number: int, name: str) -> bool:
            found = ledger.find_manifest(name)
            return found is not None and found.entry == number

        def absent(_number: int, value: str) -> bool:
            return not ledger.find_binding(ALG, value, limit=10)

        def by_looks(number: int, look: Look) -> bool:
            return [entry.index for _, entry in near(look, ledger)] == [number]

        def foreign(_number: int, look: Look) -> bool:
            return not near(look, ledger)

        looks = max(20, times // 10)
        beyond = BATCH * (count // BATCH + 1)
        kinds: dict[str, tuple[Callable[[int], Any], Callable[[int, Any], bool], int]] = {
            "by binding": (content_id, by_binding, times),
            "by manifest id": (lambda number: f"urn:c2pa:{number:036d}", by_manifest, times),
            "a binding that is not there": (lambda number: content_id(beyond + number), absent, times),
            "by looks, a clip of 1.5 s": (lambda number: suspect(number, 5), by_looks, looks),
            "by looks, a clip of 10 s": (lambda number: suspect(number, 39), by_looks, looks),
            "looks that are not there, 1.5 s": (lambda number: suspect(beyond + number, 5), foreign, looks),
        }
        draw = random.Random(1)
        wanted = [draw.randrange(count) for _ in range(times)]
        for prepare, look_up, _ in kinds.values():
            look_up(0, prepare(0))  # statements are compiled once
        return {name: timed(prepare, look_up, wanted[:some]) for name, (prepare, look_up, some) in kinds.items()}


def size_of(url: str) -> float:
    """Megabytes of the database."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        query = "SELECT pg_database_size(current_database())"
        if engine.dialect.name == "sqlite":
            query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        found = connection.exec_driver_sql(query).scalar()
    engine.dispose()
    return round(int(found or 0) / 1e6)


def report(result: dict[str, Any]) -> str:
    lines = [
        "# Look-ups among a million clips",
        "",
        f"`{result['command']}`, {result['date']}, {result['machine']}; niceness {result['nice']}, load"
        f" {result['load']}, page cache warm.",
        f"{result['rows']:,} clips; {result['times']} look-ups of each kind, a tenth of that by looks, drawn at random."
        " *Right*: the share that found the clip and no other, or rightly nothing.",
    ]
    for found in result["databases"].values():
        lines += [
            "",
            f"## {found['version']}, {found['megabytes']} MB",
            "",
            f"| look-up | median | p99 | slowest | right | median among {SMALL:,} | ratio |",
            "|---|---|---|---|---|---|---|",
        ]
        for kind, large in found["large"].items():
            small = found["small"][kind]
            lines.append(
                f"| {kind} | {large['median_ms']:.2f} ms | {large['p99_ms']:.2f} ms | {large['max_ms']:.2f} ms"
                f" | {100 * large['right']:.1f} % | {small['median_ms']:.2f} ms"
                f" | {large['median_ms'] / small['median_ms']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def version_of(url: str) -> str:
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        numbers = ".".join(str(n) for n in connection.dialect.server_version_info or ())
    engine.dispose()
    return f"{'SQLite' if engine.dialect.name == 'sqlite' else 'PostgreSQL'} {numbers}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="safegen-lookup-") as folder:
        places = [Path(folder) / size for size in ("large", "small")]
        for place in places:
            place.mkdir()
        with database("postgresql", places[0]) as large, database("postgresql", places[1]) as small:
            files = [f"sqlite:///{place / 'ledger.db'}" for place in places]
            urls = {"postgresql": (large, small), "sqlite": (files[0], files[1])}
            build([pair[1] for pair in urls.values()], SMALL)
            built = build([pair[0] for pair in urls.values()], chosen.rows)
            result = {
                "command": f"python -m benchmarks.resolution.lookup --rows {chosen.rows} --times {chosen.times}",
                "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "nice": os.nice(0),
                "load": round(os.getloadavg()[0], 1),
                "rows": chosen.rows,
                "times": chosen.times,
                "build_seconds": round(built, 1),
                "databases": {
                    name: {
                        "version": version_of(pair[0]),
                        "megabytes": size_of(pair[0]),
                        "small": measure(pair[1], SMALL, chosen.times),
                        "large": measure(pair[0], chosen.rows, chosen.times),
                    }
                    for name, pair in sorted(urls.items(), reverse=True)
                },
                "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "lookup.json").write_text(json.dumps(result, indent=1) + "\n")
    (chosen.out / "lookup.md").write_text(report(result))
    sys.stdout.write(report(result))


if __name__ == "__main__":
    main()
