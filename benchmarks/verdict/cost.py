"""What ``safegen verify`` costs for a foreign clip, against one decoding of it to rgb24 by ffmpeg.

    python benchmarks/verdict/cost.py [--seconds 20 60] [--out benchmarks/verdict/results/cost.json]

The clip is ffmpeg's own test picture with some noise, 1280x720 at 25 frames a second, in a home with keys: all marks
are really looked for, and none is there. Processor seconds of all processes; the largest resident size of one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safegen.keys import KeyStore
from safegen.media.ffmpeg_process import executable
from safegen.settings import Home


def spent(command: list[str], **environment: str) -> tuple[float, int]:
    """Processor seconds of a command with its children, and the largest resident size among them in MiB."""
    measure = (
        "import json,resource,subprocess,sys;"
        "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL);"
        "u=resource.getrusage(resource.RUSAGE_CHILDREN);print(json.dumps([u.ru_utime+u.ru_stime,u.ru_maxrss]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, *command], env=os.environ | environment, capture_output=True, check=True
    )
    seconds, kilobytes = json.loads(done.stdout)
    return float(seconds), int(kilobytes) // 1024


def measured(folder: Path, seconds: int) -> dict[str, Any]:
    clip = folder / f"{seconds}.mp4"
    source = "testsrc2=size=1280x720:rate=25,noise=alls=8:allf=t"
    subprocess.run(
        [
            executable(),
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            source,
            "-t",
            str(seconds),
            "-pix_fmt",
            "yuv420p",
            str(clip),
        ],
        check=True,
    )
    decoding = spent(
        [executable(), "-v", "error", "-i", str(clip), "-f", "rawvideo", "-pix_fmt", "rgb24", os.devnull, "-y"]
    )
    home = Home(folder / "home")
    verifying = spent(
        [sys.executable, "-m", "safegen", "verify", str(clip)], SAFEGEN_HOME=str(home.root), OMP_NUM_THREADS="1"
    )
    return {
        "decode_cpu_s": round(decoding[0], 2), "verify_cpu_s": round(verifying[0], 2),
        "times_a_decoding": round(verifying[0] / decoding[0], 1), "peak_mib": verifying[1],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cost.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        KeyStore.init(Home(Path(folder) / "home"))
        results = {f"{s} s of 1280x720": measured(Path(folder), s) for s in given.seconds}
    report = {
        "command": f"python benchmarks/verdict/cost.py --seconds {' '.join(map(str, given.seconds))}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "results": results,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
