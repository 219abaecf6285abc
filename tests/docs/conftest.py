"""A home with one clip, made once, and what shell blocks find on their path."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.commands import CLIENT
from tests.docs.pages import ROOT

PROMPT = "a red ball bouncing on grass at sunset"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a page's blocks run: a folder, a home in it, and an environment."""

    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def sh(self, script: str, *, stop: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script in bash, by default up to the first command that fails; both streams come together.

        What it exports is there for the next script, as in a reader's shell.
        """
        exported = self.folder.parent / "exported"
        done = subprocess.run(
            ["bash", "-euo" if stop else "-uo", "pipefail", "-c", f"trap 'env -0 > {exported}' EXIT\n{script}"],
            cwd=self.folder, env=self.environment, text=True, timeout=300, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        variables = exported.read_text().split("\0")
        self.environment.update(each.split("=", 1) for each in variables if "=" in each)
        return done

    def prepare(self, script: str) -> None:
        done = self.sh(script)
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``safegen``, ``python`` and ``ffmpeg`` as the tree under test has them."""
    import imageio_ffmpeg

    folder = tmp_path_factory.mktemp("bin")
    socket = folder / "commands.sock"
    (folder / "python").symlink_to(sys.executable)
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    script = folder / "safegen"
    script.write_text(CLIENT.format(python=sys.executable, socket=str(socket)))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.docs.commands", str(socket)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    yield folder
    server.kill()
    server.wait()


def _environment(programs: Path, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAFEGEN_")}
    return kept | {
        "SAFEGEN_HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture(scope="session")
def first_clip(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4, a small one of the embedded model, and the home that made it."""
    folder = tmp_path_factory.mktemp("made")
    scene = Scene(folder, _environment(programs, folder / "home"))
    scene.prepare(f"safegen keys init\nsafegen generate '{PROMPT}' -o clip.mp4 --seed 7 --frames 13 --steps 2")
    return folder


@pytest.fixture
def scene(programs: Path, first_clip: Path, tmp_path: Path) -> Scene:
    """A page's own folder, with a copy of that clip and of that home."""
    folder = tmp_path / "page"
    shutil.copytree(first_clip, folder)
    return Scene(folder, _environment(programs, folder / "home"))
