"""What is built and installed does what the checkout does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # builds twice and starts three processes that load torch
def test_the_wheel_generates_and_verifies_in_an_empty_folder(tmp_path: Path) -> None:
    """Built from the source distribution; the requirements are those of the environment that runs the tests."""
    command = [sys.executable, str(ROOT / "tools" / "try_wheel.py"), "--borrow"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED  clip.mp4" in done.stdout
