"""Build the source distribution, from it the wheel, install that in a clean environment and use it in an empty folder.

    python tools/try_wheel.py [--borrow] [--pip-args "--extra-index-url URL"]

The requirements are installed too, as ``pip install`` does for anybody (minutes; some GB). ``--borrow`` takes them from
the environment that runs this, so that only the wheel itself is tried.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_SOURCES = (
    ".git",
    ".venv",
    "build",
    "dist",
    "demo",
    "shared",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "node_modules",
)
USES = (
    ("keys", "init"),
    ("generate", "a red ball bouncing on grass at sunset", "-o", "clip.mp4", "--seed", "6"),
    ("verify", "clip.mp4"),
)


def run(*command: str | Path, cwd: Path, **environment: str) -> None:
    """Run a command that must succeed."""
    print("$", shlex.join(map(str, command)), flush=True)
    subprocess.run(command, cwd=cwd, env=os.environ | environment, check=True)


def built(work: Path) -> Path:
    """Return the wheel, built from the source distribution and nothing else."""
    shutil.copytree(ROOT, work / "source", ignore=shutil.ignore_patterns(*NO_SOURCES))
    hook = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    run(sys.executable, "-c", hook, "build_sdist", work, cwd=work / "source")
    (archive,) = work.glob("*.tar.gz")
    shutil.unpack_archive(archive, work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    run(sys.executable, "-c", hook, "build_wheel", work, cwd=unpacked)
    (wheel,) = work.glob("*.whl")
    return wheel


def installed(wheel: Path, work: Path, borrow: bool, pip_args: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that starts the installed safegen, and its environment."""
    if borrow:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(work / "lib")]
        run(*pip, wheel, cwd=work)
        return [sys.executable, "-m", "safegen"], {"PYTHONPATH": str(work / "lib")}
    venv.create(work / "venv", with_pip=True)
    scripts = work / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "-q", *pip_args, wheel, cwd=work)
    return [str(scripts / "safegen")], {}


def main() -> None:
    """Build, install, use; a step that fails ends with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--borrow", action="store_true", help="take the requirements from this environment")
    parser.add_argument("--pip-args", default="", help="handed to pip install")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        safegen, environment = installed(built(work), work, given.borrow, shlex.split(given.pip_args))
        (work / "empty").mkdir()
        environment["SAFEGEN_HOME"] = str(work / "home")
        for arguments in USES:
            run(*safegen, *arguments, cwd=work / "empty", **environment)


if __name__ == "__main__":
    main()
