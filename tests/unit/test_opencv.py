"""OpenCV that does not load, or lies there in two versions: said once, with the one command that mends it."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest

from safegen import KeyStore, opencv
from safegen.cli import doctor
from safegen.settings import Home

ROOT = Path(__file__).resolve().parents[2]
COMMAND = f"{sys.executable} -m pip install --force-reinstall --no-deps opencv-python-headless=="
WITHOUT_LIBGL = """
import sys
class NoLibGL:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory", name="cv2")
sys.meta_path.insert(0, NoLibGL())
sys.argv = ["safegen", *sys.argv[1:]]
from safegen.cli import main
sys.exit(main())
"""


def without_libgl(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own where ``import cv2`` fails as it does in a slim image."""
    command = [sys.executable, "-c", WITHOUT_LIBGL, *arguments]
    environment = os.environ | {"SAFEGEN_HOME": str(home.root)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_doctor_prints_the_command_that_mends_opencv(tmp_path: Path) -> None:
    done = without_libgl(Home(tmp_path), "doctor", "--json")
    check = json.loads(done.stdout)["opencv"]
    assert check["ok"] is False
    assert "libGL.so.1" in check["summary"]
    assert COMMAND + importlib.metadata.version("opencv-python") in check["remedy"]


@pytest.mark.slow
def test_where_opencv_does_not_load_verify_says_which_questions_stay_open(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    KeyStore.init(home)
    clip = tmp_path / "clip.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=8:d=1", "-pix_fmt", "yuv420p", str(clip)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source], check=True)
    done = without_libgl(home, "verify", str(clip), "--forensic", "--json")
    findings = {found["basis"]: found for found in json.loads(done.stdout)["findings"]}
    assert done.returncode == 4
    for basis in ("watermark", "forensic"):
        assert findings[basis]["status"] == "not_run"
        assert "OpenCV cannot be loaded" in findings[basis]["summary"]
        assert "safegen doctor" in findings[basis]["summary"]


@pytest.mark.slow
def test_where_opencv_does_not_load_the_model_is_not_even_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    KeyStore.init(home)
    done = without_libgl(home, "generate", "a red ball", "-o", str(tmp_path / "clip.mp4"), "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"]) == (4, "InstallationError")
    assert COMMAND in error["remedy"]
    assert not (tmp_path / "clip.mp4").exists()
    assert not (home.root / "ledger.db").exists()


def test_two_versions_of_opencv_in_one_folder_are_no_sound_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "4.10.0.84" if name == "opencv-python-headless" else real(name)
    )
    check = doctor._opencv(Home(tmp_path))
    assert not check.ok
    assert "4.10.0.84" in check.summary
    assert COMMAND + real("opencv-python") in check.remedy


@pytest.mark.slow
def test_opencv_is_imported_in_one_place() -> None:
    """Elsewhere a build that does not load would end in a traceback, without the command."""
    importers = set()
    for folder in ("safegen", "watermark", "detectors", "policies", "migrations"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] == "cv2" for name in names):
                    importers.add(path)
    assert importers == {Path(opencv.__file__)}
