"""OpenCV, loaded in one place: ``from safegen.opencv import cv2``.

Two requirements bring a build of it each, nudenet ``opencv-python-headless`` and invisible-watermark ``opencv-python``.
Both own the folder cv2/, so the one installed last is used, and ``opencv-python`` loads libGL, which slim images lack.
"""

from __future__ import annotations

import importlib.metadata
import sys

from safegen.errors import InstallationError

__all__ = ["cv2", "headless", "mend", "versions"]

_BUILDS = ("opencv-python", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Return the version of each build that is installed; that of ``opencv-python``, which safegen asks for, first."""
    found = {}
    for name in _BUILDS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def mend() -> str:
    """Return what to run where OpenCV does not load, or where its two builds differ in version."""
    version = "".join(f"=={v}" for v in list(versions().values())[:1])
    command = f"{sys.executable} -m pip install --force-reinstall --no-deps opencv-python-headless{version}"
    return f"Put the build over it that needs no system libraries: {command}"


try:
    import cv2
    from cv2.version import headless
except ImportError as error:
    raise InstallationError(f"OpenCV cannot be loaded ({error}): see safegen doctor", remedy=mend()) from error
