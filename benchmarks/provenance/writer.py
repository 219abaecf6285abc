"""What signing costs natively and through c2pa-python: time as ratios in one run, memory over the process's base.

    python benchmarks/provenance/writer.py [--sizes 0.1 47 500] [--rounds 25] [--out benchmarks/provenance/results]

Files are H.264 in MP4 made by ffmpeg with reserved room, their media box lengthened with random bytes to the size
wanted. Every round times, with a hot page cache and each right after a SHA-256 pass over the same file: a plain copy,
the native writer in place and into a new file, c2pa-python's ``sign_file`` with its defaults and without its own
verification. Nothing is forced to the disk within the timing but where ``flushed`` says so, for the library never does.
Files that a step changes are made anew outside the timing, and every result must be found trusted by c2pa-rs, outside
it too. Memory is measured in a process for each.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    "in place / sha256": 1.15,
    "in place / c2pa-python": 0.22,
    "copying / sha256": 2.0,
    "peak over base, MB": 16.0,
    "growth over 1,000 files, MB": 2.0,
}
CYCLES = 1000
SIGNERS = ("native in place", "native copying", "c2pa-python", "native in place, flushed", "c2pa-python unverified")


def make_file(folder: Path, megabytes: float) -> Path:
    """Make an MP4 of about that size: ftyp, moov, room of 20 kB, mdat."""
    import imageio_ffmpeg

    path = folder / f"{megabytes}.mp4"
    source = "testsrc=size=192x192:rate=16:duration=2"
    arguments = ["-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-moov_size", "20000"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments, path], check=True)
    with path.open("r+b") as file:
        content = file.read()
        at = content.rindex(b"mdat") - 4
        missing = int(megabytes * 1e6) - len(content)
        if missing > 0:
            file.seek(at)
            file.write(struct.pack(">I", len(content) - at + missing))
            file.seek(0, os.SEEK_END)
            while missing > 0:
                file.write(block := os.urandom(min(missing, 1 << 20)))
                missing -= len(block)
    return path


class Bench:
    """Keys, a manifest, and the ways to sign."""

    def __init__(self, folder: Path) -> None:
        from safegen.keys import KeyStore
        from safegen.provenance.manifest import GeneratorModel, ManifestSpec, MediaFormat, Mode, SoftBinding
        from safegen.provenance.native.cose import ClaimSigner
        from safegen.provenance.native.writer import Request
        from safegen.settings import Home
        from safegen.types import ContentId

        home = Home(folder / "home")
        self.keys = KeyStore.load(home) if home.keys.exists() else KeyStore.init(home)
        self.spec = ManifestSpec(
            title="clip.mp4",
            media_format=MediaFormat.MP4,
            mode=Mode.TEXT,
            model=GeneratorModel("model", "example/model", "1"),
            content_id=ContentId("0123456789abcdef"),
            when=dt.datetime.now(dt.UTC),
            soft_binding=SoftBinding("org.safegen.latent-residual.2", "00ff10"),
        )
        signer = ClaimSigner.from_pem(self.keys.certificate_chain_pem, self.keys.signing_key)
        self.request = Request(self.spec, signer)

    def sign(self, how: str, source: Path, target: Path) -> None:
        from safegen.provenance.native.writer import write, write_in_place

        if how.startswith("native in place"):
            write_in_place(target, self.request, flush=how.endswith("flushed"))
        elif how == "native copying":
            with target.open("w+b") as file:
                write(source, file, self.request)
        else:
            self._library(source, target, verified=how == "c2pa-python")

    def _library(self, source: Path, target: Path, *, verified: bool) -> None:
        import c2pa

        info = c2pa.C2paSignerInfo(b"es256", self.keys.certificate_chain_pem.encode(), self.keys.signing_key, None)
        settings = {"version": 1, "verify": {"remote_manifest_fetch": False, "verify_after_sign": verified}}
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(json.dumps(self.spec.definition()), c2pa.Context.from_dict(settings)) as builder,
        ):
            builder.sign_file(str(source), str(target), signer)

    def check(self, path: Path) -> None:
        from safegen.provenance.read import read_credential

        found = read_credential(path, trust_anchors_pem=self.keys.root_pem)
        if found.state != "trusted":
            raise SystemExit(f"{path} is {found.state}: {found.failure_codes} {found.problem}")


Timing = dict[str, float]


def timed(action: Callable[[], object]) -> Timing:
    """Return seconds by the clock, and seconds that this process computed: other work disturbs these less."""
    start, computed = time.perf_counter(), time.process_time()
    action()
    return {"wall": round(time.perf_counter() - start, 6), "cpu": round(time.process_time() - computed, 6)}


def sha256(path: Path) -> None:
    """One pass as the writer makes it: 1 MiB at a time."""
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])


def settled(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())  # else the writer's fsync in place would pay for the copy made for it


def one_round(bench: Bench, source: Path, folder: Path, number: int) -> dict[str, dict[str, Timing]]:
    """Time every step once, each right after a SHA-256 pass over the file that it reads; rounds begin with another."""
    target, found = folder / "signed.mp4", {}
    steps = ("copy", *SIGNERS)
    for how in (*steps[number % len(steps) :], *steps[: number % len(steps)]):
        target.unlink(missing_ok=True)
        read = source
        if how.startswith("native in place"):
            shutil.copyfile(source, target)
            settled(target)
            read = target
        pass_ = timed(lambda read=read: sha256(read))  # type: ignore[misc]
        if how == "copy":
            found[how] = {"sha256": pass_, "step": timed(lambda: shutil.copyfile(source, target))}
        else:
            found[how] = {"sha256": pass_, "step": timed(lambda how=how: bench.sign(how, source, target))}  # type: ignore[misc]
            bench.check(target)
    return found


def memory(how: str, folder: Path, source: Path, cycles: int) -> dict[str, float]:
    """Run in a process of its own: peak over base of one signature, or growth over ``cycles`` of them, in MB."""
    command = [sys.executable, __file__, "--child", how, str(folder), str(source), str(cycles)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def child(how: str, folder: Path, source: Path, cycles: int) -> None:
    bench, target, small = Bench(folder), folder / "memory.mp4", folder / "small.mp4"

    def once(path: Path) -> None:
        target.unlink(missing_ok=True)
        if how == "native in place":
            with path.open("rb") as left, target.open("wb") as right:
                shutil.copyfileobj(left, right, 1 << 16)
        bench.sign(how, path, target)

    for _ in range(200 if cycles else 1):  # imports, caches, allocator
        once(small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    base = status("VmRSS")
    for _ in range(cycles):
        once(small)
    if not cycles:
        once(source)
    print(json.dumps({"base": base, "peak": status("VmHWM") - base, "growth": status("VmRSS") - base}))


def status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(sizes: list[float], rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"sizes": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder)
        shutil.copyfile(make_file(folder, 0.05), folder / "small.mp4")
        for size in sizes:
            source = make_file(folder, size)
            one_round(bench, source, folder, 0)  # warms the page cache
            count = rounds if size < 100 else max(1, rounds // 5)  # long ones are less at the mercy of other work
            timings = [one_round(bench, source, folder, number) for number in range(count)]
            found["sizes"][str(size)] = {
                "bytes": source.stat().st_size,
                "rounds": timings,
                "memory_mb": {how: memory(how, folder, source, 0) for how in SIGNERS[:3]},
            }
            source.unlink()
        found["cycles"] = {how: memory(how, folder, folder / "small.mp4", CYCLES) for how in SIGNERS[:3]}
    return found


def median_ratios(rounds: list[Any], a: str, b: str) -> dict[str, float]:
    """Medians over the rounds of step ``a`` to step ``b``, or to the hash pass right before ``a``."""
    pairs = [(r[a]["step"], r[a]["sha256"] if b == "sha256" else r[b]["step"]) for r in rounds]
    return {k: round(statistics.median(x[k] / max(y[k], 1e-9) for x, y in pairs), 3) for k in ("wall", "cpu")}


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """Medians of the rounds' ratios: by the clock, and of computing time."""
    sizes = {}
    for size, data in found["sizes"].items():
        ratios = partial(median_ratios, data["rounds"])

        sizes[size] = {
            "in place / sha256": ratios("native in place", "sha256"),
            "in place, flushed / sha256": ratios("native in place, flushed", "sha256"),
            "in place / c2pa-python": ratios("native in place", "c2pa-python"),
            "copying / sha256": ratios("native copying", "sha256"),
            "copying / c2pa-python": ratios("native copying", "c2pa-python"),
            "c2pa-python / sha256": ratios("c2pa-python", "sha256"),
            "c2pa-python unverified / sha256": ratios("c2pa-python unverified", "sha256"),
            "copy / sha256": ratios("copy", "sha256"),
            "peak over base, MB": {how: round(m["peak"], 1) for how, m in data["memory_mb"].items()},
        }
    growth = {how: round(m["growth"], 2) for how, m in found["cycles"].items()}
    return {"sizes": sizes, "growth over 1,000 files, MB": growth, "targets": TARGETS}


def markdown(found: dict[str, Any]) -> str:
    summary = found["summary"]
    sizes = summary["sizes"]
    rows = [name for name in next(iter(sizes.values())) if name != "peak over base, MB"]
    lines = [
        "# Signing: the native writer and c2pa-python",
        "",
        f"`{found['command']}`, {found['date']}, {found['machine']}.",
        f"{found['note']} Medians of {found['rounds']} rounds (500 MB: a fifth); each ratio is of two things timed in "
        "the same round: by the clock, and in brackets the processor time that this process used.",
        "",
        "| ratio | " + " | ".join(f"{size} MB" for size in sizes) + " | wanted at 47 and 500 MB |",
        "|---|" + "---|" * (len(sizes) + 1),
    ]
    for row in rows:
        wanted = f"<= {TARGETS[row]}" if row in TARGETS else ""
        lines.append(
            f"| {row} | "
            + " | ".join(f"{s[row]['wall']:.2f} ({s[row]['cpu']:.2f})" for s in sizes.values())
            + f" | {wanted} |"
        )
    lines += ["", "| peak memory over base, MB | " + " | ".join(f"{size} MB" for size in sizes) + " |"]
    lines += ["|---|" + "---|" * len(sizes)]
    for how in SIGNERS[:3]:
        values = " | ".join(f"{s['peak over base, MB'][how]:.1f}" for s in sizes.values())
        lines.append(f"| {how} | {values} |")
    growth = summary["growth over 1,000 files, MB"]
    lines += ["", "Growth of resident memory over 1,000 signed files, after 200 to warm up:"]
    lines += [", ".join(f"{how} {value:.2f} MB" for how, value in growth.items()) + ".", ""]
    return "\n".join(lines)


def processor() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--child"]:
        how, folder, source, cycles = sys.argv[2:]
        child(how, Path(folder), Path(source), int(cycles))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 47, 500])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", default="")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "command": f"python benchmarks/provenance/writer.py {' '.join(sys.argv[1:]).partition('--note')[0]}".strip(),
        "date": dt.date.today().isoformat(),
        "machine": f"{processor()}, {platform.system()}, Python {platform.python_version()}",
        "load_before": os.getloadavg(),
        "note": arguments.note,
        "rounds": arguments.rounds,
    }
    found |= measure(arguments.sizes, arguments.rounds)
    found |= {"load_after": os.getloadavg(), "summary": summarise(found)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "writer.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "writer.md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
