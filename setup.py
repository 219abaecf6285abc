"""The list of packages, read from the tree: pyproject.toml can map folders to names or find packages, but not both."""

from setuptools import find_packages, setup

BESIDE = ("watermark", "detectors", "policies", "migrations")  # stand beside safegen/, ship inside it (package-dir)
SHIPPED_RECIPES = {"safegen.generators.training"}  # users train probes for their own generators


def _inside(*folders: str) -> list[str]:
    return find_packages(include=[pattern for folder in folders for pattern in (folder, f"{folder}.*")])


def _ships(package: str) -> bool:
    """Recipes of what ships stay in the source distribution."""
    return "training" not in package.split(".") or package in SHIPPED_RECIPES


setup(packages=[p for p in [*_inside("safegen"), *(f"safegen.{p}" for p in _inside(*BESIDE))] if _ships(p)])
