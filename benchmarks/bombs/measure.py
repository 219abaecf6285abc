"""Run `safegen verify` on every file of a bomb collection, in a home with keys and a clip in its ledger.

python -m benchmarks.bombs.make FOLDER
python -m benchmarks.bombs.measure FOLDER [NAME ...] [--out benchmarks/bombs/results/bombs.json] [--limit SECONDS]

Peak memory is the largest sum, over the command and all its children at one moment, of resident memory that they do
not share (PSS), looked at twenty times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MEMORY_MB, SECONDS = 1024, 30.0
"""What no file may exceed."""


def main() -> None:
    """Measure, print a line for each file, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which a file is given up")
    asked = parser.parse_args()
    paths = [asked.folder / name for name in asked.names] or sorted(p for p in asked.folder.iterdir() if p.is_file())
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"SAFEGEN_HOME": home, "OMP_NUM_THREADS": "1"}
        made = Path(home, "made.mp4")
        subprocess.run([sys.executable, "-m", "safegen", "keys", "init"], env=environment, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        command = [sys.executable, "-m", "safegen", "generate", "a quiet meadow", "-o", str(made), "--seed", "1"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows = []
        for path in paths:
            rows.append(row := measure(path, environment, asked.limit))
            took = f"{row['wall_seconds']:>7.1f} s {row['cpu_seconds']:>7.1f} s CPU {row['peak_mb']:>6.0f} MB"
            print(f"{row['file']:<24} {row['bytes']:>9} B {took}  exit {row['exit']} {row['verdict']}", flush=True)
    over = [r["file"] for r in rows if r["peak_mb"] > MEMORY_MB or r["wall_seconds"] > SECONDS]
    print(f"{len(rows)} files, {len(over)} beyond {MEMORY_MB} MB or {SECONDS:.0f} s: {', '.join(over) or 'none'}")
    if asked.out:
        result = {
            "command": "python -m benchmarks.bombs.measure FOLDER",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "limits": {"peak_mb": MEMORY_MB, "wall_seconds": SECONDS},
            "beyond": over,
            "files": rows,
        }  # fmt: skip
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measure(path: Path, environment: dict[str, str], limit: float) -> dict[str, Any]:
    """One run of the command: what it took, and what it said."""
    command = [sys.executable, "-m", "safegen", "verify", "--json", str(path)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command, env=environment, stdout=printed, stderr=subprocess.DEVNULL, start_new_session=True
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(_memory, _family(process.pid))))
            if time.monotonic() - start > limit:
                os.killpg(process.pid, signal.SIGKILL)
                for child in _family(process.pid):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.05)
        wall = time.monotonic() - start
        printed.seek(0)
        text = printed.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(peak / 1024),
        "exit": process.returncode,
        "verdict": _verdict(text),
    }


def _verdict(text: bytes) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        return "none"
    return str(said.get("verdict") or said.get("error", {}).get("type", "none"))


def _family(parent: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [parent]
    for pid in found:
        try:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            for task in Path(f"/proc/{pid}/task").iterdir():
                if int(task.name) != pid:
                    found += map(int, (task / "children").read_text().split())
        except (OSError, ValueError):
            continue
    return found


def _memory(pid: int) -> int:
    """Proportional resident memory of a process, in kB."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
