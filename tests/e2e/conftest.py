"""One home and one clip of the embedded model, made once for all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
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

    def start(self, *arguments: str | Path, program: Sequence[str] = ("-m", "safegen")) -> subprocess.Popen[str]:
        """Start a process of its own and return at once."""
        command = [sys.executable, *program, *map(str, arguments)]
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder slow: they go the whole way with a real model, and share a clip."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with small random weights."""
    from safegen.generators.loading import quiet
    from tests.pipelines import random_wan

    folder = tmp_path_factory.mktemp("model") / "pipe"
    with quiet():
        random_wan().save_pretrained(folder)
    return folder


@pytest.fixture(params=["missing", "folder", "zero_byte", "text", "truncated_header"])
def unreadable(request: pytest.FixtureRequest, tmp_path: Path, made: Made) -> Path:
    """The path of what is no clip."""
    path = tmp_path / f"{request.param}.mp4"
    match request.param:
        case "folder":
            path.mkdir()
        case "zero_byte":
            path.touch()
        case "text":
            path.write_text("this is no video\n" * 100)
        case "truncated_header":
            path.write_bytes(made.path.read_bytes()[:100])
    return path


@pytest.fixture
def clear_pack(tmp_path: Path) -> Path:
    """A policy under which the ledger keeps the words themselves."""
    path = tmp_path / "clear.yaml"
    document = {
        "schema": "safegen.policy/1", "id": "clear", "version": "1", "description": "x", "extends": "eu",
        "record_text": "clear",
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path


def ffmpeg(*arguments: str | Path) -> None:
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)
