"""The package map in pyproject.toml names every folder that holds code or data, and the data that must ship."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("watermark", "detectors", "policies", "migrations")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    parts = package.split(".")
    if len(parts) > 1 and parts[1] in FOLDERS:
        return ROOT.joinpath(*parts[1:])
    return ROOT.joinpath(*parts)


def packages_on_disk() -> set[str]:
    found = set()
    for top in ("safegen", *FOLDERS):
        for init in (ROOT / top).rglob("__init__.py"):
            relative = init.parent.relative_to(ROOT)
            if any(ROOT.joinpath(*relative.parts[: n + 1]).is_symlink() for n in range(len(relative.parts))):
                continue
            name = ".".join(relative.parts)
            found.add(name if top == "safegen" else f"safegen.{name}")
    return found


def test_every_package_is_listed() -> None:
    assert set(SETUP["packages"]) == packages_on_disk()


def test_every_folder_with_code_is_a_package() -> None:
    for package in SETUP["packages"]:
        for path in folder_of(package).iterdir():
            if path.is_dir() and not path.is_symlink() and list(path.glob("*.py")):
                assert (path / "__init__.py").exists(), path


@pytest.mark.parametrize("package", sorted(SETUP["package-data"]))
def test_every_data_pattern_finds_something(package: str) -> None:
    for pattern in SETUP["package-data"][package]:
        assert list(folder_of(package).glob(pattern)), pattern


def test_every_data_file_ships() -> None:
    """Files beside the code that are no code: each must match a pattern, or it is missing from the wheel."""
    for package in SETUP["packages"]:
        folder = folder_of(package)
        shipped = {p for pattern in SETUP["package-data"].get(package, []) for p in folder.glob(pattern)}
        inner = {folder_of(p) for p in SETUP["packages"] if p != package}
        for path in folder.rglob("*"):
            relevant = path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
            mine = not any(parent in inner for parent in path.parents if parent != folder and folder in parent.parents)
            linked = any(p.is_symlink() for p in path.parents if p != ROOT and ROOT in p.parents)
            if relevant and mine and not linked:
                assert path in shipped, f"{path.relative_to(ROOT)} would be missing from the wheel"


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_for_type_checkers(folder: str) -> None:
    link = ROOT / "safegen" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder
