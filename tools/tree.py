"""Lays the packages under one roof, ``build/tree/safegen``, for tools that read files and import nothing.

In a checkout four packages stand beside ``safegen/`` (docs/adr/0001). Python finds them; mypy, import-linter and
editors look into folders only. Each entry is a link where the system makes them, so the tree stays true until an entry
at the top is added or goes; elsewhere it is a copy, to be laid again after each change.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lay(tree: Path) -> None:
    """Make ``tree/safegen`` anew."""
    roof = tree / "safegen"
    shutil.rmtree(roof, ignore_errors=True)  # removes links, never what they point at
    roof.mkdir(parents=True)
    for name, source in _sources().items():
        try:
            (roof / name).symlink_to(source, target_is_directory=source.is_dir())
        except OSError:  # Windows without developer mode
            if source.is_dir():
                shutil.copytree(source, roof / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, roof / name)


def _sources() -> dict[str, Path]:
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    inside = {path.name: path for path in (ROOT / folders.pop("safegen")).iterdir() if path.name != "__pycache__"}
    return inside | {name.removeprefix("safegen."): ROOT / folder for name, folder in folders.items()}


if __name__ == "__main__":
    lay(ROOT / "build" / "tree")
