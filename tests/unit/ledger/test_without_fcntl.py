"""The ledger on a system without ``fcntl``, as Windows is: what keeps writers apart is SQLite's own lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TESTS = ("concurrency", "faults", "open", "store", "write")


@pytest.fixture
def without_fcntl(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python and all Pythons that it starts find no ``fcntl``."""
    if "fcntl" in sys.builtin_module_names:
        pytest.skip("fcntl is a part of this interpreter and cannot be hidden")
    (tmp_path / "fcntl.py").write_text("raise ModuleNotFoundError(\"No module named 'fcntl'\", name='fcntl')\n")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def test_there_are_no_turns_without_fcntl(without_fcntl: dict[str, str]) -> None:
    code = "from safegen.ledger.fair_lock import possible; print(possible())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=without_fcntl, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.slow
def test_the_ledgers_tests_pass_without_fcntl(without_fcntl: dict[str, str]) -> None:
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in TESTS]
    which = ["-m", "not slow", "-k", "not postgres"]  # only SQLite's writers take turns
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *which, *files]
    done = subprocess.run(command, cwd=ROOT, env=without_fcntl, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "no locks of open files on this system" in done.stdout  # the tests of turns are left out, and say so
