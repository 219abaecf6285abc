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
from typer.testing import CliRunner

from safegen.cli import app
from safegen.keys import KeyStore
from safegen.settings import Home

Done = subprocess.CompletedProcess[str]
PROMPT = "a red ball bouncing on grass at sunset"
SMALL = {"frames": 13, "steps": 2}
"""Half as long and an eighth of the steps of the card's own call: drawn badly, marked and recorded just the same."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs ``safegen``: within this process, which spares each command seconds of importing and loading; or apart.

    A command does the same either way. The clip that most tests share is made and verified in processes of their own,
    as users do, and so runs whatever is interrupted, or at once with another.
    """

    home: Home

    def __call__(self, *arguments: str | Path, code: int | None = None) -> Done:
        words = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, words, env=self._changes)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return _expected(Done(words, done.exit_code, done.stdout, done.stderr), code)

    def apart(self, *arguments: str | Path, code: int | None = None) -> Done:
        """Run it in a process of its own."""
        child = self.start(*arguments)
        printed, complaint = child.communicate(timeout=500)
        return _expected(Done(child.args, child.returncode, printed, complaint), code)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a process of its own and return at once."""
        command = [sys.executable, "-m", "safegen", *map(str, arguments)]
        return subprocess.Popen(
            command, env=os.environ | self._changes, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def json(self, *arguments: str | Path, code: int | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    @property
    def _changes(self) -> dict[str, str]:
        return {"SAFEGEN_HOME": str(self.home.root), "NO_COLOR": "1"}


def _expected(done: Done, code: int | None) -> Done:
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


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
    printed = shell.apart("generate", PROMPT, "-o", path, "--seed", "7", *size, "--json", code=0).stdout
    return Made(path, json.loads(printed))


@pytest.fixture
def fresh_home(tmp_path: Path) -> Home:
    """A home of a test's own, with keys and an empty ledger."""
    home = Home(tmp_path / "home", ledger_busy_seconds=1.0)
    KeyStore.init(home)
    return home


def ffmpeg(*arguments: str | Path) -> None:
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)
