"""What safegen costs around a generation, and what verification costs: whole processes, interleaved, in one run.

    python benchmarks/pipeline/overhead.py [--rounds 5] [--out benchmarks/pipeline/results/overhead.json]

Every round runs, each in a process of its own: the bare diffusers call, ``safegen generate``, ``safegen verify`` with
and without the neural parts, and ``import safegen``. The file holds every round; the summary takes medians.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK_STAGES = ("mark", "read_mark")
IMPORT = "import time; start = time.perf_counter(); import safegen; print(time.perf_counter() - start)"
PROMPT = "a red ball bouncing on grass at sunset"


@dataclass(frozen=True)
class Timed:
    started: float  # seconds since the epoch
    seconds: float
    cpu_seconds: float
    peak_mb: float
    printed: str


def timed(arguments: list[str], home: Path, codes: tuple[int, ...] = (0,)) -> Timed:
    environment = os.environ | {"SAFEGEN_HOME": str(home)}
    started, start = time.time(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(arguments, env=environment, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        out.seek(0)
        printed = out.read()
    code = os.waitstatus_to_exitcode(status)
    if code not in codes:
        raise SystemExit(f"{arguments} ended with {code}: {printed}")
    return Timed(started, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed)


def one_round(number: int, home: Path, folder: str) -> dict[str, Any]:
    python = sys.executable
    clip = str(home / f"{number}.mp4")
    bare = timed([python, str(HERE / "bare.py"), folder, str(number)], home)
    made = timed([python, "-m", "safegen", "generate", PROMPT, "-o", clip, "--seed", str(number), "--json"], home)
    full = timed([python, "-m", "safegen", "verify", clip, "--json"], home)
    plain = timed([python, "-m", "safegen", "verify", clip, "--no-neural", "--json"], home, (4,))
    imported = timed([python, "-c", IMPORT], home)
    stages = json.loads(made.printed)["milliseconds"]
    bare_result = json.loads(bare.printed)
    to_frames = bare_result["at"] - bare.started
    mark = sum(stages[s] for s in MARK_STAGES) / 1000
    return {
        "bare": {
            "seconds": bare.seconds, "cpu": bare.cpu_seconds, "peak_mb": bare.peak_mb, "to_frames": to_frames,
            **bare_result,
        },
        "generate": {
            "seconds": made.seconds, "cpu": made.cpu_seconds, "peak_mb": made.peak_mb, "milliseconds": stages,
        },
        "mark_seconds": mark,
        "ratio_without_mark": (made.seconds - mark) / bare.seconds,
        "ratio_with_mark": made.seconds / bare.seconds,
        "ratio_without_mark_or_teardown": (made.seconds - mark) / to_frames,
        "verify": {"seconds": full.seconds, "cpu": full.cpu_seconds, "peak_mb": full.peak_mb,
                   "verdict": json.loads(full.printed)["verdict"]},
        "verify_without_neural": {"seconds": plain.seconds, "cpu": plain.cpu_seconds, "peak_mb": plain.peak_mb},
        "import_safegen": {"seconds": float(imported.printed)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "overhead.json")
    options = parser.parse_args()

    from safegen.generators import resolve

    folder = resolve("tiny").source
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [sys.executable, "-m", "safegen", "keys", "init", "--json"],
            env=os.environ | {"SAFEGEN_HOME": home}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        one_round(0, Path(home), folder)  # fills the page cache
        rounds = []
        for number in range(1, options.rounds + 1):
            rounds.append(one_round(number, Path(home), folder))
            print(f"round {number}: {rounds[-1]['ratio_without_mark']:.3f} without the mark", flush=True)

    def median(*path: str) -> float:
        values = []
        for item in rounds:
            for key in path:
                item = item[key]
            values.append(item)
        return round(statistics.median(values), 3)

    summary = {
        "bare_seconds": median("bare", "seconds"),
        "generate_seconds": median("generate", "seconds"),
        "generate_peak_mb": median("generate", "peak_mb"),
        "mark_embed_and_read_seconds": median("mark_seconds"),
        "ratio_without_mark": median("ratio_without_mark"),
        "ratio_with_mark": median("ratio_with_mark"),
        "ratio_without_mark_or_teardown": median("ratio_without_mark_or_teardown"),
        "verify_seconds": median("verify", "seconds"),
        "verify_without_neural_seconds": median("verify_without_neural", "seconds"),
        "import_safegen_seconds": median("import_safegen", "seconds"),
    }
    report = {
        "command": "python benchmarks/pipeline/overhead.py " + " ".join(sys.argv[1:]),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
        "summary": summary,
        "rounds": rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
