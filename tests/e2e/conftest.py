"""One home and one clip of the embedded model, made once for all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safegen.keys import KeyStore
from safegen.settings import Home

PROMPT = "a red ball bouncing on grass at sunset"
SMALL = {"frames": 13, "steps": 2}
"""Half as long and an eighth of the steps of the card's own call: drawn badly, marked and recorded just the same."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs ``safegen`` in a process of its own, as a user would."""

    home: Home

    def __call__(self, *arguments: str | Path, code: int | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"SAFEGEN_HOME": str(self.home.root), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "safegen", *map(str, arguments)],
            env=environment, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start it and return at once; with one thread, for several may run side by side."""
        environment = os.environ | {"SAFEGEN_HOME": str(self.home.root), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "safegen", *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def json(self, *arguments: str | Path, code: int | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)


@dataclass(frozen=True, slots=True)
class Made:
    """A generated clip and what ``safegen generate --json`` printed about it."""

    path: Path
    printed: dict[str, Any]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    KeyStore.init(home)
    return home


@pytest.fixture(scope="session")
def shell(home: Home) -> Shell:
    return Shell(home)


@pytest.fixture(scope="session")
def made(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    size = ("--frames", str(SMALL["frames"]), "--steps", str(SMALL["steps"]))
    printed = shell.json("generate", PROMPT, "-o", path, "--seed", "7", *size, code=0)
    return Made(path, printed)


@pytest.fixture
def fresh_home(tmp_path: Path) -> Home:
    """A home of a test's own, with keys and an empty ledger."""
    home = Home(tmp_path / "home", ledger_busy_seconds=1.0)
    KeyStore.init(home)
    return home


def ffmpeg(*arguments: str | Path) -> None:
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)
