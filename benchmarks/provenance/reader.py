"""What verifying a credential costs, beside a hash pass and c2pa-python's reader: ratios, peak memory, growth.

    python benchmarks/provenance/reader.py [--sizes 0.1 47 500] [--rounds 25] [--cycles 1000] [--out DIR]

Files are H.264 in MP4, lengthened with random bytes to the size wanted and signed natively. Every round times, with a
hot page cache and each right after a SHA-256 pass over the same file: ``read_credential`` on the intact file and on one
with a bit changed, and ``c2pa.Reader`` with its defaults but for the network. Every result must be the right one.
Memory is measured in a process for each, over what reading a small file took there before.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from writer import make_file, median_ratios, processor, sha256, status, timed  # noqa: E402 - found beside this file

STEPS = ("safegen", "safegen, one bit changed", "c2pa-python")
TARGETS = {"safegen / sha256": 1.2, "peak over base, MB": 16.0, "growth over the cycles, MB": 2.0}


class Bench:
    """Keys, and the ways to read."""

    def __init__(self, folder: Path) -> None:
        from safegen.keys import KeyStore
        from safegen.settings import Home

        home = Home(folder / "home")
        self.keys = KeyStore.load(home) if home.keys.exists() else KeyStore.init(home)

    def sign(self, source: Path, target: Path) -> None:
        from safegen.provenance.backends import BACKENDS, Signing
        from safegen.provenance.file_signing import sign_file
        from tests.unit.provenance.provenance_samples import make_spec

        sign_file(source, target, make_spec(), self.keys, signing=Signing(BACKENDS["native"], read_back=False))

    def read(self, how: str, path: Path) -> None:
        if how == "c2pa-python":
            import c2pa

            settings = {
                "version": 1,
                "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
                "trust": {"trust_anchors": self.keys.root_pem},
            }
            with path.open("rb") as file, c2pa.Reader("video/mp4", file, None, c2pa.Context.from_dict(settings)) as r:
                state, wanted = r.get_validation_state(), "Trusted"
        else:
            from safegen.provenance.read import read_credential

            state = read_credential(path, trust_anchors_pem=self.keys.root_pem).state
            wanted = "invalid" if how.endswith("changed") else "trusted"
        if state != wanted:
            raise SystemExit(f"{how}: {path} is {state}")


def one_round(bench: Bench, intact: Path, changed: Path, number: int) -> dict[str, Any]:
    """Time every step once, each right after a SHA-256 pass over its file; rounds begin with another."""
    found = {}
    for how in (*STEPS[number % len(STEPS) :], *STEPS[: number % len(STEPS)]):
        path = changed if how.endswith("changed") else intact
        pass_ = timed(lambda path=path: sha256(path))  # type: ignore[misc]
        found[how] = {"sha256": pass_, "step": timed(lambda how=how, path=path: bench.read(how, path))}  # type: ignore[misc]
    return found


def child(how: str, folder: Path, path: Path, cycles: int) -> None:
    bench, small, target = Bench(folder), folder / "small.mp4", folder / "cycle.mp4"

    def cycle() -> None:
        target.unlink(missing_ok=True)
        bench.sign(folder / "plain.mp4", target)
        bench.read("safegen", target)

    if cycles:
        for _ in range(200):
            cycle()
    else:
        bench.read(how.removesuffix(", one bit changed"), small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    base = status("VmRSS")
    for _ in range(cycles):
        cycle()
    if not cycles:
        bench.read(how, path)
    print(json.dumps({"base": base, "peak": status("VmHWM") - base, "growth": status("VmRSS") - base}))


def apart(how: str, folder: Path, path: Path, cycles: int = 0) -> dict[str, float]:
    """Measure memory in a process of its own, in MB."""
    command = [sys.executable, __file__, "--child", how, str(folder), str(path), str(cycles)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measure(sizes: list[float], rounds: int, cycles: int) -> dict[str, Any]:
    found: dict[str, Any] = {"sizes": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder)
        shutil.move(make_file(folder, 0.05), folder / "plain.mp4")
        bench.sign(folder / "plain.mp4", folder / "small.mp4")
        for size in sizes:
            source, intact, changed = make_file(folder, size), folder / "signed.mp4", folder / "changed.mp4"
            bench.sign(source, intact)
            source.unlink()
            shutil.copyfile(intact, changed)
            with changed.open("r+b") as file:
                file.seek(-5, os.SEEK_END)
                byte = file.read(1)[0]
                file.seek(-5, os.SEEK_END)
                file.write(bytes([byte ^ 1]))
            one_round(bench, intact, changed, 0)  # warms the page cache
            count = rounds if size < 100 else max(1, rounds // 5)
            found["sizes"][str(size)] = {
                "bytes": intact.stat().st_size,
                "rounds": [one_round(bench, intact, changed, number) for number in range(count)],
                "memory_mb": {how: apart(how, folder, changed if "changed" in how else intact) for how in STEPS},
            }
            intact.unlink()
            changed.unlink()
        if cycles:
            found["cycles"] = apart("safegen", folder, folder / "small.mp4", cycles)
    return found


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """Medians of the rounds' ratios: by the clock, and of computing time."""
    sizes = {}
    for size, data in found["sizes"].items():
        ratios = partial(median_ratios, data["rounds"])

        sizes[size] = {f"{how} / sha256": ratios(how, "sha256") for how in STEPS}
        sizes[size] |= {
            "safegen / c2pa-python": ratios("safegen", "c2pa-python"),
            "milliseconds": {
                how: round(1e3 * statistics.median(r[how]["step"]["wall"] for r in data["rounds"]), 1) for how in STEPS
            },
            "peak over base, MB": {how: round(m["peak"], 1) for how, m in data["memory_mb"].items()},
        }
    growth = round(found["cycles"]["growth"], 2) if "cycles" in found else None
    return {"sizes": sizes, "growth over the cycles, MB": growth, "targets": TARGETS}


def markdown(found: dict[str, Any]) -> str:
    summary = found["summary"]
    sizes = summary["sizes"]
    lines = [
        "# Reading: safegen and c2pa-python",
        "",
        f"`{found['command']}`, {found['date']}, {found['machine']}; load {found['load_before'][0]:.1f} before, "
        f"{found['load_after'][0]:.1f} after.",
        f"{found['note']} Medians of {found['rounds']} rounds (500 MB: a fifth); each ratio is of two things timed in "
        "the same round: by the clock, and in brackets the processor time that this process used.",
        "",
        "| ratio | " + " | ".join(f"{size} MB" for size in sizes) + " | wanted at 47 and 500 MB |",
        "|---|" + "---|" * (len(sizes) + 1),
    ]
    for row in [name for name in next(iter(sizes.values())) if " / " in name]:
        cells = " | ".join(f"{s[row]['wall']:.2f} ({s[row]['cpu']:.2f})" for s in sizes.values())
        lines.append(f"| {row} | {cells} | {f'<= {TARGETS[row]}' if row in TARGETS else ''} |")
    for row, unit in (("milliseconds", "ms"), ("peak over base, MB", "MB over base at most")):
        for how in STEPS:
            wanted = f"<= {TARGETS[row]:.0f}" if row in TARGETS and how != "c2pa-python" else ""
            cells = " | ".join(f"{s[row][how]:.1f}" for s in sizes.values())
            lines.append(f"| {how}, {unit} | {cells} | {wanted} |")
    if summary["growth over the cycles, MB"] is not None:
        lines += ["", f"Growth of resident memory over {found['cycles_run']} times signing and reading, after 200 to "]
        lines += [f"warm up: {summary['growth over the cycles, MB']:.2f} MB (wanted: at most 2)."]
    return "\n".join([*lines, ""])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        how, folder, path, cycles = sys.argv[2:]
        child(how, Path(folder), Path(path), int(cycles))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 47, 500])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", default="")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "command": f"python benchmarks/provenance/reader.py --sizes {' '.join(f'{s:g}' for s in arguments.sizes)} "
        f"--rounds {arguments.rounds} --cycles {arguments.cycles}",
        "date": dt.date.today().isoformat(),
        "machine": f"{processor()}, {platform.system()}, Python {platform.python_version()}",
        "load_before": os.getloadavg(),
        "note": arguments.note,
        "rounds": arguments.rounds,
        "cycles_run": arguments.cycles,
    }
    found |= measure(arguments.sizes, arguments.rounds, arguments.cycles)
    found |= {"load_after": os.getloadavg(), "summary": summarise(found)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "reader.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "reader.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
