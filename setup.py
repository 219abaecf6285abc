"""What pyproject.toml cannot say: the packages, read from the tree, and the README without its relative links."""

import re
from pathlib import Path

from setuptools import find_packages, setup

BESIDE = ("watermark", "detectors", "policies", "migrations")  # stand beside safegen/, ship inside it (package-dir)
SHIPPED_RECIPES = {"safegen.generators.training"}  # users train probes for their own generators


def _inside(*folders: str) -> list[str]:
    return find_packages(include=[pattern for folder in folders for pattern in (folder, f"{folder}.*")])


def _ships(package: str) -> bool:
    """Recipes of what ships stay in the source distribution."""
    return "training" not in package.split(".") or package in SHIPPED_RECIPES


def _for_an_index(readme: str) -> str:
    """Leave out pictures and keep the words of links that lead into the repository: an index page has no such files."""
    without_pictures = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", readme)
    return re.sub(r"\[([^]]*)\]\((?!https?:|#)[^)]*\)", r"\1", without_pictures)


setup(
    packages=[p for p in [*_inside("safegen"), *(f"safegen.{p}" for p in _inside(*BESIDE))] if _ships(p)],
    long_description=_for_an_index(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
