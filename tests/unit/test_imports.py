"""What gets loaded when: ``import safegen`` and ``--help`` must need nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "diffusers", "transformers", "onnxruntime", "cv2", "sqlalchemy", "alembic", "c2pa", "numpy", "rich"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules in ``sys.modules`` of a fresh process after ``code``."""
    report = "import sys, json; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_safegen_loads_nothing_heavy() -> None:
    assert loaded_by("import safegen") & HEAVY == set()


def test_the_command_line_loads_nothing_heavy() -> None:
    loaded = loaded_by("import safegen.cli")
    assert loaded & (HEAVY - {"rich"}) == set()


def test_judging_a_prompt_needs_no_model_library() -> None:
    code = "from safegen.policies.engine.engine import Engine; Engine.load().judge_many(['a red ball'])"
    assert loaded_by(code) & {"torch", "diffusers", "transformers", "cv2"} == set()


@pytest.mark.slow
def test_verification_without_the_neural_parts_needs_no_torch(tmp_path: object) -> None:
    code = f"""
import safegen, pathlib, subprocess, imageio_ffmpeg
clip = pathlib.Path({str(tmp_path)!r}, "clip.mp4")
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=8:d=1",
                "-pix_fmt", "yuv420p", str(clip)], check=True)
assert safegen.verify(clip, neural=False, home=safegen.Home(clip.parent)).verdict == "unverified"
"""
    assert loaded_by(code) & {"torch", "diffusers", "transformers"} == set()


@pytest.mark.slow
def test_where_torch_is_missing_the_mark_is_not_run(tmp_path: object) -> None:
    code = f"""
import sys, pathlib, subprocess, imageio_ffmpeg
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
import safegen
home = safegen.Home(pathlib.Path({str(tmp_path)!r}))
safegen.KeyStore.init(home)
clip = home.root / "clip.mp4"
subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=8:d=1",
                "-pix_fmt", "yuv420p", str(clip)], check=True)
verdict = safegen.verify(clip, home=home)
mark = verdict.findings[1]
assert (verdict.verdict, mark.status) == ("inconclusive", "not_run"), verdict
assert "torch is not installed" in mark.summary
"""
    loaded_by(code)


@pytest.mark.parametrize("package", ["watermark", "detectors", "policies", "migrations"])
def test_the_bare_folder_names_refuse_to_be_imported(package: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    assert f"import safegen.{package}" in done.stderr
    assert done.returncode != 0


def test_no_public_name_is_shadowed_by_a_module() -> None:
    """Importing ``safegen.x`` sets the attribute ``x``: a function of that name would turn into the module."""
    import pkgutil

    import safegen

    modules = {m.name for m in pkgutil.iter_modules(safegen.__path__)}
    assert modules & set(safegen.__all__) == set()


def test_public_names_resolve() -> None:
    import safegen

    for name in safegen.__all__:
        assert getattr(safegen, name) is not None
    with pytest.raises(AttributeError):
        _ = safegen.no_such_name
