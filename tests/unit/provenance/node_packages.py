"""The verifiers of tests/node, installed once from the npm registry into the build folder, which git ignores."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[3]
SOURCE, FOLDER = ROOT / "tests" / "node", ROOT / "build" / "node"
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")


def install() -> None:
    """Bring the packages of the lock file into place; the test is skipped where there is no node, or no network."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"needs node 20 or newer, not {version.strip()}")
    wanted, done = (SOURCE / "package-lock.json").read_text(), FOLDER / "installed"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):  # tests run in several processes
        for path in SOURCE.iterdir():
            if not (FOLDER / path.name).is_file() or (FOLDER / path.name).read_bytes() != path.read_bytes():
                shutil.copy(path, FOLDER)
        if done.is_file() and done.read_text() == wanted:
            return
        command = ["npm", "ci", "--prefix", str(FOLDER), "--ignore-scripts", "--no-audit", "--no-fund"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode and any(code in ran.stderr for code in NO_NETWORK):
            pytest.skip("needs the npm registry, once")
        assert ran.returncode == 0, ran.stderr
        done.write_text(wanted)


def run(script: str, given: Any) -> Any:
    """Run one of the scripts on JSON and return the JSON that it answers with."""
    install()
    command = ["node", str(FOLDER / script)]
    ran = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
