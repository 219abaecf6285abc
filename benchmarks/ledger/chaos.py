"""Writers that are killed at random points, again and again, and what the ledger holds afterwards.

Run: python benchmarks/ledger/chaos.py [--writers 8] [--each 10000] [--kills 100] [--json FILE]

Each writer is a process that appends its numbered events one by one and notes every receipt in a file of its own. The
parent kills writers with SIGKILL and starts them again at the first event that has no receipt: so an event whose
receipt was lost is appended twice. In the end every receipt must hold, and every event must stand there exactly once.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from safegen.ledger import Event, Ledger

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_FORK = multiprocessing.get_context("fork")


def event(writer: int, number: int) -> Event:
    return Event("generated", f"{writer:08x}{number:08x}", {"n": number}, f"{writer:032x}{number:032x}")


def _write(url: str, writer: int, first: int, each: int, notes: Path) -> None:
    with Ledger.open(url, key=KEY) as ledger, notes.open("ab", buffering=0) as file:
        for number in range(first, each):
            receipt = ledger.append(event(writer, number))
            line = json.dumps([number, receipt.index, receipt.leaf_hash, receipt.checkpoint])
            file.write(line.encode() + b"\n")  # one write: whole, or torn at the end by a kill


def _receipts(notes: Path) -> list[list[object]]:
    found = []
    for line in notes.read_bytes().split(b"\n")[:-1] if notes.exists() else []:
        with contextlib.suppress(ValueError):  # torn by a kill, and the next one written behind it
            found.append(json.loads(line))
    return found


def chaos(url: str, folder: Path, *, writers: int, each: int, kills: int, seed: int) -> dict[str, object]:
    """Run it, and count what was lost, doubled or contradicts itself; all three must be 0."""
    chance = random.Random(seed)
    Ledger.open(url, key=KEY).close()
    files = [folder / f"receipts-{w}" for w in range(writers)]

    def start(w: int) -> multiprocessing.process.BaseProcess:
        told = _receipts(files[w])
        first = max((int(str(r[0])) for r in told), default=-1) + 1
        process = _FORK.Process(target=_write, args=(url, w, first, each, files[w]))
        process.start()
        return process

    begun = time.monotonic()
    running = {w: start(w) for w in range(writers)}
    killed = 0
    while running:
        time.sleep(chance.uniform(0.01, 0.2))
        for w, process in list(running.items()):
            if process.exitcode is not None:
                del running[w]
                if process.exitcode != 0:
                    raise SystemExit(f"writer {w} ended with {process.exitcode}")
        if running and killed < kills:
            w = chance.choice(list(running))
            process = running[w]
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                killed += process.exitcode == -signal.SIGKILL
                running[w] = start(w)
    seconds = time.monotonic() - begun
    return _count(url, files, each) | {"writers": writers, "each": each, "killed": killed, "seconds": round(seconds, 1)}


def _count(url: str, files: list[Path], each: int) -> dict[str, object]:
    lost = doubled = 0
    with Ledger.open(url, create=False, read_only=True) as ledger:
        stands: dict[str, list[tuple[int, str]]] = {}
        for entry in ledger.entries():
            stands.setdefault(str(entry.content_id), []).append((entry.index, entry.leaf_hash))
        outside, acknowledged = [], 0
        for w, file in enumerate(files):
            receipts = _receipts(file)
            acknowledged += len(receipts)
            outside += [str(r[3]) for r in receipts[-50:]]
            lost += sum((r[1], r[2]) not in stands.get(f"{w:08x}{r[0]:08x}", []) for r in receipts)
            lost += sum(f"{w:08x}{n:08x}" not in stands for n in range(each))
        doubled = sum(len(places) - 1 for places in stands.values())
        report = ledger.verify(KEY.public_key(), outside=outside)
    return {
        "entries": report.size, "acknowledged": acknowledged, "lost": lost, "doubled": doubled,
        "contradictions": len(report.problems), "problems": [p.summary for p in report.problems[:5]],
    }  # fmt: skip


def main() -> None:
    from tests.postgres import database

    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--each", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, object] = {}
    for kind in ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as url:
            found = chaos(url, Path(folder), writers=args.writers, each=args.each, kills=args.kills, seed=args.seed)
        results[kind] = found
        print(kind, found, file=sys.stderr)
    results |= {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }
    print(json.dumps(results, indent=2))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
