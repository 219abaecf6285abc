"""How long honest clients wait while others hold on to the service: 500 slow ones, of one address and of many.

    python benchmarks/service/slow_clients.py [--clients 500] [--out benchmarks/service/slow_clients.json]

``safegen serve`` runs in a process of its own, with its own settings. Slow clients send half a head, or a body a byte a
second, or ask and never read; each begins anew once it is let go. Honest ones ask by a binding, from the slow ones'
address and from another, and send a small asset. Linux: addresses are those of 127.0.0.0/8.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from safegen.service.bindings import WATERMARKS

HEAD = b"POST /v1/matches/byContent HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: 1000000\r\n"
QUESTION = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
HONEST = 20
ALG = WATERMARKS[0]
HERE = Path(__file__).parent


async def slow(kind: str, port: int, address: str, counts: dict[str, int]) -> None:
    """One slow client, without end."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            counts["connections"] += 1
            try:
                if kind == "half a head":
                    writer.write(HEAD)
                    for _ in range(600):
                        await asyncio.sleep(1)
                        writer.write(b"A")
                        await writer.drain()
                elif kind == "a body a byte a second":
                    writer.write(HEAD + b"\r\n")
                    for _ in range(600):
                        await asyncio.sleep(1)
                        writer.write(b"x")
                        await writer.drain()
                else:
                    writer.write(QUESTION * 1000)
                    await writer.drain()
                    await asyncio.sleep(600)
            finally:
                writer.close()
        await asyncio.sleep(0.05)


async def honest(port: int, address: str, how: str) -> tuple[int, float]:
    """Ask once: the status (0 where the connection is closed), and the seconds that it took."""
    began = time.perf_counter()
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(transport=transport, timeout=60, base_url=f"http://127.0.0.1:{port}") as client:
        try:
            if how == "ask":
                found = {"alg": ALG, "value": "AAAAAAAAAAA="}
                answer = await client.get("/v1/matches/byBinding", params=found)
            else:
                answer = await client.post(
                    "/v1/matches/byContent", content=b"no media", headers={"Content-Type": "video/mp4"}
                )
            status = answer.status_code
        except httpx.TransportError:
            status = 0
    return status, time.perf_counter() - began


async def measured(kind: str, port: int, clients: int, addresses: int) -> dict[str, Any]:
    counts = {"connections": 0}
    names = [f"127.1.{n // 200}.{n % 200 + 1}" for n in range(addresses)]
    tasks = [asyncio.create_task(slow(kind, port, names[n % addresses], counts)) for n in range(clients)]
    await asyncio.sleep(3)
    rows: dict[str, Any] = {}
    asked = {"ask, their address": (names[0], "ask"), "ask, another": ("127.9.0.1", "ask"),
             "send, another": ("127.9.0.1", "send")}  # fmt: skip
    for name, (address, how) in asked.items():
        found = [await honest(port, address, how) for _ in range(HONEST)]
        times = [seconds for _, seconds in found]
        codes = {str(code): sum(c == code for c, _ in found) for code in {c for c, _ in found}}
        rows[name] = {
            "statuses": codes, "median_s": round(float(np.median(times)), 3), "max_s": round(max(times), 3),
        }  # fmt: skip
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(1)
    return {"slow_connections_made": counts["connections"], "honest": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--out", type=Path, default=HERE / "slow_clients.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"SAFEGEN_HOME": home}
        safegen = [sys.executable, "-m", "safegen"]
        subprocess.run([*safegen, "keys", "init"], env=environment, check=True, capture_output=True)
        record_something(Path(home))
        command = [*safegen, "serve", "--port", "0", "--json"]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server:
            assert server.stdout is not None
            port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2].partition("/")[0])
            results = {}
            for kind in ("half a head", "a body a byte a second", "never reads"):
                for addresses in (1, 50):
                    name = f"{kind}, {addresses} address{'es' if addresses > 1 else ''}"
                    results[name] = asyncio.run(measured(kind, port, given.clients, addresses))
                    print(name, json.dumps(results[name]), flush=True)
            server.terminate()
    report = {
        "command": f"python benchmarks/service/slow_clients.py --clients {given.clients}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "clients": given.clients,
        "honest_requests_each": HONEST,
        "results": results,
    }
    given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def record_something(home: Path) -> None:
    """One entry, so that there is a ledger to ask."""
    from safegen.keys import KeyStore
    from safegen.ledger import Event, Ledger
    from safegen.settings import Home

    keys = KeyStore.load(Home(home))
    with Ledger.open(Home(home).ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(Event("cancelled", body={}))


if __name__ == "__main__":
    main()
