"""Independent implementations that judge ours. Fetched from the package index where pip would not install them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest


def fetched(package: str, version: str, module: str, folder: Path) -> ModuleType:
    """Import a pure-Python wheel that asks for a newer Python than it needs; skips where it cannot be had."""
    target = folder / f"{package}-{version}"
    if not target.is_dir():
        arguments = ["download", "-q", "--no-deps", "--ignore-requires-python", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", *arguments, "-d", str(folder), f"{package}=={version}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ | {"PIP_RETRIES": "1"}
        )
        wheels = list(folder.glob(f"{package.replace('-', '_')}-{version}-py3-none-any.whl"))
        if done.returncode or not wheels:
            pytest.skip(f"{package} {version} cannot be fetched from the package index: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(target)
    sys.path.insert(0, str(target))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(target))
