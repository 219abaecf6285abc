"""Private files: created readable by their owner only, written through to the disk, checked before they are read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from safegen.errors import KeyStoreError


def occupied(folder: Path) -> bool:
    """Return whether ``folder`` exists and is no empty folder."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def write_private(path: Path, content: bytes) -> None:
    """Create ``path`` with mode 0600 and flush ``content`` to the disk; OSError if it exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def check_mode(path: Path, allowed: int) -> None:
    """Raise KeyStoreError, with the chmod that mends it, if ``path`` is open wider than ``allowed``."""
    if os.name == "nt":  # modes mean nothing there
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~allowed:
        raise KeyStoreError(
            f"{path} is open to others (mode {mode:04o}, at most {allowed:04o} is safe)",
            remedy=f"chmod {allowed:o} '{path}'",
        )


def read_private(path: Path, remedy: str) -> bytes:
    """Return the content of ``path``; KeyStoreError with ``remedy`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyStoreError(f"cannot read {path}: {error}", remedy=remedy) from error
